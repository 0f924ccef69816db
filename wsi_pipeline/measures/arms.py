"""Who read which slide in which arm: the kind of design, its order, and the matrices of its estimate. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.stats import spearmanr

from wsi_pipeline.measures.crossed import MIN_RATERS, Design, Floats, indicator, spare_rank


class Arm(StrEnum):
    """Whether the slide carried suggestions."""

    MANUAL = "manual"
    ASSISTED = "assisted"


class Layout(StrEnum):
    """How slides and raters meet the arms."""

    PAIRED = "paired crossover: each rater read each slide in both arms"
    CROSSOVER = "crossover: each rater read each slide in one arm, raters and slides occur in both"
    PARALLEL_SLIDES = "parallel: each rater worked in both arms, each slide was read in one"
    PARALLEL_RATERS = "parallel: each slide was read in both arms, each rater worked in one"
    PARALLEL = "parallel: each rater and each slide occur in one arm"


@dataclass(frozen=True, slots=True)
class Reading:
    """Active seconds of one rater on one slide in one arm; `position` counts the rater's readings from 0."""

    rater: str
    slide: str
    arm: Arm
    seconds: float
    position: int | None = None
    patient: str | None = None


Pair = tuple[Reading, Reading]


def usable(readings: Sequence[Reading]) -> tuple[list[Reading], int]:
    """Readings with a time above zero, one per rater, slide and arm (the first), and how many were left out."""
    kept: dict[tuple[str, str, Arm], Reading] = {}
    for reading in readings:
        if np.isfinite(reading.seconds) and reading.seconds > 0:
            kept.setdefault((reading.rater, reading.slide, reading.arm), reading)
    return list(kept.values()), len(readings) - len(kept)


def pairs_of(readings: Sequence[Reading]) -> list[Pair]:
    """(manual, assisted) of the same rater and slide."""
    cells: dict[tuple[str, str], dict[Arm, Reading]] = defaultdict(dict)
    for reading in readings:
        cells[reading.rater, reading.slide][reading.arm] = reading
    return [(cell[Arm.MANUAL], cell[Arm.ASSISTED]) for cell in cells.values() if len(cell) == len(Arm)]


def layout_of(readings: Sequence[Reading]) -> Layout:
    """The layout that most of the readings have."""
    cells = len({(r.rater, r.slide) for r in readings})
    if len(pairs_of(readings)) * 2 >= cells:
        return Layout.PAIRED
    raters, slides = _in_both(readings, lambda r: r.rater), _in_both(readings, lambda r: r.slide)
    if raters and slides:
        return Layout.CROSSOVER
    if raters:
        return Layout.PARALLEL_SLIDES
    return Layout.PARALLEL_RATERS if slides else Layout.PARALLEL


def _in_both(readings: Sequence[Reading], key: Callable[[Reading], str]) -> bool:
    """Whether at least half of the raters, or slides, occur in both arms."""
    arms: dict[str, set[Arm]] = defaultdict(set)
    for reading in readings:
        arms[key(reading)].add(reading.arm)
    return sum(len(found) == len(Arm) for found in arms.values()) * 2 >= len(arms)


def manual_first(readings: Sequence[Reading]) -> float | None:
    """How often the manual reading came first, 0 to 1; None where positions are not known.

    Over pairs of the same slide where there are any; else over all pairs of readings of a rater, the mean of raters.
    Raters who worked in one arm have no order.
    """
    if any(r.position is None for r in readings):
        return None
    pairs = pairs_of(readings)
    if pairs:
        return float(np.mean([float(m.position or 0) < float(a.position or 0) for m, a in pairs]))
    shares = []
    for rater in sorted({r.rater for r in readings}):
        manual = [float(r.position or 0) for r in readings if r.rater == rater and r.arm is Arm.MANUAL]
        assisted = [float(r.position or 0) for r in readings if r.rater == rater and r.arm is Arm.ASSISTED]
        if manual and assisted:
            shares.append(float(np.mean(np.subtract.outer(manual, assisted) < 0)))
    return float(np.mean(shares)) if shares else 0.5


