"""From pairs of objects to the rows of corrections.parquet: what each change took away, kept and added."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shapely.geometry.base import BaseGeometry

from wsi_pipeline.collect.matching import Change, Pair
from wsi_pipeline.measures import Areas, Boundaries, compare_areas, compare_boundaries, region_of, union_of
from wsi_pipeline.objects import PathObject


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
    arm: str
    position: int | None
    repeat: bool
    planted: str | None
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
    hd_um: float | None
    assd_um: float | None
    added_path_um: float | None


@dataclass(frozen=True, slots=True)
class Occasion:
    """What all rows of one image share; `planted` says by uuid which errors were planted."""

    slide_id: str
    patient: str | None
    batch: str
    rater: str
    source: str
    reviewed: bool
    arm: str = "assisted"
    position: int | None = None
    repeat: bool = False
    planted: Mapping[str, str] = field(default_factory=dict)


def rows_of(occasion: Occasion, pairs: Sequence[Pair], mpp: float, tolerance_um: float) -> list[Correction]:
    """One row for each pair, in their order; `mpp` in µm per level-0 px.

    Pairs that share an object (a split, a merge) are one change: Dice, IoU and the measures of the boundary are of
    everything before against everything after, the same in each of its rows. Areas are shared out, so that the sums
    over rows are right: an object's own area, and what of it has no counterpart, stand in its first row only.
    """
    rows: list[Correction | None] = [None] * len(pairs)
    for group in _groups(pairs):
        found = _rows_of_change(occasion, [pairs[i] for i in group], mpp, tolerance_um)
        for index, row in zip(group, found, strict=True):
            rows[index] = row
    return [row for row in rows if row is not None]


def _groups(pairs: Sequence[Pair]) -> list[list[int]]:
    """Indices of pairs that belong to one change, because they share an object."""
    users: dict[tuple[str, str], list[int]] = {}
    keys = [
        [(side, o.uuid) for side, o in (("before", pair.before), ("after", pair.after)) if o is not None]
        for pair in pairs
    ]
    for index, own in enumerate(keys):
        for key in own:
            users.setdefault(key, []).append(index)
    seen: set[int] = set()
    groups = []
    for start in range(len(pairs)):
        if start in seen:
            continue
        group, waiting = [], [start]
        seen.add(start)
        while waiting:
            index = waiting.pop()
            group.append(index)
            near = {other for key in keys[index] for other in users[key]} - seen
            seen |= near
            waiting.extend(near)
        groups.append(sorted(group))
    return groups


def _rows_of_change(occasion: Occasion, pairs: Sequence[Pair], mpp: float, tolerance_um: float) -> list[Correction]:
    if len(pairs) == 1 and pairs[0].change is Change.UNTOUCHED:
        return [_left_alone(occasion, pairs[0], mpp)]
    shapes = [shapes_of(pair) for pair in pairs]
    areas = [compare_areas(first, second, mpp) for first, second in shapes]
    if len(pairs) == 1:
        whole, boundaries = areas[0], compare_boundaries(*shapes[0], mpp, tolerance_um=tolerance_um)
    else:
        first, second = (union_of(side) for side in zip(*shapes, strict=True))
        whole = compare_areas(first, second, mpp)
        boundaries = compare_boundaries(first, second, mpp, tolerance_um=tolerance_um)
    kept_of: defaultdict[tuple[str, str | None], float] = defaultdict(float)
    for pair, area in zip(pairs, areas, strict=True):
        for key in _sides(pair):
            kept_of[key] += area.kept
    told: set[tuple[str, str | None]] = set()
    rows = []
    for pair, area in zip(pairs, areas, strict=True):
        keys = _sides(pair)
        first_before, first_after = (key not in told for key in keys)
        told.update(keys)
        shared = Share(
            before=area.before if first_before else 0.0,
            after=area.after if first_after else 0.0,
            kept=area.kept,
            removed=max(0.0, area.before - kept_of[keys[0]]) if first_before else 0.0,
            added=max(0.0, area.after - kept_of[keys[1]]) if first_after else 0.0,
        )
        rows.append(_row(occasion, pair, shared, whole, boundaries))
    return rows


def _left_alone(occasion: Occasion, pair: Pair, mpp: float) -> Correction:
    """The row of most objects of most slides: nothing to be compared."""
    area = float(region_of(shapes_of(pair)[0]).area) * mpp * mpp
    same = Areas(area, area, area)
    return _row(occasion, pair, Share(area, area, area, 0.0, 0.0), same, Boundaries())


def _sides(pair: Pair) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
    return ("before", _uuid(pair.before)), ("after", _uuid(pair.after))


def _uuid(item: PathObject | None) -> str | None:
    return None if item is None else item.uuid


def shapes_of(pair: Pair) -> tuple[BaseGeometry | None, BaseGeometry | None]:
    """Geometries of a pair. One that was left alone counts as it was handed out: rounding is no correction."""
    before = pair.before.geometry if pair.before else None
    after = pair.after.geometry if pair.after else None
    return before, before if pair.change is Change.UNTOUCHED else after


class Share(NamedTuple):
    """What one row has of the areas of its change, in µm²."""

    before: float
    after: float
    kept: float
    removed: float
    added: float


def _row(occasion: Occasion, pair: Pair, share: Share, whole: Areas, boundaries: Boundaries) -> Correction:
    before, after = pair.before, pair.after
    # Of a point or a line there is nothing to compare.
    has_area = whole.before > 0 or whole.after > 0
    left_alone = "accepted" if occasion.reviewed else "not_seen"
    return Correction(
        slide_id=occasion.slide_id,
        patient=occasion.patient,
        batch=occasion.batch,
        rater=occasion.rater,
        source=occasion.source,
        reviewed=occasion.reviewed,
        arm=occasion.arm,
        position=occasion.position,
        repeat=occasion.repeat,
        planted=None if before is None else occasion.planted.get(before.uuid),
        uuid_before=_uuid(before),
        uuid_after=_uuid(after),
        class_before=before.path_class if before else None,
        class_after=after.path_class if after else None,
        change=str(pair.change),
        status=left_alone if pair.change is Change.UNTOUCHED else "changed",
        area_before_um2=share.before,
        area_after_um2=share.after,
        kept_um2=share.kept,
        removed_um2=share.removed,
        added_um2=share.added,
        iou=whole.iou if has_area else None,
        dice=whole.dice if has_area else None,
        surface_dice=boundaries.surface_dice if has_area else None,
        hd95_um=boundaries.hd95 if has_area else None,
        hd_um=boundaries.hd if has_area else None,
        assd_um=boundaries.assd if has_area else None,
        added_path_um=boundaries.added_path if has_area else None,
    )
