"""Whether a new model replaces the old one: only when it is shown to be better on slides neither has seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from wsi_pipeline.errors import ModelError
from wsi_pipeline.learning.scores import SlideScore
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.states import Source

FEWEST: Final = 5
"""Patients (or slides) below which nothing is said: an interval of so few leans on assumptions only."""
LEVEL: Final = 0.95
FALSE_ALARM_LIMIT: Final = 0.005
"""Share of area by which a new model may mark more on slides that hold nothing of the class."""


class Verdict(StrEnum):
    """What the held-out slides show."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference shown"
    TOO_FEW = "too few to tell"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and everything that it rests on.

    Attributes
    ----------
    promote
        Whether the new model should be used from now on.
    difference
        Mean over the groups of new minus old Dice; None without a single pair.
    low, high
        Its interval at `level`, from Student's t over the groups; None for fewer than `FEWEST`.
    groups, unit
        How many independent things were compared, and what they are ("patients" or "slides").
    improved
        In how many of them the new model was ahead.
    left_out
        Slide ids that could not count, with the reason.
    reason
        Plain words.
    """

    promote: bool
    verdict: Verdict
    difference: float | None
    low: float | None
    high: float | None
    level: float
    groups: int
    improved: int
    unit: str
    old_model: str
    new_model: str
    old_dice: float | None
    new_dice: float | None
    left_out: dict[str, str]
    source: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "verdict": str(self.verdict)}


@dataclass(frozen=True, slots=True)
class _Pair:
    slide_id: str
    group: str
    old: float
    new: float


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the pairs say; the fields as in `Decision`."""

    difference: float | None
    interval: tuple[float, float] | None
    level: float
    groups: int
    improved: int
    unit: str
    false_alarms: float

    @property
    def verdict(self) -> Verdict:
        if self.interval is None:
            return Verdict.TOO_FEW
        if self.interval[0] > 0:
            return Verdict.BETTER
        return Verdict.WORSE if self.interval[1] < 0 else Verdict.NO_DIFFERENCE

    @property
    def promote(self) -> bool:
        return self.verdict is Verdict.BETTER and self.false_alarms <= FALSE_ALARM_LIMIT


def decide(
    old: Sequence[SlideScore],
    new: Sequence[SlideScore],
    *,
    old_card: ModelCard,
    new_card: ModelCard,
    level: float = LEVEL,
    fewest: int = FEWEST,
) -> Decision:
    """Compare two models on the same held-out slides, paired, with patients as the unit.

    Slides that either model was trained on, or whose patient it was trained on, do not count. The new model
    is promoted only when the whole interval of the mean difference in Dice lies above zero, and when it does
    not mark noticeably more on slides where there is nothing.

    Parameters
    ----------
    old, new
        Scores of the two models; a slide that only one has is left out.
    level
        Of the interval.
    fewest
        Groups below which the answer is "too few to tell"; two at least.

    Raises
    ------
    ModelError
        The models have different classes: their scores say nothing about each other.
    """
    names = [sorted(card.colors) for card in (old_card, new_card)]
    if names[0] != names[1]:
        raise ModelError(
            f"{old_card.model_id} finds {', '.join(names[0])}, {new_card.model_id} finds {', '.join(names[1])}: "
            "only models of the same classes can be compared"
        )
    both, left_out = _comparable(old, new, (old_card, new_card))
    pairs = [_Pair(a.slide_id, a.group, a.mean_dice or 0.0, b.mean_dice or 0.0) for a, b in both if _holds_something(a)]
    evidence = _weigh(pairs, _false_alarms(both), level, max(2, fewest))
    low, high = evidence.interval or (None, None)
    return Decision(
        promote=evidence.promote,
        verdict=evidence.verdict,
        difference=evidence.difference,
        low=low,
        high=high,
        level=level,
        groups=evidence.groups,
        improved=evidence.improved,
        unit=evidence.unit,
        old_model=old_card.model_id,
        new_model=new_card.model_id,
        old_dice=_mean([pair.old for pair in pairs]),
        new_dice=_mean([pair.new for pair in pairs]),
        left_out=left_out,
        source=_source([score for scores in both for score in scores]),
        reason=_reason(evidence, max(2, fewest)),
    )