def aliased(readings: Sequence[Reading]) -> bool:
    """Whether all raters took the slides in the same order: then what position does cannot be told from the slides.

    So it is when the median over pairs of raters of the rank correlation of their orders is above 0.9.
    """
    orders: dict[str, dict[str, float]] = defaultdict(dict)
    for reading in readings:
        if reading.position is None:
            return True
        before = orders[reading.rater].get(reading.slide, np.inf)
        orders[reading.rater][reading.slide] = min(before, float(reading.position))
    names = sorted(orders)
    found = []
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            shared = sorted(orders[one].keys() & orders[other].keys())
            if len(shared) > 2:
                first, second = ([orders[name][slide] for slide in shared] for name in (one, other))
                found.append(_rank_correlation(first, second))
    return not found or float(np.median(found)) > 0.9


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's; 1 where one order has no order, so that nothing is concluded from it."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return 1.0
    return float(spearmanr(first, second).statistic)


def paired_design(pairs: Sequence[Pair]) -> Design:
    """Design of the mean of one value per pair: crossed rater and slide, and patient where it holds several slides."""
    return _with_clusters([manual for manual, _ in pairs], np.ones(len(pairs)), crossed_slides=True, paired=True)


def crossed_design(readings: Sequence[Reading], layout: Layout) -> Design:
    """Design of the difference between the arms, assisted − manual, of one value per reading.

    Raters or slides that occur in both arms have a level of their own (fixed) and an effect of the arm of their own
    (random); those of one arm have a random level. Fewer than five raters have fixed effects of the arm.
    """
    sign = np.array([0.5 if r.arm is Arm.ASSISTED else -0.5 for r in readings])
    crossed_raters = layout in (Layout.CROSSOVER, Layout.PARALLEL_SLIDES)
    crossed_slides = layout in (Layout.CROSSOVER, Layout.PARALLEL_RATERS)
    return _with_clusters(readings, sign, crossed_raters=crossed_raters, crossed_slides=crossed_slides, paired=False)


def _with_clusters(
    readings: Sequence[Reading], arm: Floats, *, crossed_slides: bool, paired: bool, crossed_raters: bool = True
) -> Design:
    rater = indicator([r.rater for r in readings])
    raters = rater.shape[1]
    few = raters < MIN_RATERS and crossed_raters
    random: list[Floats] = []
    levels: list[Floats] = [np.ones((len(readings), 1))]
    if not paired and crossed_raters:
        levels.append(rater)
    if not few:
        random.append(rater * arm[:, None] if crossed_raters else rater)
    for names in _clusters(readings):
        cluster = indicator(names)
        if crossed_slides and not paired:
            levels.append(cluster)
        # A cluster of one reading each is the rest.
        if cluster.sum(axis=0).max() > 1 and cluster.shape[1] > 1:
            random.append(cluster * arm[:, None] if crossed_slides else cluster)
    fixed = np.hstack([*([] if paired else levels), arm[:, None]])
    contrast = np.zeros(fixed.shape[1])
    contrast[-1] = 1.0
    # What the raters' own differences leave once the fixed effects are taken off: raters - 1 where each has a pair of
    # their own, one less where a contrast of raters is one of slides too, or where each rater worked in one arm.
    floor = 1.0 if few else max(spare_rank(random[0], fixed), 1)
    own = rater * arm[:, None] if few else None
    return Design(fixed, contrast, tuple(random), float(floor), own, known_at_zero=None if few else 0)


def _clusters(readings: Sequence[Reading]) -> list[list[str]]:
    """Slides, and before them patients where one holds several slides."""
    slides = [r.slide for r in readings]
    patients = [r.patient or r.slide for r in readings]
    several = Counter(patient for patient, _ in {(r.patient or r.slide, r.slide) for r in readings})
    return [patients, slides] if max(several.values()) > 1 else [slides]
