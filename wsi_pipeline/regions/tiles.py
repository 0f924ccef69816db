"""Review tiles: squares of tissue, ranked by how unsure the model is there, each with a plain reason."""

from __future__ import annotations

import io
import math
import uuid as uuid_module
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsi_pipeline.config import Review
from wsi_pipeline.files import atomic
from wsi_pipeline.objects import META_RUN, Kind, PathObject
from wsi_pipeline.regions.contours import ProbabilityMap, level_of
from wsi_pipeline.states import REVIEW_CLASS
from wsi_pipeline.tiling import Bounds

if TYPE_CHECKING:
    from wsi_pipeline.slides import TissueMask

SCHEMA_VERSION = 1

# A tile below this mean entropy is not worth a pathologist's time, however few tiles are flagged.
WORTH_A_LOOK = 0.25
# Less tissue than this in a tile is a rim, not a place to judge.
ENOUGH_TISSUE = 0.05


@dataclass(frozen=True, slots=True)
class ReviewTile:
    """One square of the review grid.

    `x, y, width, height` in level-0 px. `tissue_share` is the share of the tile that is tissue,
    `predicted_share` the share of its tissue at or above the threshold for any class; means are over tissue,
    from 0 to 1. `score` is mean entropy times tissue share: the uncertain area. `rank` 1 is reviewed first.
    """

    slide_id: str
    x: int
    y: int
    width: int
    height: int
    tissue_share: float
    predicted_share: float
    mean_probability: float
    mean_uncertainty: float
    score: float
    rank: int
    flagged: bool
    reason: str

    @property
    def label(self) -> str:
        return f"{self.rank}. {self.reason}"


def review_tiles(
    source: ProbabilityMap,
    tissue: TissueMask,
    classes: Sequence[str],
    settings: Review,
    *,
    threshold: float,
    mpp: float,
    slide_id: str,
) -> list[ReviewTile]:
    """One row for each tile that holds tissue, ranked; the first `settings.max_tiles` uncertain ones are flagged."""
    side = max(math.ceil(source.downsample), round(settings.tile_um / mpp))
    found: list[_Values] = []
    for top in range(0, source.size[1], side):
        found.extend(_tiles_of_row(source, tissue, top, side, level_of(threshold)))
    found.sort(key=lambda v: (-v.score, v.bounds.y, v.bounds.x))
    return [_ranked(values, rank, classes, settings, slide_id) for rank, values in enumerate(found, start=1)]


@dataclass(frozen=True, slots=True)
class _Values:
    bounds: Bounds
    tissue_share: float
    predicted_share: float
    probability: tuple[float, ...]
    uncertainty: float

    @property
    def score(self) -> float:
        return self.uncertainty * self.tissue_share


