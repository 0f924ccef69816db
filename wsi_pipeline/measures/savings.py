"""What pre-annotation saves: the ratio of active times with and without it, and how far it can be trusted.

Formulas, sources and simulated coverage are in docs/savings.md. A comparison in a fixed order is never called a saving.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from wsi_pipeline.measures.arms import (
    Arm,
    Layout,
    Reading,
    aliased,
    crossed_design,
    layout_of,
    manual_first,
    paired_design,
    pairs_of,
    usable,
)
from wsi_pipeline.measures.cost import NO_CONTROL, not_measured
from wsi_pipeline.measures.crossed import MIN_RATERS, Design, Floats, fit

CONFOUNDED = "before/after, confounded with practice and memory"
DEFINITION = (
    "Active time with pre-annotation over active time without: the geometric mean ratio, and beside it the ratio of "
    "total hours. Below 1 is less time with pre-annotation."
)
MIN_SLIDES = 10
LEVEL = 0.95

# A share of readings "manual first" outside the first bounds is a fixed order, outside the second is worth a warning.
_FIXED_ORDER = (0.25, 0.75)
_EVEN_ORDER = (0.45, 0.55)
_MANY_DROPPED = 0.05

Interval = tuple[float, float]


class SavingKind(StrEnum):
    """What a comparison of the arms may be called."""

    MEASURED = "measured"
    BEFORE_AFTER = "before_after"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True, slots=True)
class Saving:
    """The ratio assisted/manual with all that qualifies it; hours are sums over the readings that were compared.

    `ci95` is None where the data are too few. `bootstrap_ci95` (percentile, by rater) is a check only: it is too
    narrow with few raters.
    """

    kind: SavingKind
    label: str
    ratio: float | None = None
    ci95: Interval | None = None
    df: float | None = None
    ratio_of_totals: float | None = None
    ratio_of_totals_ci95: Interval | None = None
    hours: dict[str, float] = field(default_factory=dict)
    hours_per_reading: dict[str, float] = field(default_factory=dict)
    raters: int = 0
    slides: int = 0
    pairs: int = 0
    readings: int = 0
    dropped: int = 0
    unpaired: int = 0
    manual_first: float | None = None
    bootstrap_ci95: Interval | None = None
    design: str = ""
    method: str = ""
    warnings: tuple[str, ...] = ()
    definition: str = DEFINITION

    def as_json(self) -> dict[str, Any]:
        """As `saving` of metrics.json; one that is not measured has its status and reason and no figure."""
        if self.kind is SavingKind.NOT_MEASURED:
            return {"kind": str(self.kind), **not_measured(self.label), "definition": self.definition}
        found = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {**found, "kind": str(self.kind), "level": LEVEL}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ratio and what comes of the same fit, before anybody says what it may be called."""

    ratio: float
    ci95: Interval | None
    df: float | None
    totals: float
    totals_ci95: Interval | None


def saving_of(readings: Sequence[Reading], *, bootstrap: int = 2000, seed: int = 0) -> Saving:
    """Compare the arms.

    Parameters
    ----------
    readings
        One row per rater, slide and arm. Rows without time or of zero time are left out and counted.
    bootstrap
        Draws of the check beside the interval; 0 for none.
    """
    used, dropped = usable(readings)
    if len({r.arm for r in used}) < len(Arm):
        return Saving(SavingKind.NOT_MEASURED, NO_CONTROL)
    layout = layout_of(used)
    crossed_raters = layout in (Layout.PAIRED, Layout.CROSSOVER, Layout.PARALLEL_SLIDES)
    pairs = pairs_of(used)
    compared = [r for pair in pairs for r in pair] if layout is Layout.PAIRED else used
    raters, slides = len({r.rater for r in compared}), len({r.slide for r in compared})
    if raters < MIN_RATERS and not crossed_raters:
        return Saving(
            SavingKind.NOT_MEASURED,
            f"the arms were worked by different people, {raters} in all: their differences cannot be told from the arm",
        )
    try:
        found = compare(compared, layout)
    except ValueError:
        return Saving(SavingKind.NOT_MEASURED, "no rater or slide links the two arms, so they cannot be compared")
    first = manual_first(compared) if crossed_raters else None
    kind, label, warnings = _named(first, crossed_raters, raters)
    unpaired = len(used) - len(compared)
    # Counted before anything is left out: a pair that lacks one time is one pair less.
    asked = len(pairs_of(readings)) if layout is Layout.PAIRED else 0
    warnings += _gaps(dropped, unpaired, len(readings), found) + _lost_pairs(asked, len(pairs))
    hours = {arm: [r.seconds / 3600 for r in compared if r.arm is arm] for arm in Arm}
    return Saving(
        kind=kind,
        label=label,
        ratio=found.ratio,
        ci95=found.ci95,
        df=found.df,
        ratio_of_totals=found.totals,
        ratio_of_totals_ci95=found.totals_ci95,
        hours={str(arm): sum(own) for arm, own in hours.items()},
        hours_per_reading={str(arm): sum(own) / len(own) for arm, own in hours.items()},
        raters=raters,
        slides=slides,
        pairs=len(pairs),
        readings=len(compared),
        dropped=dropped,
        unpaired=unpaired,
        manual_first=first,
        bootstrap_ci95=_bootstrap(compared, bootstrap, seed) if crossed_raters and bootstrap else None,
        design=str(layout),
        method=_method(layout, raters, found.df),
        warnings=tuple(warnings),
    )


