"""The review queue of the whole cohort as a table that any program reads: queue.csv in the run directory."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable

from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import write_text
from wsi_pipeline.regions import ReviewTile, read_tiles
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import Verdict

logger = logging.getLogger(__name__)

COLUMNS = ("rank", "slide", "x", "y", "width", "height", "score", "reason", "audit", "rank_on_slide", "verdict")


def write_queue(run: RunDir, slide_ids: Iterable[str]) -> int:
    """Write every tile that is to be looked at, of the slides that are done; returns how many there are.

    Flagged tiles come first, the largest expected change on top, whatever slide it is on; then the random check. The
    same tiles give the same bytes. A slide whose tiles cannot be read is left out with a warning. `verdict` says what a
    person made of a tile, as far as it was collected: flagged where anybody flagged it, else accepted, else nothing.

    Raises
    ------
    StoreError
        The run directory cannot be written.
    """
    tiles: list[ReviewTile] = []
    for slide_id in slide_ids:
        try:
            tiles += read_tiles(run.slide(slide_id).tiles, handed_out=True)
        except StoreError as error:
            logger.warning("%s: not in the review queue: %s", slide_id, error)
    tiles.sort(key=lambda t: (t.audit, -t.score, t.slide_id, t.rank))
    verdicts = _verdicts(run)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for rank, t in enumerate(tiles, start=1):
        place = (t.x, t.y, t.width, t.height)
        verdict = verdicts.get((t.slide_id, *place), "")
        out.writerow((rank, t.slide_id, *place, f"{t.score:.1f}", t.reason, str(t.audit).lower(), t.rank, verdict))
    write_text(run.queue, text.getvalue())
    return len(tiles)


def _verdicts(run: RunDir) -> dict[tuple[str, int, int, int, int], str]:
    """By slide and square, what people said; nothing before the first collection."""
    if not run.judged_tiles.is_file():
        return {}
    # Not at the start of every command.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(run.judged_tiles).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{run.judged_tiles} cannot be read: {error}; run `wsi-pipeline collect` again") from error
    # Accepted ones first, so that what anybody flagged stands.
    rows.sort(key=lambda row: row["verdict"] == Verdict.FLAGGED)
    return {(r["slide_id"], r["x"], r["y"], r["width"], r["height"]): r["verdict"] for r in rows}
