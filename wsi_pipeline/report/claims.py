"""Quality beside time: what may be said of it, planted errors, blind second reads, and what raters disagree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import mapping, text

# More conflicts than this are told as a number; all are in the table beside the page.
MOST_CONFLICTS = 12
NO_CLAIM = "no slide was also drawn by somebody who saw nothing of the model"
DIFFERS: Mapping[str, str] = {"class": "class", "presence": "whether it is there", "shape": "outline"}


@dataclass(frozen=True, slots=True)
class Claim:
    """The sentence, its figures as name and value, or why nothing may be said."""

    words: str
    rows: tuple[tuple[str, str], ...]
    missing: str
    n: str
    definition: str
    source: str


def claim(run: Run) -> Claim:
    """Read `quality` of metrics.json; without the suggestions' own score or the harm rate nothing is claimed."""
    raw = mapping(run.metrics.get("quality"))
    scores = {name: known(raw.get(name)) for name in ("assisted", "manual", "suggestions", "harm_rate")}
    words = text(raw.get("words"))
    if words is None or any(score is None for score in scores.values()):
        return Claim("", (), fmt.sentence(text(raw.get("reason")) or NO_CLAIM), "", "", "")
    harmed, right = (round(known(raw.get(key)) or 0) for key in ("harmed", "right"))
    rows = [
        ("With pre-annotation", fmt.score(scores["assisted"])),
        ("Without", fmt.score(scores["manual"])),
        ("Untouched suggestions alone", fmt.score(scores["suggestions"])),
        (
            "Right suggestions harmed",
            f"{fmt.share(scores['harm_rate'])} ({fmt.integer(harmed)} of {fmt.integer(right)})",
        ),
        ("With minus without", _gain(raw)),
    ]
    beside = mapping(raw.get("to_prediction"))
    if known(beside.get("assisted")) is not None:
        near = " with, ".join(fmt.score(known(beside.get(key))) for key in ("assisted", "manual"))
        rows.append(("Agreement with the prediction", f"{near} without"))
    return Claim(
        fmt.sentence(words), tuple(rows), "", _n(raw), text(raw.get("definition")) or "", text(raw.get("source")) or ""
    )


def _gain(raw: Mapping[str, Any]) -> str:
    interval = raw.get("gain_ci95")
    value = fmt.signed(known(raw.get("gain")))
    if not isinstance(interval, list) or len(interval) != 2:
        return f"{value}, too few slides for an interval"
    low, high = (fmt.signed(known(end)) for end in interval)
    return f"{value} (95{fmt.NARROW}% interval over slides {low} to {high})"


def _n(raw: Mapping[str, Any]) -> str:
    parts = []
    for key, word in (("slides", "slide"), ("raters", "rater"), ("comparisons", "comparison")):
        count = known(raw.get(key))
        if count is not None:
            parts.append(fmt.counted(round(count), word))
    return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Planted:
    """Errors that were planted, by kind: name, how many, how many were found."""

    kinds: tuple[tuple[str, int, int], ...]
    planted: int
    caught: int
    missing: str

    @property
    def share(self) -> str:
        return fmt.share(self.caught / self.planted) if self.planted else fmt.DASH


def planted(run: Run) -> Planted:
    """Read `planted` of metrics.json."""
    raw = mapping(run.metrics.get("planted"))
    kinds = tuple(
        (name, round(known(mapping(own).get("planted")) or 0), round(known(mapping(own).get("caught")) or 0))
        for name, own in mapping(raw.get("kinds")).items()
    )
    if not kinds:
        return Planted((), 0, 0, fmt.sentence(text(raw.get("reason")) or "no study planted errors"))
    return Planted(kinds, sum(n for _, n, _ in kinds), sum(n for _, _, n in kinds), "")


@dataclass(frozen=True, slots=True)
class Conflict:
    """One object that raters changed differently; under pseudonyms where raters are shown at all."""

    slide_id: str
    differs: str
    iou: str
    sides: str
    decided: bool


@dataclass(frozen=True, slots=True)
class Conflicts:
    """How many there are, by what differs, decided and waiting, and the first of those that wait."""

    table: tuple[tuple[str, int, int], ...]
    total: int
    waiting: int
    slides: int
    shown: tuple[Conflict, ...]


def conflicts(run: Run) -> Conflicts | None:
    """Read `conflicts` of metrics.json; None where no slide has two raters' corrections."""
    raw = run.metrics.get("conflicts")
    found = [mapping(item) for item in raw] if isinstance(raw, list) else []
    if not found:
        return None
    waiting = [item for item in found if item.get("adjudicated") is not True]
    of_kind, open_kind = (Counter(text(i.get("differs")) or "" for i in group) for group in (found, waiting))
    pseudonyms = run.pseudonyms if run.show_raters else {}
    return Conflicts(
        table=tuple((words, of_kind[kind], open_kind[kind]) for kind, words in DIFFERS.items() if of_kind[kind]),
        total=len(found),
        waiting=len(waiting),
        slides=len({text(item.get("slide_id")) for item in found}),
        shown=tuple(_conflict(item, pseudonyms) for item in sorted(waiting, key=_urgency)[:MOST_CONFLICTS]),
    )


def _urgency(raw: Mapping[str, Any]) -> tuple[int, float]:
    """Another class first, then whether it is there, then the outlines that agree least."""
    kinds = list(DIFFERS)
    kind = text(raw.get("differs"))
    return kinds.index(kind) if kind in kinds else len(kinds), known(raw.get("iou")) or 0.0


def _conflict(raw: Mapping[str, Any], pseudonyms: Mapping[str, str]) -> Conflict:
    sides: list[str] = []
    raters = raw.get("raters")
    for side in map(mapping, raters if isinstance(raters, list) else ()):
        name = pseudonyms.get(text(side.get("rater")) or "", "one" if not sides else "another")
        what = text(side.get("change")) or "changed"
        after = text(side.get("class_after"))
        sides.append(f"{name} {what}" + (f" ({after})" if after else ""))
    iou = known(raw.get("iou"))
    return Conflict(
        slide_id=text(raw.get("slide_id")) or "",
        differs=DIFFERS.get(text(raw.get("differs")) or "", "something"),
        iou=fmt.DASH if iou is None else fmt.score(iou),
        sides="; ".join(sides),
        decided=raw.get("adjudicated") is True,
    )
