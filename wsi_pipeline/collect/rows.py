"""From pairs of objects to the rows of corrections.parquet: what each change took away, kept and added."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.collect.matching import Change, Pair
from wsi_pipeline.measures import Areas, Boundaries, compare_many_areas, compare_many_boundaries, regions_of, union_of
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
    shapes = [shapes_of(pair) for pair in pairs]
    groups = [group for group in _groups(pairs) if not _left_alone(pairs, group)]
    # Everything is measured at once: a call for each object would take several times as long.
    areas = dict(zip((i for group in groups for i in group), _areas(shapes, groups, mpp), strict=True))
    wholes = [shapes[group[0]] if len(group) == 1 else _united(shapes, group) for group in groups]
    several = [i for i, group in enumerate(groups) if len(group) > 1]
    united = dict(zip(several, compare_many_areas([wholes[i] for i in several], mpp), strict=True))
    boundaries = compare_many_boundaries(wholes, mpp, tolerance_um=tolerance_um)
    alone = [i for i in range(len(pairs)) if i not in areas]
    sizes = shapely.area(regions_of(shapes[i][0] for i in alone)) * (mpp * mpp)
    rows = {i: _row_left_alone(occasion, pairs[i], size) for i, size in zip(alone, sizes.tolist(), strict=True)}
    for number, group in enumerate(groups):
        whole = united.get(number, areas[group[0]])
        shares = _shares([pairs[i] for i in group], [areas[i] for i in group])
        for i, share in zip(group, shares, strict=True):
            rows[i] = _row(occasion, pairs[i], share, whole, boundaries[number])
    return [rows[i] for i in range(len(pairs))]


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


def _left_alone(pairs: Sequence[Pair], group: Sequence[int]) -> bool:
    """Most objects of most slides: nothing to be compared."""
    return len(group) == 1 and pairs[group[0]].change is Change.UNTOUCHED


def _row_left_alone(occasion: Occasion, pair: Pair, area: float) -> Correction:
    return _row(occasion, pair, Share(area, area, area, 0.0, 0.0), Areas(area, area, area), Boundaries())


Shapes = tuple[BaseGeometry | None, BaseGeometry | None]


def _areas(shapes: Sequence[Shapes], groups: Sequence[Sequence[int]], mpp: float) -> list[Areas]:
    return compare_many_areas([shapes[i] for group in groups for i in group], mpp)


def _united(shapes: Sequence[Shapes], group: Sequence[int]) -> Shapes:
    """Everything before and everything after of one change."""
    before, after = (union_of(side) for side in zip(*(shapes[i] for i in group), strict=True))
    return before, after


def _shares(pairs: Sequence[Pair], areas: Sequence[Areas]) -> list[Share]:
    """What each row of one change has of its areas."""
    kept_of: defaultdict[tuple[str, str | None], float] = defaultdict(float)
    for pair, area in zip(pairs, areas, strict=True):
        for key in _sides(pair):
            kept_of[key] += area.kept
    told: set[tuple[str, str | None]] = set()
    shares = []
    for pair, area in zip(pairs, areas, strict=True):
        keys = _sides(pair)
        first_before, first_after = (key not in told for key in keys)
        told.update(keys)
        shares.append(
            Share(
                before=area.before if first_before else 0.0,
                after=area.after if first_after else 0.0,
                kept=area.kept,
                removed=max(0.0, area.before - kept_of[keys[0]]) if first_before else 0.0,
                added=max(0.0, area.after - kept_of[keys[1]]) if first_after else 0.0,
            )
        )
    return shares


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
