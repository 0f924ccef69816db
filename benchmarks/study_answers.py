"""What experts answered in a study: quality against the truth, planted errors, right suggestions harmed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.study_files import Box, Export, Item, Study

IOU = 0.5


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2), continuous coordinates."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def match(found: Sequence[Item], truth: Sequence[Item], *, classes: bool = False) -> list[tuple[int, int]]:
    """One-to-one pairs with IoU of at least 0.5: as many as possible, among those with the largest sum of IoU.

    With `classes`, only boxes of one class may be a pair.
    """
    by_image: defaultdict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, items in enumerate((found, truth)):
        for number, item in enumerate(items):
            if item.box is not None:
                by_image[item.image][side].append(number)
    result = []
    for rows, columns in by_image.values():
        if not rows or not columns:
            continue
        score = np.zeros((len(rows), len(columns)))
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                value = _overlap(found[row], truth[column])
                if value >= IOU and (not classes or found[row].label == truth[column].label):
                    # One more pair always outweighs any sum of overlaps.
                    score[i, j] = 1 + value / (1 + min(len(rows), len(columns)))
        chosen = linear_sum_assignment(score, maximize=True)
        result += [(rows[i], columns[j]) for i, j in zip(*chosen, strict=True) if score[i, j] > 0]
    return sorted(result)


def _overlap(a: Item, b: Item) -> float:
    return 0.0 if a.image != b.image or a.box is None or b.box is None else iou(a.box, b.box)


def live(items: Iterable[Item], images: Collection[str]) -> list[Item]:
    """Objects that were not deleted, on some images."""
    return [item for item in items if not item.deleted and item.box is not None and item.image in images]


def score(found: Sequence[Item], truth: Sequence[Item]) -> dict[str, float | None]:
    """Precision, recall and F1 of boxes whatever their class, and F1 of boxes with their class, pooled over images."""
    boxes, classed = len(match(found, truth)), len(match(found, truth, classes=True))
    total = len(found) + len(truth)
    return {
        "precision": boxes / len(found) if found else None,
        "recall": boxes / len(truth) if truth else None,
        "f1": 2 * boxes / total if total else None,
        "f1_class": 2 * classed / total if total else None,
    }


def quality(study: Study) -> dict[str, dict[str, Any]]:
    """`quality[arm][expert]` on the images that the expert opened in that arm, and the untouched suggestions'."""
    result: dict[str, dict[str, Any]] = {}
    for arm, experts in study.exports.items():
        result[arm] = {}
        for expert, export in experts.items():
            images = export.opened()
            result[arm][expert] = score(live(export.items.values(), images), live(study.truth.values(), images))
    everywhere = study.images()
    result["suggestions"] = score(live(study.suggestions.values(), everywhere), live(study.truth.values(), everywhere))
    return result


def best_at(place: Item, items: Iterable[Item]) -> Item | None:
    """The item that overlaps a place most, with an IoU of at least 0.5."""
    at = [(value, item) for item in items if (value := _overlap(place, item)) >= IOU]
    return max(at, key=lambda pair: (pair[0], pair[1].uuid))[1] if at else None


class _Error:
    """A planted error that is one: its place, its true class (none where nothing is), its suggestion (if any)."""

    def __init__(self, place: Item, label: str | None, suggestion: Item | None) -> None:
        self.place, self.label, self.suggestion = place, label, suggestion


def effective(study: Study) -> dict[str, list[_Error]]:
    """Per kind, the planted errors that were errors when the experts saw them.

    `changed`: a suggestion at the place has another class than the (live) truth there. `deleted*`: truth without
    suggestion. `nms`, `fake*`: a suggestion that no truth is left for in one-to-one matching.
    """
    truth, shown = list(study.truth.values()), list(study.suggestions.values())
    matched = {shown[i].uuid for i, _ in match(shown, truth)}
    result: dict[str, list[_Error]] = {}
    for kind, listed in study.planted.items():
        errors = result[kind] = []
        for place in listed:
            real, suggestion = best_at(place, truth), study.suggestions.get(place.uuid) or best_at(place, shown)
            if kind.startswith("changed"):
                if real is not None and suggestion is not None and suggestion.label != place.label:
                    errors.append(_Error(place, place.label, suggestion))
            elif kind.startswith("deleted"):
                if real is not None and suggestion is None:
                    errors.append(_Error(place, real.label, None))
            elif suggestion is not None and suggestion.uuid not in matched:
                errors.append(_Error(place, None, suggestion))
    return result


