"""Figures of one slide per class, on unions, and the tables that hold rows and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.collect.matching import Change, Pair
from wsi_pipeline.collect.rows import Correction, shapes_of
from wsi_pipeline.files import atomic
from wsi_pipeline.measures import Areas, Boundaries, compare_many_areas, compare_many_boundaries, union_of

SCHEMA_VERSION = 1
UNCLASSIFIED = "Unclassified"


def class_figures(pairs: Iterable[Pair], mpp: float, tolerance_um: float) -> dict[str, dict[str, float | None]]:
    """Figures per class, on the union of the class's annotations: a sliver that touches its neighbour counts as area.

    Returns
    -------
    By class name (`Unclassified` for none), sorted: areas in µm², Dice, IoU, surface Dice, HD95 in µm.
    """
    before: dict[str, dict[str, BaseGeometry | None]] = {}
    after: dict[str, dict[str, BaseGeometry | None]] = {}
    for pair in pairs:
        first, second = shapes_of(pair)
        for side, item, shape in ((before, pair.before, first), (after, pair.after, second)):
            if item is not None:
                side.setdefault(item.path_class or UNCLASSIFIED, {})[item.uuid] = shape
    names = sorted({*before, *after})
    regions = [(union_of(before.get(name, {}).values()), union_of(after.get(name, {}).values())) for name in names]
    areas = compare_many_areas(regions, mpp)
    boundaries = compare_many_boundaries(regions, mpp, tolerance_um=tolerance_um)
    return {name: figures_of(*found) for name, found in zip(names, zip(areas, boundaries, strict=True), strict=True)}


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
        "hd_um": boundaries.hd,
        "hd95_um": boundaries.hd95,
        "assd_um": boundaries.assd,
        "added_path_um": boundaries.added_path,
        "boundary_before_um": boundaries.length_before,
        "boundary_after_um": boundaries.length_after,
        "near_before_um": boundaries.near_before,
        "near_after_um": boundaries.near_after,
    }


def pooled(figures: Iterable[dict[str, float | None]]) -> dict[str, float | None]:
    """One class over several slides: areas and boundary lengths are added, ratios made from the sums.

    Distances of single points cannot be pooled so: `hd_um` and `hd95_um` are the largest of the slides. `assd_um` is a
    mean over outlines, and weighs each slide by its outlines' length. Slides that have an outline on one side only have
    no distance and take no part in the three.
    """
    all_of = list(figures)

    def total(key: str) -> float:
        return sum(f[key] or 0.0 for f in all_of)

    areas = Areas(total("area_before_um2"), total("area_after_um2"), total("kept_um2"))

    def farthest(key: str) -> float | None:
        return max((value for f in all_of if (value := f[key]) is not None), default=None)

    lengths = [
        (assd, (f["boundary_before_um"] or 0.0) + (f["boundary_after_um"] or 0.0))
        for f in all_of
        if (assd := f["assd_um"]) is not None
    ]
    outlines = sum(length for _, length in lengths)
    boundaries = Boundaries(
        length_before=total("boundary_before_um"),
        length_after=total("boundary_after_um"),
        near_before=total("near_before_um"),
        near_after=total("near_after_um"),
        hd=farthest("hd_um"),
        hd95=farthest("hd95_um"),
        assd=sum(assd * length for assd, length in lengths) / outlines if outlines else farthest("assd_um"),
    )
    return figures_of(areas, boundaries)


# Ratios and distances of which a mean over slides is told, too; each slide counts the same.
MEANS = ("dice", "iou", "surface_dice", "hd_um", "hd95_um", "assd_um")


def aggregated(figures: Iterable[dict[str, float | None]]) -> dict[str, Any]:
    """One class over several slides: `pooled`, and beside it the plain mean over slides of each ratio and distance.

    The mean is over the slides where the figure is defined and the class is there, before or after; `n` says how many.
    """
    all_of = [f for f in figures if (f["area_before_um2"] or 0.0) + (f["area_after_um2"] or 0.0) > 0]
    means = {}
    for key in MEANS:
        values = [value for f in all_of if (value := f[key]) is not None]
        means[key] = {"mean": sum(values) / len(values) if values else None, "n": len(values)}
    return {"slides": len(all_of), "pooled": pooled(all_of), "mean": means}


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
    "arm": pa.string(),
    "position": pa.int32(),
    "repeat": pa.bool_(),
    "planted": pa.string(),
    **dict.fromkeys(("uuid_before", "uuid_after", "class_before", "class_after", "change", "status"), pa.string()),
    **dict.fromkeys(("area_before_um2", "area_after_um2", "kept_um2", "removed_um2", "added_um2"), pa.float64()),
    **dict.fromkeys(("iou", "dice", "surface_dice", "hd95_um", "hd_um", "assd_um", "added_path_um"), pa.float64()),
}


def write_corrections(path: Path, rows: Sequence[Correction]) -> None:
    """Write corrections.parquet; the same rows give the same bytes."""
    write_table(path, rows, _TYPES)


def write_table(path: Path, rows: Sequence[Any], types: dict[str, pa.DataType]) -> None:
    """Write records with these attributes as Parquet, with a schema version in the file's metadata."""
    schema = pa.schema(list(types.items()), metadata={"schema": str(SCHEMA_VERSION)})
    columns = [pa.array([getattr(row, name) for row in rows], type=kind) for name, kind in types.items()]
    with atomic(path) as file:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), file, compression="zstd")