def _comparable(
    old: Sequence[SlideScore], new: Sequence[SlideScore], cards: Sequence[ModelCard]
) -> tuple[list[tuple[SlideScore, SlideScore]], dict[str, str]]:
    """Scores of both models on slides that neither has seen, and why the others do not count."""
    of_old, of_new = {s.slide_id: s for s in old}, {s.slide_id: s for s in new}
    both, left_out = [], {}
    for slide_id in sorted(of_old.keys() | of_new.keys()):
        if slide_id not in of_old or slide_id not in of_new:
            left_out[slide_id] = "scored for one of the two models only"
            continue
        seen = _seen(of_old[slide_id], cards)
        if seen is None:
            both.append((of_old[slide_id], of_new[slide_id]))
        else:
            left_out[slide_id] = seen
    return both, left_out


def _seen(score: SlideScore, cards: Sequence[ModelCard]) -> str | None:
    for card in cards:
        if score.slide_id in card.trained_on.slides:
            return f"{card.model_id} was trained on it"
        if score.group in card.trained_on.patients:
            return f"{card.model_id} was trained on another slide of the patient"
    return None


def _holds_something(score: SlideScore) -> bool:
    return any(overlap.truth > 0 for overlap in score.classes.values())


def _false_alarms(both: Sequence[tuple[SlideScore, SlideScore]]) -> float:
    """How much more of their area the new model marks on slides that hold nothing; 0 without such slides."""
    empty = [(a, b) for a, b in both if not _holds_something(a) and a.area_um2 > 0]
    return _mean([(_wrong(b) - _wrong(a)) / a.area_um2 for a, b in empty]) or 0.0


def _wrong(score: SlideScore) -> float:
    return sum(overlap.wrong for overlap in score.classes.values())


def _weigh(pairs: Sequence[_Pair], false_alarms: float, level: float, fewest: int) -> _Evidence:
    groups = sorted({pair.group for pair in pairs})
    differences = np.array(
        [np.mean([pair.new - pair.old for pair in pairs if pair.group == group]) for group in groups]
    )
    return _Evidence(
        difference=_mean(differences.tolist()),
        interval=_interval(differences, level) if len(groups) >= fewest else None,
        level=level,
        groups=len(groups),
        improved=int((differences > 0).sum()),
        unit="slides" if all(pair.group == pair.slide_id for pair in pairs) else "patients",
        false_alarms=false_alarms,
    )


def _interval(differences: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Student's t interval of the mean, n - 1 degrees of freedom."""
    n = len(differences)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * float(differences.std(ddof=1)) / math.sqrt(n)
    mean = float(differences.mean())
    return mean - half, mean + half


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _source(scores: Sequence[SlideScore]) -> str:
    simulated = any(score.source is Source.SIMULATED for score in scores)
    return str(Source.SIMULATED if simulated else Source.MEASURED)


def _reason(evidence: _Evidence, fewest: int) -> str:
    """The decision in plain words."""
    if evidence.difference is None:
        return "Nothing can be said: no slide that both models were scored on is unseen by both. The old model stays."
    found = (
        f"mean difference in Dice {evidence.difference:+.3f} over {evidence.groups} {evidence.unit}, "
        f"the new model ahead in {evidence.improved}"
    )
    if evidence.interval is None:
        return f"Too few to tell: {found}; an interval needs {fewest} {evidence.unit}. The old model stays."
    low, high = evidence.interval
    found += f", {evidence.level:.0%} interval {low:+.3f} to {high:+.3f}"
    if evidence.verdict is Verdict.WORSE:
        return f"The new model is worse: {found}. The old model stays."
    if evidence.verdict is Verdict.NO_DIFFERENCE:
        return f"No difference is shown: {found}; that includes zero. The old model stays."
    if not evidence.promote:
        return (
            f"Better where there is something ({found}), but on slides where there is nothing it marks "
            f"{evidence.false_alarms:.1%} more of their area. The old model stays."
        )
    return f"The new model is better: {found}. It should replace the old one."
