"""Review tiles: squares of tissue, ranked by how much a person is likely to change there, each with a plain reason."""

from __future__ import annotations

import io
import math
import uuid as uuid_module
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray

from wsi_pipeline.config import Review
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import atomic
from wsi_pipeline.objects import META_RUN, Kind, PathObject
from wsi_pipeline.regions.confidence import TileSums, stripe_sums
from wsi_pipeline.regions.contours import ProbabilityMap, level_of
from wsi_pipeline.regions.picks import Candidate, pick
from wsi_pipeline.regions.unlike import Unlike, is_strange
from wsi_pipeline.states import REVIEW_CLASS
from wsi_pipeline.tiling import Bounds

if TYPE_CHECKING:
    import pyarrow as pa

    from wsi_pipeline.slides import TissueMask

# Columns may be added; a reader of this schema leaves out what it does not know.
SCHEMA_VERSION = 1
RECIPE: Final = 3
"""How tiles are ranked and picked; those of an earlier recipe are made anew by the next `predict`."""

# Less tissue than this in a tile is a rim, not a place to judge.
ENOUGH_TISSUE: Final = 0.05

STEP: Final = 1024
"""Rows of the map that are read at once: those of a chunk of the store."""
PANEL: Final = 16 * STEP
"""Columns of the map that are looked at together."""