def _named(first: float | None, crossed_raters: bool, raters: int) -> tuple[SavingKind, str, list[str]]:
    """Kind, label and warnings by the order of reading."""
    these = f"for these {raters} raters only, since they are fewer than five"
    label = these if raters < MIN_RATERS else "for raters and slides like these"
    if not crossed_raters:
        return SavingKind.MEASURED, label, ["The arms were worked by different people."]
    if first is None:
        return SavingKind.BEFORE_AFTER, CONFOUNDED, ["The order of reading is not known for every reading."]
    share = f"{first:.0%} of the comparisons had the manual reading first"
    if not _FIXED_ORDER[0] <= first <= _FIXED_ORDER[1]:
        return SavingKind.BEFORE_AFTER, CONFOUNDED, [f"The order was fixed: {share}."]
    if not _EVEN_ORDER[0] <= first <= _EVEN_ORDER[1]:
        return SavingKind.MEASURED, label, [f"The orders were not even, practice biases the ratio: {share}."]
    return SavingKind.MEASURED, label, []


def _gaps(dropped: int, unpaired: int, given: int, found: Comparison) -> list[str]:
    warnings = []
    if dropped > _MANY_DROPPED * given:
        warnings.append(f"{dropped} of {given} readings have no time, or are not the first in their arm: left out.")
    if unpaired > _MANY_DROPPED * given:
        warnings.append(f"{unpaired} of {given} readings have no partner in the other arm and were left out.")
    if found.ci95 is None:
        warnings.append("The readings are too few for an interval.")
    return warnings


def _lost_pairs(asked: int, used: int) -> list[str]:
    lost = asked - used
    if lost <= _MANY_DROPPED * asked:
        return []
    return [f"{lost} of {asked} pairs have no time, or a time of zero, in one of the arms and were left out."]


def _method(layout: Layout, raters: int, df: float | None) -> str:
    effects = "raters fixed, slides random" if raters < MIN_RATERS else "crossed random effects of rater and slide"
    what = "paired log ratios" if layout is Layout.PAIRED else "log times"
    return f"{what}, {effects}, REML" + ("" if df is None else f", t with {df:.1f} degrees of freedom (Satterthwaite)")


def compare(readings: Sequence[Reading], layout: Layout) -> Comparison:
    """The ratio with its interval, and that of total hours with the interval of the same design.

    The ratio of totals is linearised: log(mean A / mean M) moves with a / mean A − m / mean M, whose standard error
    the design gives (delta method).

    Raises
    ------
    ValueError
        The arms cannot be told from raters or slides.
    """
    design, logs, shares, totals = _values(readings, layout)
    if not design.estimable:
        raise ValueError("the arms cannot be told from raters or slides")
    log_ratio = float(design.weights @ logs)
    if design.spare < 1 or len({r.slide for r in readings}) < 2:
        return Comparison(float(np.exp(log_ratio)), None, None, totals, None)
    both = fit(design, np.vstack([logs, shares]))
    low, high = both.interval(LEVEL)
    half = (high[1] - low[1]) / 2
    return Comparison(
        float(np.exp(log_ratio)),
        (float(np.exp(low[0])), float(np.exp(high[0]))),
        float(both.df[0]),
        totals,
        (float(totals * np.exp(-half)), float(totals * np.exp(half))),
    )


