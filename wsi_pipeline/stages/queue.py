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

logger = logging.getLogger(__name__)

COLUMNS = ("rank", "slide", "x", "y", "width", "height", "score", "reason", "audit", "rank_on_slide")


def write_queue(run: RunDir, slide_ids: Iterable[str]) -> int:
    """Write every tile that is to be looked at, of the slides that are done; returns how many there are.

    Flagged tiles come first, the largest expected change on top, whatever slide it is on; then the random check. The
    same tiles give the same bytes. A slide whose tiles cannot be read is left out with a warning.

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
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for rank, t in enumerate(tiles, start=1):
        place = (t.x, t.y, t.width, t.height)
        out.writerow((rank, t.slide_id, *place, f"{t.score:.1f}", t.reason, str(t.audit).lower(), t.rank))
    write_text(run.queue, text.getvalue())
    return len(tiles)