def outcome(error: _Error, export: Export) -> str:
    """`caught`, `missed`, `changed_wrongly` or `never_opened`."""
    images = export.opened()
    if error.place.image not in images:
        return "never_opened"
    kept = export.items.get(error.suggestion.uuid) if error.suggestion is not None else None
    if error.label is None:
        assert error.suggestion is not None
        if kept is None or kept.deleted:
            return "caught"
        same = kept.label == error.suggestion.label and _overlap(kept, error.suggestion) >= IOU
        return "missed" if same else "changed_wrongly"
    answer = kept if kept is not None and not kept.deleted and _overlap(kept, error.place) >= IOU else None
    answer = answer or best_at(error.place, live(export.items.values(), images))
    if answer is None:
        return "missed" if error.suggestion is None else "changed_wrongly"
    if answer.label == error.label:
        return "caught"
    unchanged = error.suggestion is not None and answer.label == error.suggestion.label
    return "missed" if unchanged else "changed_wrongly"


def right_alone(error: _Error, export: Export, truth: Sequence[Item]) -> bool:
    """Whether the expert had the place right without suggestions."""
    images = export.opened()
    items = live(export.items.values(), images)
    if error.label is not None:
        answer = best_at(error.place, items)
        return answer is not None and answer.label == error.label
    real = live(truth, images)
    matched = {i for i, _ in match(items, real)}
    return best_at(error.place, [item for i, item in enumerate(items) if i not in matched]) is None


def planted(study: Study) -> dict[str, dict[str, Any]]:
    """`planted[kind]`: counts, each expert's outcomes, and how often the first round was right at the same places."""
    errors = effective(study)
    result: dict[str, dict[str, Any]] = {}
    for kind, found in errors.items():
        experts: dict[str, Any] = {}
        for expert, export in study.exports["assisted"].items():
            outcomes = [outcome(error, export) for error in found]
            counts: dict[str, Any] = {
                name: outcomes.count(name) for name in ("caught", "missed", "changed_wrongly", "never_opened")
            }
            experts[expert] = counts | _first_round(study, expert, found)
        result[kind] = {"listed": len(study.planted[kind]), "effective": len(found), "experts": experts}
    return result


def _first_round(study: Study, expert: str, errors: Sequence[_Error]) -> dict[str, Any]:
    export = study.exports["manual"].get(expert)
    opened = export.opened() if export is not None else set()
    places = [error for error in errors if error.place.image in opened]
    right = sum(right_alone(error, export, list(study.truth.values())) for error in places) if export else 0
    rate = right / len(places) if places else None
    return {"first_round": {"right": right, "places": len(places), "rate": rate}}


def harmed(study: Study) -> dict[str, dict[str, Any]]:
    """Per expert: suggestions that were right in place and class, and how many of them ended away from the truth.

    A suggestion is harmed when no live box of the expert at the truth's place carries its class any more.
    """
    truth, shown = list(study.truth.values()), list(study.suggestions.values())
    right = [(shown[i], truth[j]) for i, j in match(shown, truth) if shown[i].label == truth[j].label]
    result: dict[str, dict[str, Any]] = {}
    for expert, export in study.exports["assisted"].items():
        images = export.opened()
        seen = [(suggestion, real) for suggestion, real in right if suggestion.image in images]
        items = live(export.items.values(), images)
        lost = {"deleted": 0, "class": 0, "moved": 0}
        for suggestion, real in seen:
            kept = export.items.get(suggestion.uuid)
            at = kept is not None and not kept.deleted and _overlap(kept, real) >= IOU
            answer = kept if at else best_at(real, items)
            if answer is not None and answer.label == real.label:
                continue
            gone = kept is None or kept.deleted
            lost["class" if answer is not None else "deleted" if gone else "moved"] += 1
        total = sum(lost.values())
        result[expert] = {
            "right": len(seen), "harmed": total, "rate": total / len(seen) if seen else None, **lost
        }  # fmt: skip
    return result
