"""Boxes against boxes: who found what, one to one, and which right suggestions were spoiled.

Two boxes match at an intersection over union of at least 0.5. Within an image every box has at most one partner: as
many pairs as possible, and of those matchings the one with the largest sum of IoU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks.study.layout import ARMS, Study, live
from wsi_pipeline.measures.time_sources.exact import Box, Item

MIN_IOU = 0.5


def ious(a: Sequence[Item], b: Sequence[Item]) -> NDArray[np.float64]:
    """IoU of each object of `a` with each of `b`, len(a) by len(b); boxes that only touch have 0."""
    boxes_a = np.array([_box(item) for item in a], dtype=float).reshape(-1, 1, 4)
    boxes_b = np.array([_box(item) for item in b], dtype=float).reshape(1, -1, 4)
    low = np.maximum(boxes_a[..., :2], boxes_b[..., :2])
    high = np.minimum(boxes_a[..., 2:], boxes_b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    union = _areas(boxes_a) + _areas(boxes_b) - shared
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def _box(item: Item) -> Box:
    assert item.box is not None, f"{item.uuid} has no box"
    return item.box


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    area: NDArray[np.float64] = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
    return area


def match(a: Sequence[Item], b: Sequence[Item]) -> list[tuple[int, int]]:
    """Indices of partners, for objects of one image."""
    iou = ious(a, b)
    # One more pair always outweighs every sum of IoU that the others could have.
    worth = np.where(iou >= MIN_IOU, min(iou.shape) + 1.0 + iou, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if iou[i, j] >= MIN_IOU]


def at_place(place: Item, items: Iterable[Item]) -> list[Item]:
    """Objects of `place`'s image that match its box, best first."""
    near = [item for item in items if item.image == place.image]
    found = ious([place], near)[0]
    return [near[i] for i in np.argsort(-found, kind="stable") if found[i] >= MIN_IOU]


def by_image(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Objects by image, in their order."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.image].append(item)
    return groups


def count_matches(found: Sequence[Item], truth: Sequence[Item], *, classes: bool) -> int:
    """Pairs of one image; with `classes` only within a class, and without the boxes that have none."""
    if not classes:
        return len(match(found, truth))
    labels = {item.label for item in truth} - {None}
    return sum(len(match([i for i in found if i.label == c], [i for i in truth if i.label == c])) for c in labels)


def quality(found: Iterable[Item], truth: Iterable[Item], images: Collection[str]) -> dict[str, float | int | None]:
    """Precision, recall and F1 pooled over `images`; None where there is nothing to divide by.

    `f1_class` counts a pair only within a class; boxes without class are left out of it on both sides.
    """
    mine = by_image(item for item in live(found) if item.image in images)
    true = by_image(item for item in live(truth) if item.image in images)
    pairs = {c: sum(count_matches(mine[i], true[i], classes=c) for i in {*mine} & {*true}) for c in (False, True)}
    n_found, n_true = (sum(map(len, groups.values())) for groups in (mine, true))
    with_class = sum(item.label is not None for groups in (mine, true) for items in groups.values() for item in items)
    return {
        "precision": _share(pairs[False], n_found),
        "recall": _share(pairs[False], n_true),
        "f1": _share(2 * pairs[False], n_found + n_true),
        "f1_class": _share(2 * pairs[True], with_class),
        "boxes": n_found,
        "truth": n_true,
        "matched": pairs[False],
        "matched_class": pairs[True],
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def all_quality(study: Study) -> dict[str, Any]:
    """`quality[arm][expert]` on the images that the expert opened, and `quality.suggestions` on all."""
    result: dict[str, Any] = {arm: {} for arm in ARMS}
    for arm in ARMS:
        for expert in (e for e in study.experts if e in study.work[arm]):
            work = study.work[arm][expert]
            result[arm][expert] = quality(work.export.items, study.truth, work.opened)
    result["suggestions"] = quality(study.suggestions, study.truth, study.images)
    return result


def not_opened(study: Study) -> dict[str, dict[str, list[str]]]:
    """`not_opened[arm][expert]`: images of the study that the expert never opened."""
    return {
        arm: {e: sorted({*study.images} - study.work[arm][e].opened) for e in study.experts if e in study.work[arm]}
        for arm in ARMS
    }


def right_suggestions(study: Study) -> list[tuple[Item, Item]]:
    """Suggestions that match a live object of the truth with the same class, one to one, and that object."""
    pairs = []
    true = by_image(live(study.truth))
    for image, items in by_image(live(study.suggestions)).items():
        for label in sorted({item.label for item in items}, key=str):
            mine = [item for item in items if item.label == label]
            theirs = [item for item in true[image] if item.label == label]
            pairs += [(mine[i], theirs[j]) for i, j in match(mine, theirs)]
    return pairs


def all_harmed(study: Study) -> dict[str, dict[str, Any]]:
    """`harmed[expert]`: right suggestions on opened images that the expert changed away from the truth.

    A right suggestion is harmed if the expert gave it another class, or deleted it and left no live box with the true
    class at its place. One that kept its class but was moved until it no longer matches, without another box with the
    true class there, is counted beside it as `moved`: it is still there, and how tightly to draw is a matter of taste.
    """
    right = right_suggestions(study)
    result = {}
    for expert in (e for e in study.experts if e in study.work["assisted"]):
        work = study.work["assisted"][expert]
        opened, answers = work.opened, by_image(work.live)
        here = [(suggestion, true) for suggestion, true in right if suggestion.image in opened]
        fates = [fate for suggestion, true in here if (fate := harm(suggestion, true, answers[true.image]))]
        counts = {fate: fates.count(fate) for fate in ("deleted", "reclassified", "moved")}
        harmed = counts["deleted"] + counts["reclassified"]
        result[expert] = {"right": len(here), "harmed": harmed, "rate": _share(harmed, len(here))} | counts
    return result


def harm(suggestion: Item, true: Item, answers: Sequence[Item]) -> str | None:
    """What became of a right suggestion among the live answers on its image; None if it is still right."""
    mine = next((item for item in answers if item.uuid == suggestion.uuid), None)
    if mine is not None and mine.label != true.label:
        return "reclassified"
    if any(item.label == true.label for item in at_place(true, answers)):
        return None
    return "deleted" if mine is None else "moved"
