"""The corrections of one slide as rows and figures: per object, and per class on unions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wsi_pipeline.collect.matching import Change, Pair
from wsi_pipeline.files import atomic
from wsi_pipeline.measures import Areas, Boundaries, compare_areas, compare_boundaries, union_of
from wsi_pipeline.objects import Kind, PathObject

SCHEMA_VERSION = 1
UNCLASSIFIED = "Unclassified"


@dataclass(frozen=True, slots=True)
class Correction:
    """One row of corrections.parquet; areas in µm², distances in µm, None where not defined.

    `status` is "accepted" (left alone on a reviewed image), "not_seen" (left alone, not reviewed yet) or "changed".
    """

    slide_id: str
    patient: str | None
    batch: str
    rater: str
    source: str
    reviewed: bool
    uuid_before: str | None
    uuid_after: str | None
    class_before: str | None
    class_after: str | None
    change: str
    status: str
    area_before_um2: float
    area_after_um2: float
    kept_um2: float
    removed_um2: float
    added_um2: float
    iou: float | None
    dice: float | None
    surface_dice: float | None
    hd95_um: float | None


@dataclass(frozen=True, slots=True)
class Occasion:
    """What all rows of one image share."""

    slide_id: str
    patient: str | None
    batch: str
    rater: str
    source: str
    reviewed: bool


def rows_of(occasion: Occasion, pairs: Iterable[Pair], mpp: float, tolerance_um: float) -> list[Correction]:
    """One row for each pair, `mpp` in µm per level-0 px."""
    return [_row(occasion, pair, mpp, tolerance_um) for pair in pairs]


def _row(occasion: Occasion, pair: Pair, mpp: float, tolerance_um: float) -> Correction:
    before, after = pair.before, pair.after
    first = before.geometry if before else None
    second = after.geometry if after else None
    areas = compare_areas(first, second, mpp)
    boundaries = compare_boundaries(first, second, mpp, tolerance_um=tolerance_um)
    # Of a point or a line there is nothing to compare.
    has_area = areas.before > 0 or areas.after > 0
    left_alone = "accepted" if occasion.reviewed else "not_seen"
    return Correction(
        **asdict(occasion),
        uuid_before=before.uuid if before else None,
        uuid_after=after.uuid if after else None,
        class_before=before.path_class if before else None,
        class_after=after.path_class if after else None,
        change=str(pair.change),
        status=left_alone if pair.change is Change.UNTOUCHED else "changed",
        area_before_um2=areas.before,
        area_after_um2=areas.after,
        kept_um2=areas.kept,
        removed_um2=areas.removed,
        added_um2=areas.added,
        iou=areas.iou if has_area else None,
        dice=areas.dice if has_area else None,
        surface_dice=boundaries.surface_dice if has_area else None,
        hd95_um=boundaries.hd95 if has_area else None,
    )


def class_figures(
    before: Sequence[PathObject], after: Sequence[PathObject], mpp: float, tolerance_um: float
) -> dict[str, dict[str, float | None]]:
    """Figures per class, on the union of the class's annotations: a sliver that touches its neighbour counts as area.

    Returns
    -------
    By class name (`Unclassified` for none), sorted: areas in µm², Dice, IoU, surface Dice, HD95 in µm.
    """
    names = {o.path_class for o in (*before, *after) if o.kind is Kind.ANNOTATION}
    figures = {}
    for name in sorted(names, key=lambda n: n or UNCLASSIFIED):
        first, second = (
            union_of(o.geometry for o in side if o.kind is Kind.ANNOTATION and o.path_class == name)
            for side in (before, after)
        )
        areas = compare_areas(first, second, mpp)
        boundaries = compare_boundaries(first, second, mpp, tolerance_um=tolerance_um)
        figures[name or UNCLASSIFIED] = figures_of(areas, boundaries)
    return figures


def figures_of(areas: Areas, boundaries: Boundaries) -> dict[str, float | None]:
    """Areas and boundaries of one class as JSON values."""
    return {
        "area_before_um2": areas.before,
        "area_after_um2": areas.after,
        "kept_um2": areas.kept,
        "removed_um2": areas.removed,
        "added_um2": areas.added,
        "dice": areas.dice,
        "iou": areas.iou,
        "surface_dice": boundaries.surface_dice,
        "hd95_um": boundaries.hd95,
        "added_path_um": boundaries.added_path,
        "boundary_before_um": boundaries.length_before,
        "boundary_after_um": boundaries.length_after,
        "near_before_um": boundaries.near_before,
        "near_after_um": boundaries.near_after,
    }


def pooled(figures: Iterable[dict[str, float | None]]) -> dict[str, float | None]:
    """One class over several slides: areas and boundary lengths are added, ratios made from the sums.

    A distance cannot be pooled so: `hd95_um` is the largest of the slides.
    """
    all_of = list(figures)

    def total(key: str) -> float:
        return sum(f[key] or 0.0 for f in all_of)

    areas = Areas(total("area_before_um2"), total("area_after_um2"), total("kept_um2"))
    farthest = [f["hd95_um"] for f in all_of if f["hd95_um"] is not None]
    boundaries = Boundaries(
        length_before=total("boundary_before_um"),
        length_after=total("boundary_after_um"),
        near_before=total("near_before_um"),
        near_after=total("near_after_um"),
        hd95=max(farthest, default=None),
    )
    return figures_of(areas, boundaries)


def count_changes(rows: Iterable[Correction]) -> dict[str, int]:
    """How many objects had each kind of change, every kind named.

    An object that was split counts once, as does one that others were merged into.
    """
    seen: dict[Change, set[str]] = {change: set() for change in Change}
    for row in rows:
        change = Change(row.change)
        uuid = row.uuid_after if change is Change.ADDED else row.uuid_before
        seen[change].add(uuid or "")
    counts = Counter({str(change): len(uuids) for change, uuids in seen.items()})
    return {str(change): counts[str(change)] for change in Change}


_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("slide_id", "patient", "batch", "rater", "source"), pa.string()),
    "reviewed": pa.bool_(),
    **dict.fromkeys(("uuid_before", "uuid_after", "class_before", "class_after", "change", "status"), pa.string()),
    **dict.fromkeys(("area_before_um2", "area_after_um2", "kept_um2", "removed_um2", "added_um2"), pa.float64()),
    **dict.fromkeys(("iou", "dice", "surface_dice", "hd95_um"), pa.float64()),
}


def write_corrections(path: Path, rows: Sequence[Correction]) -> None:
    """Write corrections.parquet; the same rows give the same bytes."""
    write_table(path, [asdict(row) for row in rows], _TYPES)


def write_table(path: Path, rows: Sequence[dict[str, Any]], types: dict[str, pa.DataType]) -> None:
    """Write rows as Parquet with a schema version in the file's metadata."""
    schema = pa.schema(list(types.items()), metadata={"schema": str(SCHEMA_VERSION)})
    with atomic(path) as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file, compression="zstd")
