"""What became of the errors that were planted among the suggestions, and how the same places fared without them.

A kind is the stem of its file. What counts as effective, so that there was something to catch:

- `changed*` lists true objects whose suggestion got another class. Effective: the object is live in the truth, and the
  suggestion at its place (best IoU, at least 0.5) has another class than the listed one, which is the true one.
- `deleted*` lists true objects that were taken from the suggestions. Effective: live in the truth, and no suggestion
  at its place.
- any other kind (`nms`, `fake*`) lists extra suggestions. Effective: the suggestion is there, and no live object of
  the truth at its place.

What an expert did with an effective one:

- changed: the suggestion lives with the true class, or was deleted and another live box with the true class is at the
  place: caught; lives with the planted class: missed; anything else: changed wrongly.
- deleted: a live box at the place with the true class: caught; with another class only: changed wrongly; none: missed.
- others: deleted, or moved onto a true object: caught; class and place as suggested: missed; else changed wrongly.

Images that the expert never opened are counted as such and nowhere else. `first_round` is the share that was right at
the same places when everybody drew from scratch: a live box with the true class, or for extra suggestions no live box.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.study.answers import MIN_IOU, at_place, by_image, ious
from benchmarks.study.layout import Study, live
from wsi_pipeline.measures.time_sources.exact import Item

Outcome = Literal["caught", "missed", "changed_wrongly", "never_opened"]
OUTCOMES: tuple[Outcome, ...] = ("caught", "missed", "changed_wrongly", "never_opened")


@dataclass(frozen=True, slots=True)
class Planted:
    """An effective planted error: the listed object, and the suggestion there (None where it was taken away)."""

    listed: Item
    suggestion: Item | None
    kind: Literal["changed", "deleted", "extra"]

    @property
    def place(self) -> Item:
        """The object whose box is the place: the true one, or the extra suggestion."""
        return self.suggestion if self.kind == "extra" and self.suggestion is not None else self.listed


def effective_of(study: Study, kind: str) -> list[Planted]:
    """The listed objects of a kind that really are errors among the suggestions."""
    suggestions, truth = by_image(live(study.suggestions)), by_image(live(study.truth))
    by_uuid = {item.uuid: item for items in suggestions.values() for item in items}
    fate = {item.uuid: item.deleted for item in study.truth}
    found = []
    for item in (item for item in study.planted[kind] if item.box is not None):
        there = at_place(item, suggestions[item.image])
        alive = not fate.get(item.uuid, item.deleted) and not item.deleted
        if kind.startswith("changed"):
            if alive and there and there[0].label != item.label:
                found.append(Planted(item, there[0], "changed"))
        elif kind.startswith("deleted"):
            if alive and not there:
                found.append(Planted(item, None, "deleted"))
        else:
            extra = by_uuid.get(item.uuid) or next(iter(there), None)
            if extra is not None and not at_place(extra, truth[extra.image]):
                found.append(Planted(item, extra, "extra"))
    return found


def outcome(planted: Planted, answers: Sequence[Item], truth: Sequence[Item]) -> Outcome:
    """What became of an effective planted error, from the live answers and the live truth on its image."""
    if planted.suggestion is None:
        labels = {item.label for item in at_place(planted.listed, answers)}
        return "caught" if planted.listed.label in labels else "changed_wrongly" if labels else "missed"
    mine = next((item for item in answers if item.uuid == planted.suggestion.uuid), None)
    if planted.kind == "changed":
        if mine is None:
            others = at_place(planted.listed, answers)
            return "caught" if any(item.label == planted.listed.label for item in others) else "changed_wrongly"
        if mine.label == planted.listed.label:
            return "caught"
        return "missed" if mine.label == planted.suggestion.label else "changed_wrongly"
    if mine is None:
        return "caught"
    if ious([mine], [planted.suggestion])[0, 0] < MIN_IOU:
        return "caught" if at_place(mine, truth) else "changed_wrongly"
    return "missed" if mine.label == planted.suggestion.label else "changed_wrongly"


def right_from_scratch(planted: Planted, answers: Sequence[Item]) -> bool:
    """Whether the live answers of the manual round on the image were right at the same place."""
    there = at_place(planted.place, answers)
    return not there if planted.kind == "extra" else any(item.label == planted.listed.label for item in there)


def all_planted(study: Study) -> dict[str, Any]:
    """`planted[kind]`: listed, effective, outcomes per expert and in total, and the first round at the same places."""
    truth = by_image(live(study.truth))
    result = {}
    for kind, listed in study.planted.items():
        effective = effective_of(study, kind)
        per_expert = {}
        for expert in (e for e in study.experts if e in study.work["assisted"]):
            work = study.work["assisted"][expert]
            opened, answers, counts = work.opened, by_image(work.live), Counter[Outcome]()
            for error in effective:
                image = error.listed.image
                seen = image in opened
                counts[outcome(error, answers[image], truth[image]) if seen else "never_opened"] += 1
            per_expert[expert] = {name: counts[name] for name in OUTCOMES}
        total = {name: sum(counts[name] for counts in per_expert.values()) for name in OUTCOMES}
        result[kind] = {
            "listed": len(listed),
            "effective": len(effective),
            "per_expert": per_expert,
            "total": total,
            "caught_rate": _share(total["caught"], sum(total.values()) - total["never_opened"]),
            "first_round": first_round(study, effective),
        }
    return result


def first_round(study: Study, effective: Sequence[Planted]) -> dict[str, Any]:
    """Right answers at the places of the errors in the manual round; `n` counts opened images only."""
    per_expert: dict[str, dict[str, Any]] = {}
    for expert in (e for e in study.experts if e in study.work["manual"]):
        work = study.work["manual"][expert]
        opened, answers = work.opened, by_image(work.live)
        here = [error for error in effective if error.listed.image in opened]
        right = sum(right_from_scratch(error, answers[error.listed.image]) for error in here)
        never = len(effective) - len(here)
        per_expert[expert] = {"right": right, "n": len(here), "rate": _share(right, len(here)), "never_opened": never}
    right, n = (sum(counts[name] for counts in per_expert.values()) for name in ("right", "n"))
    return {"per_expert": per_expert, "right": right, "n": n, "rate": _share(right, n)}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