Reader = Callable[[Bounds], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class ReviewTile:
    """One square of the review grid; docs/confidence.md defines every column.

    `x, y, width, height` in level-0 px. `tissue_share` is the share of the tile that is tissue, `predicted_share` the
    share of its tissue at or above the threshold for any class; means are over tissue, from 0 to 1. `score` is the area
    in µm² that is expected to be changed. `rank` 1 is reviewed first. `flagged` tiles are handed out for a look, those
    of the `audit` as a random check of the others; `audit_chance` is a tile's chance to be drawn for it, 0 of flagged
    ones. What is not known is None: `confidence` where nothing is predicted, `mutual_information` where each place was
    predicted once, `out_of_distribution` (colour and sharpness) and `structure_distance` (the network's own features;
    above 1 is strange in both) of a model whose card holds no such statistics.
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
    margin: float | None = None
    confidence: float | None = None
    mutual_information: float | None = None
    out_of_distribution: float | None = None
    structure_distance: float | None = None
    audit: bool = False
    audit_chance: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.rank}. {self.reason}"

    @property
    def strange_appearance(self) -> bool | None:
        """Whether it is unlike the training slides in colour or sharpness."""
        return is_strange(self.out_of_distribution)

    @property
    def strange_structure(self) -> bool | None:
        """Whether it is unlike the training slides in the network's own features."""
        return is_strange(self.structure_distance)

    @property
    def handed_out(self) -> bool:
        """Whether a person is asked to look at it."""
        return self.flagged or self.audit


def review_tiles(
    source: ProbabilityMap,
    tissue: TissueMask,
    classes: Sequence[str],
    settings: Review,
    *,
    threshold: float,
    mpp: float,
    slide_id: str,
    exclusive: bool = True,
    strangeness: Mapping[tuple[int, int], Unlike] | None = None,
) -> list[ReviewTile]:
    """One row for each tile that holds tissue, ranked; see `wsi_pipeline.regions.picks` for what is flagged.

    Parameters
    ----------
    exclusive
        Whether a pixel belongs to one class at most (softmax); else to any number (sigmoid).
    strangeness
        By the tile's corner in level-0 px, where known.
    """
    side = tile_side(source.downsample, settings, mpp)
    found: list[_Values] = []
    channels, height, _ = source.shape
    readers: list[Reader] = [*(partial(source.read, c) for c in range(channels)), source.uncertainty]
    for panel in _panels(source, side):
        maps = [_Rows(read, height, panel.first, panel.end) for read in readers]
        for top in range(0, source.size[1], side):
            found.extend(_tiles_of_row(source, maps, tissue, panel, top, side, level_of(threshold), exclusive))
    found.sort(key=lambda values: (values.bounds.y, values.bounds.x))
    odd, known_of_none = strangeness or {}, Unlike()
    picked = pick(
        [_candidate(values, side, mpp, odd.get((values.bounds.x, values.bounds.y), known_of_none)) for values in found],
        most=settings.max_tiles,
        audits=settings.audit_tiles,
        key=slide_id,
    )
    tiles = []
    for rank, choice in enumerate(picked, start=1):
        values = found[choice.index]
        b, strange = values.bounds, odd.get((values.bounds.x, values.bounds.y), known_of_none)
        tiles.append(
            ReviewTile(
                slide_id=slide_id,
                x=b.x,
                y=b.y,
                width=b.width,
                height=b.height,
                tissue_share=values.tissue_share,
                predicted_share=values.sums.predicted_share,
                mean_probability=max(values.sums.probability),
                mean_uncertainty=values.sums.entropy,
                score=values.expected_um2(mpp),
                rank=rank,
                flagged=choice.flagged,
                reason=_reason(values, classes, strange),
                margin=values.sums.margin,
                confidence=values.sums.confidence,
                mutual_information=values.sums.mutual_information,
                out_of_distribution=strange.appearance,
                structure_distance=strange.structure,
                audit=choice.audit,
                audit_chance=choice.chance,
            )
        )
    return tiles


def tile_side(downsample: float, settings: Review, mpp: float) -> int:
    """Side of a review tile in level-0 px."""
    return max(math.ceil(downsample), round(settings.tile_um / mpp))


def _candidate(values: _Values, side: int, mpp: float, strange: Unlike) -> Candidate:
    return Candidate(
        column=values.bounds.x // side,
        row=values.bounds.y // side,
        score=values.expected_um2(mpp),
        share=values.sums.expected,
        strange=strange.most,
    )


@dataclass(frozen=True, slots=True)
class _Values:
    bounds: Bounds
    tissue_share: float
    sums: TileSums

    def expected_um2(self, mpp: float) -> float:
        return self.sums.expected * self.tissue_share * self.bounds.width * self.bounds.height * mpp * mpp


class _Panel(NamedTuple):
    """Columns of whole tiles that are looked at together.

    Attributes
    ----------
    lefts
        Left edges of the tiles in level-0 px.
    first, end
        Of the columns in map px.
    """

    lefts: range
    first: int
    end: int


def _panels(source: ProbabilityMap, side: int) -> Iterator[_Panel]:
    """The tiles' columns in panels of about `PANEL` map px, so that memory does not grow with the slide's width."""
    _, _, width = source.shape
    step = max(1, round(PANEL * source.downsample / side)) * side
    for left in range(0, source.size[0], step):
        lefts = range(left, min(left + step, source.size[0]), side)
        first, end = (min(round(v / source.downsample), width) for v in (left, left + step))
        yield _Panel(lefts, first, width if lefts.stop == source.size[0] else end)


class _Rows:
    """Rows of a map, asked for from the top on: the store's chunks are decoded once, although tiles end within them."""

    def __init__(self, read: Reader, height: int, left: int, right: int) -> None:
        self._read, self._height, self._left, self._right = read, height, left, right
        self._top = 0
        self._rows = np.empty((0, right - left), np.uint8)

    def between(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """uint8 (bottom - top, columns); `top` is never above that of an earlier call."""
        end = self._top + len(self._rows)
        if bottom > end:
            start = max(end, top // STEP * STEP)
            fresh = self._read(Bounds(self._left, start, self._right, min(self._height, -(-bottom // STEP) * STEP)))
            kept = self._rows[max(0, min(top, end) - self._top) :] if start == end else self._rows[:0]
            self._top = start - len(kept)
            self._rows = np.concatenate([kept, fresh]) if len(kept) else fresh
        return self._rows[top - self._top : bottom - self._top]


def _tiles_of_row(
    source: ProbabilityMap,
    maps: Sequence[_Rows],
    tissue: TissueMask,
    panel: _Panel,
    top: int,
    side: int,
    level: float,
    exclusive: bool,
) -> list[_Values]:
    """Values of a panel's tiles whose upper edge is `top`; only one row of tiles of the map is in memory."""
    _, height, _ = source.shape
    slide = Bounds(0, 0, *source.size)
    d = source.downsample
    y0, y1 = (min(round(v / d), height) for v in (top, top + side))
    if y1 <= y0:
        return []
    stripe = Bounds(panel.first, y0, panel.end, y1)
    on_tissue = _tissue_of(tissue, stripe, d)
    if not on_tissue.any():
        return []
    starts = np.unique(np.minimum(np.round(np.array(panel.lefts) / d).astype(np.intp), panel.end - 1)) - panel.first
    *per_class, entropy = (rows.between(y0, y1) for rows in maps)
    sums = stripe_sums(
        per_class,
        entropy,
        on_tissue,
        starts,
        level=level,
        exclusive=exclusive,
        disagreement=source.mutual_information(stripe),
    )
    tiles = []
    for left, of_tile in zip(panel.lefts, sums, strict=False):
        bounds = Bounds(left, top, left + side, top + side).within(slide)
        tissue_share = min(1.0, of_tile.pixels * d * d / (bounds.width * bounds.height)) if of_tile.pixels else 0.0
        if tissue_share >= ENOUGH_TISSUE:
            tiles.append(_Values(bounds, float(tissue_share), of_tile))
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


def _reason(values: _Values, classes: Sequence[str], strange: Unlike) -> str:
    """Why to look there, in words that a tile of the random check has as well: how unsure the model is stays out."""
    sums = values.sums
    name = classes[int(np.argmax(sums.probability))]
    if strange.reason is not None:
        return strange.reason
    if sums.predicted_share == 0:
        return f"nothing predicted, yet {name} is possible"
    if sums.predicted_share >= 0.98:
        return f"all {name}, but not surely"
    return f"{100 * sums.predicted_share:.0f} % {name}, border unclear"


_COLUMNS: Final = {
    "slide_id": "string",
    "x": "int64",
    "y": "int64",
    "width": "int64",
    "height": "int64",
    "tissue_share": "float32",
    "predicted_share": "float32",
    "mean_probability": "float32",
    "mean_uncertainty": "float32",
    "score": "float32",
    "rank": "int32",
    "flagged": "bool_",
    "reason": "string",
    "margin": "float32",
    "confidence": "float32",
    "mutual_information": "float32",
    "out_of_distribution": "float32",
    "structure_distance": "float32",
    "strange_appearance": "bool_",
    "strange_structure": "bool_",
    "audit": "bool_",
    "audit_chance": "float32",
}
"""Names of pyarrow's types; it is loaded (0.06 s) when there is something to write, not at the start."""


def write_tiles(path: Path, tiles: Sequence[ReviewTile]) -> None:
    """Write the tiles as Parquet, best rank first."""
    import pyarrow.parquet as pq

    with atomic(path) as file:
        table = _table(tiles)
        pq.write_table(table, file, compression="zstd")


def _table(tiles: Sequence[ReviewTile]) -> pa.Table:
    """The tiles as Arrow. By way of JSON: to turn Python's own values into arrays, pyarrow loads pandas (0.5 s)."""
    import pyarrow as pa
    import pyarrow.json

    columns = [(name, getattr(pa, kind)()) for name, kind in _COLUMNS.items()]
    schema = pa.schema(columns, metadata={"schema": str(SCHEMA_VERSION)})
    if not tiles:
        return schema.empty_table()
    flags = ("strange_appearance", "strange_structure")
    lines = b"\n".join(orjson.dumps({**asdict(t), **{name: getattr(t, name) for name in flags}}) for t in tiles)
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, newlines_in_values=False)
    read = pyarrow.json.ReadOptions(use_threads=False, block_size=max(len(lines) + 1, 2**16))
    # A cast would do the same, and load 0.1 s of pyarrow's functions.
    table = pyarrow.json.read_json(io.BytesIO(lines), read, parse).select(schema.names)
    return table.replace_schema_metadata(schema.metadata)


def read_tiles(path: Path, *, handed_out: bool = False) -> list[ReviewTile]:
    """Read what `write_tiles` wrote, now or by an earlier version; only the tiles that are handed out, if told so.

    Raises
    ------
    StoreError
        The file cannot be read, or holds other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # `pq.read_table` loads pyarrow's datasets, and with them pandas (0.5 s).
        with pq.ParquetFile(path) as file:
            table = file.read()
        names = [field.name for field in fields(ReviewTile) if field.name in table.column_names]
        tiles = [ReviewTile(**row) for row in table.select(names).to_pylist()]
    except (OSError, pa.ArrowException, TypeError) as error:
        raise StoreError(f"{path} cannot be read as review tiles: {error}; predict the slide again") from error
    return [tile for tile in tiles if tile.handed_out] if handed_out else tiles


def tile_objects(tiles: Sequence[ReviewTile], *, run_id: str) -> list[PathObject]:
    """The tiles to look at as QuPath tiles of class `Review`: the brush cannot touch them, a script steps through.

    They tell nothing by which the random check could be told from flagged tiles; figures stay in tiles.parquet.
    """
    return [
        PathObject(
            uuid=str(uuid_module.uuid5(uuid_module.NAMESPACE_OID, f"{run_id}\n{t.slide_id}\n{t.x}\n{t.y}\n{t.width}")),
            kind=Kind.TILE,
            geometry=shapely.box(t.x, t.y, t.x + t.width, t.y + t.height),
            path_class=REVIEW_CLASS,
            name=t.label,
            measurements={"Review: rank": float(t.rank)},
            metadata={META_RUN: run_id},
        )
        for t in tiles
        if t.handed_out
    ]
