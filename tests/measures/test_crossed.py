"""Crossed random effects: against the analysis of variance, against the criterion written out, and in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import t as student

from wsi_pipeline.measures.crossed import CrossedMean, crossed_mean

Floats = NDArray[np.float64]


def draw(rng: np.random.Generator, raters: int, slides: int, variances: tuple[float, float, float]) -> Floats:
    """Values of complete cells, raters × slides, around zero."""
    rater, slide, rest = np.sqrt(variances)
    both = rng.normal(0, rater, (raters, 1)) + rng.normal(0, slide, (1, slides))
    return np.asarray(both + rng.normal(0, rest, (raters, slides)))


def fit(values: Floats, keep: NDArray[np.bool_] | None = None) -> CrossedMean:
    rater, slide = np.nonzero(np.ones(values.shape, dtype=bool) if keep is None else keep)
    return crossed_mean(values[rater, slide], [f"r{i}" for i in rater], [f"s{i}" for i in slide])


def mean_squares(y: Floats) -> tuple[float, float, float]:
    """Of raters, of slides and of the rest: the table of a two-way analysis of variance."""
    raters, slides = y.shape
    row, column, mean = y.mean(axis=1), y.mean(axis=0), y.mean()
    rest = y - row[:, None] - column[None] + mean
    ms_rater = slides * float(((row - mean) ** 2).sum()) / (raters - 1)
    ms_slide = raters * float(((column - mean) ** 2).sum()) / (slides - 1)
    return ms_rater, ms_slide, float((rest**2).sum()) / ((raters - 1) * (slides - 1))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(5, 12), (10, 20)])
def test_complete_cells_give_the_analysis_of_variance(shape: tuple[int, int], seed: int) -> None:
    raters, slides = shape
    y = draw(np.random.default_rng(seed), raters, slides, (0.5, 0.4, 0.1))
    rater, slide, rest = mean_squares(y)
    assert min(rater, slide) > rest
    found = fit(y)
    assert found.rater_variance == pytest.approx((rater - rest) / slides, rel=1e-4)
    assert found.slide_variance == pytest.approx((slide - rest) / raters, rel=1e-4)
    assert found.rest_variance == pytest.approx(rest, rel=1e-4)
    se = math.sqrt((rater + slide - rest) / (raters * slides))
    reach = float(student.ppf(0.975, raters - 1)) * se
    assert (found.mean, found.se, found.df) == pytest.approx((float(y.mean()), se, raters - 1), rel=1e-4)
    assert (found.low, found.high) == pytest.approx((found.mean - reach, found.mean + reach), rel=1e-4)
    assert (found.values, found.raters, found.slides) == (raters * slides, raters, slides)


def test_a_negative_estimate_becomes_zero_and_the_others_follow() -> None:
    y = draw(np.random.default_rng(0), 6, 10, (0.0, 1.0, 1.0))
    y -= y.mean(axis=1, keepdims=True)
    found = fit(y)
    # Without raters it is a one-way analysis by slide.
    between = 6 * float((y.mean(axis=0) ** 2).sum()) / 9
    within = float(((y - y.mean(axis=0)) ** 2).sum()) / 50
    assert found.rater_variance == pytest.approx(0, abs=1e-6)
    assert (found.slide_variance, found.rest_variance) == pytest.approx(((between - within) / 6, within), rel=1e-3)


@pytest.mark.parametrize("raters", [2, 3, 4])
def test_fewer_than_five_raters_are_fixed_effects(raters: int) -> None:
    y = draw(np.random.default_rng(raters), raters, 15, (5.0, 0.5, 0.1))
    found = fit(y)
    _, slide, rest = mean_squares(y)
    assert math.isnan(found.rater_variance)
    assert (found.slide_variance, found.rest_variance) == pytest.approx(((slide - rest) / raters, rest), rel=1e-4)
    # How raters differ does not widen it: it is about these raters.
    assert (found.se, found.df) == pytest.approx((math.sqrt(slide / (raters * 15)), 14), rel=1e-4)
    assert f"these {raters} raters only" in found.note


def criterion(y: Floats, r: NDArray[np.intp], s: NDArray[np.intp], variances: tuple[float, float, float]) -> float:
    """-2 log REML with the covariance matrix written out."""
    same_rater, same_slide = r[:, None] == r[None], s[:, None] == s[None]
    v = variances[0] * same_rater + variances[1] * same_slide + variances[2] * np.eye(len(y))
    one = np.ones(len(y))
    weight = np.linalg.solve(v, one)
    rest = y - weight @ y / weight.sum()
    log_det = float(np.linalg.slogdet(v)[1])
    return log_det + math.log(float(weight.sum())) + float(rest @ np.linalg.solve(v, rest))


@pytest.mark.parametrize("seed", range(5))
def test_with_missing_cells_no_other_variances_fit_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, keep = draw(rng, 6, 12, (0.3, 0.6, 0.4)), rng.random((6, 12)) < 0.7
    found = fit(y, keep)
    r, s = np.nonzero(keep)
    best = (found.rater_variance, found.slide_variance, found.rest_variance)
    reached = criterion(y[keep], r, s, best)
    for _ in range(200):
        other = tuple(float(v) for v in (np.array(best) + 1e-4) * np.exp(rng.normal(0, rng.choice([0.02, 1.0]), 3)))
        assert criterion(y[keep], r, s, (other[0], other[1], other[2])) >= reached - 1e-5
    n = int(keep.sum())
    same = (best[0] * (keep.sum(axis=1) ** 2).sum() + best[1] * (keep.sum(axis=0) ** 2).sum() + best[2] * n) / n**2
    assert (found.mean, found.se) == pytest.approx((float(y[keep].mean()), math.sqrt(float(same))))


@settings(max_examples=15, deadline=None)
@given(st.floats(-100, 100), st.floats(0.01, 100), st.integers(0, 100))
def test_shift_scale_and_order_change_nothing_else(shift: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = draw(rng, 5, 6, (0.5, 0.5, 0.3))
    rater, slide = np.nonzero(np.ones(y.shape))
    order = rng.permutation(y.size)
    one = fit(y)
    other = crossed_mean(shift + scale * y.ravel()[order], rater[order].tolist(), slide[order].tolist())
    assert other.mean == pytest.approx(shift + scale * one.mean, abs=1e-9 * (1 + scale + abs(shift)))
    assert other.se == pytest.approx(scale * one.se, rel=1e-3)


def test_values_without_any_difference_have_an_interval_of_no_width() -> None:
    found = fit(np.full((5, 4), 2.5))
    assert (found.mean, found.low, found.high, found.se) == (2.5, 2.5, 2.5, 0.0)


def test_small_rests_beside_large_effects_are_told_apart() -> None:
    y = np.arange(6.0)[:, None] + 10 * np.arange(4.0)[None] + np.random.default_rng(0).normal(0, 0.03, (6, 4))
    rater, slide, rest = mean_squares(y)
    found = fit(y)
    assert found.rest_variance == pytest.approx(rest, rel=1e-3)
    assert found.rater_variance == pytest.approx((rater - rest) / 4, rel=1e-3)
    assert found.slide_variance == pytest.approx((slide - rest) / 6, rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (6, 1)])
def test_one_slide_has_no_interval(shape: tuple[int, int]) -> None:
    found = fit(draw(np.random.default_rng(0), *shape, (1.0, 1.0, 1.0)))
    assert math.isfinite(found.mean)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert "no interval" in found.note


def test_one_rater_has_an_interval_for_that_rater() -> None:
    y = draw(np.random.default_rng(3), 1, 12, (1.0, 1.0, 1.0))
    found = fit(y)
    assert (found.se, found.df) == pytest.approx((float(y.std(ddof=1)) / math.sqrt(12), 11), rel=1e-4)


def test_several_values_of_a_rater_on_a_slide_are_taken() -> None:
    y = draw(np.random.default_rng(4), 5, 6, (1.0, 1.0, 0.1)).ravel()
    rater, slide = np.repeat(np.arange(5), 6).tolist(), np.tile(np.arange(6), 5).tolist()
    twice = crossed_mean(np.concatenate([y, y]), rater + rater, slide + slide)
    assert twice.mean == pytest.approx(float(y.mean()))
    assert twice.values == 60


@pytest.mark.parametrize(
    ("values", "raters", "slides"),
    [([], [], []), ([1.0], ["a"], []), ([1.0, math.nan], ["a", "b"], ["s", "s"]), ([[1.0]], ["a"], ["s"])],
)
def test_what_cannot_be_averaged_is_refused(values: list[float], raters: list[str], slides: list[str]) -> None:
    with pytest.raises(ValueError, match=r"needed|not finite"):
        crossed_mean(values, raters, slides)


def coverage(raters: int, slides: int, variances: tuple[float, float, float], missing: float, runs: int) -> float:
    rng, hits = np.random.default_rng(raters), 0
    for _ in range(runs):
        found = fit(draw(rng, raters, slides, variances), rng.random((raters, slides)) >= missing)
        hits += found.low <= 0 <= found.high
    return hits / runs


def test_the_interval_covers_about_as_often_as_it_says() -> None:
    assert 0.86 <= coverage(6, 10, (0.2, 0.1, 0.2), 0.2, 60) <= 1 - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raters", "slides", "variances"),
    [(5, 20, (0.1, 0.05, 0.2)), (10, 20, (0.1, 0.05, 0.2)), (10, 20, (0.05, 0.1, 0.2))],
)
def test_coverage_with_missing_cells(raters: int, slides: int, variances: tuple[float, float, float]) -> None:
    # Three standard errors of 700 runs beside the 93 to 97 % that are wanted.
    assert 0.925 <= coverage(raters, slides, variances, 0.2, 700) <= 0.985