def _values(readings: Sequence[Reading], layout: Layout) -> tuple[Design, Floats, Floats, float]:
    """Design, log values, linearised shares of the totals, and the ratio of total (or mean) times."""
    if layout is Layout.PAIRED:
        pairs = pairs_of(readings)
        manual, assisted = (np.array([pair[k].seconds for pair in pairs]) for k in (0, 1))
        totals = float(assisted.sum() / manual.sum())
        shares = assisted / assisted.mean() - manual / manual.mean()
        return paired_design(pairs), np.log(assisted / manual), shares, totals
    seconds = np.array([r.seconds for r in readings])
    is_assisted = np.array([r.arm is Arm.ASSISTED for r in readings])
    means = seconds[is_assisted].mean(), seconds[~is_assisted].mean()
    shares = seconds / np.where(is_assisted, *means)
    return crossed_design(readings, layout), np.log(seconds), shares, float(means[0] / means[1])


def _bootstrap(readings: Sequence[Reading], draws: int, seed: int) -> Interval:
    """Percentile interval of the ratio over raters drawn with replacement: a check, too narrow with few raters."""
    logs: dict[str, dict[Arm, list[float]]] = defaultdict(lambda: {arm: [] for arm in Arm})
    for r in readings:
        logs[r.rater][r.arm].append(float(np.log(r.seconds)))
    own = [arms for arms in logs.values() if all(arms.values())]
    effect = np.array([np.mean(arms[Arm.ASSISTED]) - np.mean(arms[Arm.MANUAL]) for arms in own])
    weight = np.array([min(map(len, arms.values())) for arms in own], dtype=float)
    drawn = np.random.default_rng(seed).integers(len(own), size=(draws, len(own)))
    means = (effect * weight)[drawn].sum(axis=1) / weight[drawn].sum(axis=1)
    low, high = np.exp(np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class SplitPart:
    """One group of an exploratory split; no interval under five raters or ten slides."""

    group: str
    ratio: float
    ci95: Interval | None
    raters: int
    slides: int
    readings: int


@dataclass(frozen=True, slots=True)
class Split:
    """An exploratory split: groups side by side, or why it is refused."""

    name: str
    parts: tuple[SplitPart, ...] = ()
    refused: str | None = None
    label: str = "exploratory"

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "parts": [asdict(part) for part in self.parts]}


def split_saving(readings: Sequence[Reading], name: str, group: Callable[[Reading], str | None]) -> Split:
    """The ratio in each group of readings, such as a tissue kind, a band of false-positive area, a week or an order.

    Refused where all raters took the slides in one order, or positions are not known: what looks like a property of
    the slides could then be practice, and the other way round.
    """
    used, _ = usable(readings)
    if aliased(used):
        return Split(name, refused="position and slide are aliased: all raters took the slides in the same order")
    groups: dict[str, list[Reading]] = defaultdict(list)
    for reading in used:
        key = group(reading)
        if key is not None:
            groups[key].append(reading)
    return Split(name, tuple(p for key in sorted(groups) if (p := _part(key, groups[key])) is not None))


def _part(name: str, readings: Sequence[Reading]) -> SplitPart | None:
    if len({r.arm for r in readings}) < len(Arm):
        return None
    layout = layout_of(readings)
    compared = [r for pair in pairs_of(readings) for r in pair] if layout is Layout.PAIRED else list(readings)
    try:
        found = compare(compared, layout)
    except ValueError:
        return None
    raters, slides = len({r.rater for r in compared}), len({r.slide for r in compared})
    interval = found.ci95 if raters >= MIN_RATERS and slides >= MIN_SLIDES else None
    return SplitPart(name, found.ratio, interval, raters, slides, len(compared))


def orders_of(readings: Sequence[Reading]) -> Mapping[tuple[str, str], str]:
    """Of each pair, by (rater, slide), which arm came first; pairs of unknown position are left out."""
    return {
        (m.rater, m.slide): "manual first" if m.position < a.position else "assisted first"
        for m, a in pairs_of(readings)
        if m.position is not None and a.position is not None
    }
