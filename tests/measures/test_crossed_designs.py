"""Crossed random effects against the analysis of variance, a plain likelihood, and simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import t as student

from wsi_pipeline.measures.arms import Arm, Layout, Reading, crossed_design, paired_design, pairs_of
from wsi_pipeline.measures.crossed import Design, crossed_mean, fit, indicator, spare_rank

Floats = NDArray[np.float64]


def complete(raters: int, slides: int) -> tuple[list[int], list[int]]:
    return [i for i in range(raters) for _ in range(slides)], list(range(slides)) * raters


def table(raters: int, slides: int, rater_sd: float, slide_sd: float, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.3, (raters, slides))
    return noise + rng.normal(0, rater_sd, (raters, 1)) + rng.normal(0, slide_sd, (1, slides))


def mean_squares(y: Floats) -> tuple[float, float, float]:
    raters, slides = y.shape
    by_rater, by_slide = y.mean(axis=1), y.mean(axis=0)
    rest = y - by_rater[:, None] - by_slide + y.mean()
    return (
        float(slides * by_rater.var(ddof=1)),
        float(raters * by_slide.var(ddof=1)),
        float((rest**2).sum() / ((raters - 1) * (slides - 1))),
    )


@pytest.mark.parametrize("seed", range(5))
def test_complete_cells_give_the_analysis_of_variance(seed: int) -> None:
    y = table(6, 9, 0.5, 0.7, seed)
    rater, slide, rest = mean_squares(y)
    found = crossed_mean(y.ravel(), *complete(6, 9))
    assert found.rest_variance == pytest.approx(rest, rel=1e-6)
    assert found.rater_variance == pytest.approx((rater - rest) / 9, rel=1e-6)
    assert found.slide_variance == pytest.approx((slide - rest) / 6, rel=1e-6)
    assert found.se == pytest.approx(np.sqrt((rater + slide - rest) / 54), rel=1e-6)
    assert found.df == 5
    assert found.high - found.mean == pytest.approx(student.ppf(0.975, 5) * found.se)


def test_degrees_of_freedom_are_those_of_satterthwaite_for_mean_squares() -> None:
    y = table(6, 9, 0.5, 0.7, 3)
    rater, slide, rest = mean_squares(y)
    rows = complete(6, 9)
    design = Design(np.ones((54, 1)), np.ones(1), (indicator(rows[0]), indicator(rows[1])))
    expected = (rater + slide - rest) ** 2 / (rater**2 / 5 + slide**2 / 8 + rest**2 / 40)
    assert fit(design, y.ravel()).df[0] == pytest.approx(expected, rel=1e-5)


def test_few_raters_have_the_interval_of_the_slides_means() -> None:
    y = table(3, 12, 1.0, 0.5, 0)
    found = crossed_mean(y.ravel(), *complete(3, 12))
    of_slides = y.mean(axis=0)
    assert found.mean == pytest.approx(y.mean())
    assert found.se == pytest.approx(of_slides.std(ddof=1) / np.sqrt(12), rel=1e-6)
    assert found.df == 11
    assert "for these 3 raters only" in found.note
    assert np.isnan(found.rater_variance)


def likelihood(variances: Floats, y: Floats, rater: Floats, slide: Floats) -> float:
    """-2 log REML of a mean, from the whole covariance matrix."""
    v = variances[0] * rater @ rater.T + variances[1] * slide @ slide.T + variances[2] * np.eye(len(y))
    inverse = np.linalg.inv(v)
    weight = float(inverse.sum())
    residual = y - float(inverse.sum(axis=0) @ y) / weight
    return float(np.linalg.slogdet(v)[1] + np.log(weight) + residual @ inverse @ residual)


@pytest.mark.parametrize("seed", range(12))
def test_missing_cells_give_the_optimum_of_the_whole_likelihood(seed: int) -> None:
    rng = np.random.default_rng(seed)
    raters, slides = (np.array(names) for names in complete(5, 8))
    kept = rng.random(40) > 0.25
    y = table(5, 8, rng.choice([0, 0.1, 1]), rng.choice([0, 0.1, 1]), seed).ravel()[kept]
    rater, slide = indicator(raters[kept].tolist()), indicator(slides[kept].tolist())
    found = fit(Design(np.ones((len(y), 1)), np.ones(1), (rater, slide)), y).variances[0]
    starts = [(0.3, 0.3, 0.3), (0.01, 1.0, 0.3), (1.0, 0.01, 0.3), (0.01, 0.01, 0.3)]

    def loss(roots: Floats) -> float:
        return likelihood(roots**2 + np.array([0, 0, 1e-9]), y, rater, slide)

    best = min(float(minimize(loss, np.array(start), method="L-BFGS-B").fun) for start in starts)
    assert likelihood(found, y, rater, slide) <= best + 1e-3


@settings(max_examples=30, deadline=None)
@given(
    shift=st.floats(-5, 5), scale=st.floats(0.01, 100), seed=st.integers(0, 1000), slide_sd=st.sampled_from([0.0, 0.5])
)
def test_shifts_and_scales_pass_through(shift: float, scale: float, seed: int, slide_sd: float) -> None:
    y = table(5, 6, 0.4, slide_sd, seed).ravel()
    one, other = (crossed_mean(values, *complete(5, 6)) for values in (y, shift + scale * y))
    assert other.mean == pytest.approx(shift + scale * one.mean, abs=1e-6 * scale + 1e-9)
    assert other.se == pytest.approx(scale * one.se, rel=1e-4)


def test_many_vectors_are_fitted_as_each_alone() -> None:
    rows = complete(5, 7)
    design = Design(np.ones((35, 1)), np.ones(1), (indicator(rows[0]), indicator(rows[1])))
    ys = np.stack([table(5, 7, 0.3, 0.1, seed).ravel() for seed in range(6)])
    together = fit(design, ys)
    for k, y in enumerate(ys):
        alone = fit(design, y)
        assert together.se[k] == pytest.approx(alone.se[0])
        assert together.df[k] == pytest.approx(alone.df[0])


def test_equal_values_have_no_variance() -> None:
    found = crossed_mean([2.0] * 30, *complete(5, 6))
    assert (found.mean, found.low, found.high, found.se) == (2.0, 2.0, 2.0, 0.0)


def test_one_slide_has_no_interval_but_a_mean() -> None:
    found = crossed_mean([1.0, 2.0], ["a", "b"], ["s", "s"])
    assert found.mean == 1.5
    assert np.isnan(found.low)
    assert "at least two slides" in found.note


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [1.0]])
def test_what_cannot_be_averaged_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="value"):
        crossed_mean(values, ["a", "b"] if values else [], ["s", "t"] if values else [])


def test_a_contrast_that_other_effects_hide_is_refused() -> None:
    arm = np.array([0.5, 0.5, -0.5, -0.5])
    design = Design(np.column_stack([indicator(list("aabb")), arm]), np.array([0, 0, 1.0]), ())
    assert not design.estimable
    with pytest.raises(ValueError, match="cannot be told"):
        fit(design, np.arange(4.0))


def readings(raters: int, slides: int, arms: Callable[[int, int], Sequence[Arm]]) -> list[Reading]:
    return [Reading(f"r{i}", f"s{j}", arm, 1.0) for i in range(raters) for j in range(slides) for arm in arms(i, j)]


def alternating(first: int, second: int) -> Arm:
    return Arm.MANUAL if (first + second) % 2 == 0 else Arm.ASSISTED


@pytest.mark.parametrize("raters", [5, 6, 10])
def test_degrees_are_never_fewer_than_what_raters_differences_leave(raters: int) -> None:
    """By hand: n raters have n - 1 differences; one of them is one of slides too, or of arms, in two of the layouts."""
    paired = paired_design(pairs_of(readings(raters, 12, lambda i, j: list(Arm))))
    assert paired.min_df == raters - 1
    # Two groups of raters take turns: how the groups differ in the arm's effect cannot be told from how even and odd
    # slides differ in their level.
    crossover = crossed_design(readings(raters, 12, lambda i, j: [alternating(i, j)]), Layout.CROSSOVER)
    assert crossover.min_df == raters - 2
    own_slides = crossed_design(readings(raters, 12, lambda i, j: [alternating(j, 0)]), Layout.PARALLEL_SLIDES)
    assert own_slides.min_df == raters - 1
    own_arm = crossed_design(readings(raters, 12, lambda i, j: [alternating(i, 0)]), Layout.PARALLEL_RATERS)
    assert own_arm.min_df == raters - 2


def test_a_third_pattern_of_turns_gives_the_lost_degree_back() -> None:
    def in_thirds(i: int, j: int) -> list[Arm]:
        return [alternating(j // (1 + i % 3), 0)]

    assert crossed_design(readings(6, 12, in_thirds), Layout.CROSSOVER).min_df == 5


def test_in_a_crossover_of_two_groups_the_degrees_are_those_of_the_groups_own_variances() -> None:
    """Raters alone vary, so that all is in their own effects: these leave 2 + 1 differences within the groups."""
    rows = readings(5, 40, lambda i, j: [alternating(i, j)])
    rng = np.random.default_rng(0)
    effect = rng.normal(0, 1, 5)
    values = np.array([(0.5 if r.arm is Arm.ASSISTED else -0.5) * effect[int(r.rater[1:])] for r in rows])
    found = fit(crossed_design(rows, Layout.CROSSOVER), values + rng.normal(0, 0.001, len(rows)))
    assert found.df[0] == pytest.approx(3, abs=0.05)
    groups = effect[::2], effect[1::2]
    pooled = sum(((g - g.mean()) ** 2).sum() for g in groups) / 3
    assert found.estimate[0] == pytest.approx(np.mean([g.mean() for g in groups]), abs=0.001)
    assert found.se[0] == pytest.approx(np.sqrt(pooled * (1 / 3 + 1 / 2) / 4), rel=0.01)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 1000))
def test_what_is_left_of_columns_is_the_rank_that_they_add(columns: int, fixed: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(20, fixed))
    x[:, -1] = x[:, 0]
    z = rng.normal(size=(20, columns))
    z[:, 0] = x[:, 0] + (x[:, 1] if fixed > 2 else 0)
    both = int(np.linalg.matrix_rank(np.hstack([x, z])))
    assert spare_rank(z, x) == both - int(np.linalg.matrix_rank(x)) == columns - 1