def _tiles_of_row(source: ProbabilityMap, tissue: TissueMask, top: int, side: int, level: float) -> list[_Values]:
    """Values of the tiles whose upper edge is `top`; only one row of tiles of the map is in memory."""
    channels, height, width = source.shape
    slide = Bounds(0, 0, *source.size)
    d = source.downsample
    y0, y1 = (min(round(v / d), height) for v in (top, top + side))
    if y1 <= y0:
        return []
    stripe = Bounds(0, y0, width, y1)
    on_tissue = _tissue_of(tissue, stripe, d)
    starts = np.unique(np.minimum(np.round(np.arange(0, source.size[0], side) / d).astype(np.intp), width - 1))

    def sums(values: NDArray[np.generic]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = np.add.reduceat(values.sum(axis=0, dtype=np.float64), starts)
        return result

    count = sums(on_tissue)
    if not count.any():
        return []
    per_class = [source.read(c, stripe) for c in range(channels)]
    predicted = sums((np.maximum.reduce(per_class) > level) & on_tissue)
    probability = [sums(p * on_tissue) for p in per_class]
    entropy = sums(source.uncertainty(stripe) * on_tissue)
    tiles = []
    for i in np.flatnonzero(count):
        bounds = Bounds(int(i) * side, top, (int(i) + 1) * side, top + side).within(slide)
        tissue_share = min(1.0, count[i] * d * d / (bounds.width * bounds.height))
        if tissue_share >= ENOUGH_TISSUE:
            n = 255.0 * count[i]
            means = tuple(float(p[i] / n) for p in probability)
            share = min(1.0, float(predicted[i] / count[i]))
            tiles.append(_Values(bounds, float(tissue_share), share, means, float(entropy[i] / n)))
    return tiles


def _tissue_of(tissue: TissueMask, stripe: Bounds, downsample: float) -> NDArray[np.bool_]:
    """The tissue mask at the map's pixel centres."""
    rows = ((np.arange(stripe.y, stripe.bottom) + 0.5) * downsample / tissue.downsample).astype(np.intp)
    columns = ((np.arange(stripe.x, stripe.right) + 0.5) * downsample / tissue.downsample).astype(np.intp)
    height, width = tissue.mask.shape
    # A row of the mask serves many rows of the map: each is spread out once, then copied.
    needed, again = np.unique(np.minimum(rows, height - 1), return_inverse=True)
    result: NDArray[np.bool_] = tissue.mask[needed][:, np.minimum(columns, width - 1)][again]
    return result


def _ranked(values: _Values, rank: int, classes: Sequence[str], settings: Review, slide_id: str) -> ReviewTile:
    b = values.bounds
    return ReviewTile(
        slide_id=slide_id,
        x=b.x,
        y=b.y,
        width=b.width,
        height=b.height,
        tissue_share=values.tissue_share,
        predicted_share=values.predicted_share,
        mean_probability=max(values.probability),
        mean_uncertainty=values.uncertainty,
        score=values.score,
        rank=rank,
        flagged=rank <= settings.max_tiles and values.uncertainty >= WORTH_A_LOOK,
        reason=_reason(values, classes),
    )


def _reason(values: _Values, classes: Sequence[str]) -> str:
    name = classes[int(np.argmax(values.probability))]
    unsure = f"uncertainty {100 * values.uncertainty:.0f} %"
    if values.predicted_share == 0:
        return f"nothing predicted, yet {name} is possible ({unsure})"
    if values.predicted_share >= 0.98:
        return f"all {name}, but not surely ({unsure})"
    return f"{100 * values.predicted_share:.0f} % {name}, border unclear ({unsure})"


_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("slide_id", pa.string()),
    ("x", pa.int64()),
    ("y", pa.int64()),
    ("width", pa.int64()),
    ("height", pa.int64()),
    ("tissue_share", pa.float32()),
    ("predicted_share", pa.float32()),
    ("mean_probability", pa.float32()),
    ("mean_uncertainty", pa.float32()),
    ("score", pa.float32()),
    ("rank", pa.int32()),
    ("flagged", pa.bool_()),
    ("reason", pa.string()),
)
_ARROW = pa.schema(_COLUMNS, metadata={"schema": str(SCHEMA_VERSION)})


def write_tiles(path: Path, tiles: Sequence[ReviewTile]) -> None:
    """Write the tiles as Parquet, best rank first."""
    with atomic(path) as file:
        table = _table(tiles)
        pq.write_table(table, file, compression="zstd")


def _table(tiles: Sequence[ReviewTile]) -> pa.Table:
    """The tiles as Arrow. By way of JSON: to turn Python's own values into arrays, pyarrow loads pandas (0.5 s)."""
    if not tiles:
        return _ARROW.empty_table()
    lines = b"\n".join(orjson.dumps(asdict(tile)) for tile in tiles)
    parse = pyarrow.json.ParseOptions(explicit_schema=_ARROW, newlines_in_values=False)
    read = pyarrow.json.ReadOptions(use_threads=False, block_size=max(len(lines) + 1, 2**16))
    return pyarrow.json.read_json(io.BytesIO(lines), read, parse).cast(_ARROW)


def read_tiles(path: Path) -> list[ReviewTile]:
    """Read what `write_tiles` wrote."""
    names = {field.name for field in fields(ReviewTile)}
    rows = pq.read_table(path, columns=sorted(names)).to_pylist()
    return [ReviewTile(**row) for row in rows]


def tile_objects(tiles: Sequence[ReviewTile], *, run_id: str) -> list[PathObject]:
    """The flagged tiles as QuPath tiles of class `Review`: the brush cannot touch them, a script can step through."""
    return [
        PathObject(
            uuid=str(uuid_module.uuid5(uuid_module.NAMESPACE_OID, f"{run_id}\n{t.slide_id}\n{t.x}\n{t.y}\n{t.width}")),
            kind=Kind.TILE,
            geometry=shapely.box(t.x, t.y, t.x + t.width, t.y + t.height),
            path_class=REVIEW_CLASS,
            name=t.label,
            measurements={
                "Review: rank": float(t.rank),
                "Review: score": _rounded(t.score),
                "Uncertainty: mean": _rounded(t.mean_uncertainty),
                "Probability: mean": _rounded(t.mean_probability),
            },
            metadata={META_RUN: run_id},
        )
        for t in tiles
        if t.flagged
    ]


def _rounded(value: float) -> float:
    return round(value, 4) if math.isfinite(value) else math.nan
