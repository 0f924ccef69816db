"""Reliability and calibration errors against loops over bins, known models, and simulated slides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_pipeline.measures.calibration import BINS, Reliability, class_reliability, reliability
from wsi_pipeline.measures.clusters import FEWEST, percentile_interval, ratio_interval

few = settings(max_examples=25, deadline=None)


def slides_of(seed: int, slides: int, *, steeper: float = 1.0, shift: float = 0.0, cases: int = 300) -> Reliability:
    """Slides whose logits are `steeper` times too large, each with a shift of its own."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (slides, cases))
    truth = 1 / (1 + np.exp(-(z / steeper + rng.normal(0, shift, (slides, 1)))))
    stated = 1 / (1 + np.exp(-z))
    found = rng.random(z.shape) < truth
    return reliability("Tumor", stated.ravel(), found.ravel(), np.repeat(np.arange(slides), cases), seed=seed)


def by_hand(p: NDArray[np.float64], y: NDArray[np.bool_], bins: int) -> float:
    total = 0.0
    for b in range(bins):
        inside = [i for i in range(len(p)) if b / bins <= p[i] < (b + 1) / bins or (b == bins - 1 and p[i] == 1)]
        if inside:
            total += abs(sum(p[i] for i in inside) - sum(bool(y[i]) for i in inside))
    return total / len(p)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), bins=st.sampled_from([1, 2, 4, 8, 16]))
@few
def test_the_error_is_that_of_a_loop_over_the_bins(seed: int, count: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    # Probabilities on the edges of bins, too.
    p = np.where(rng.random(count) < 0.3, rng.integers(0, 17, count) / 16, rng.random(count))
    y = rng.random(count) < p
    found = reliability("a", p, y, np.zeros(count), bins=bins)
    assert found.ece == pytest.approx(by_hand(p, y, bins))
    assert sum(b.count for b in found.bins) == found.cases == count
    for bar in found.bins:
        assert (bar.stated is None) == (bar.found is None) == (bar.count == 0)
        assert bar.stated is None or bar.low - 1e-12 <= bar.stated <= bar.high + 1e-12


def test_a_model_that_always_says_ninety_percent_and_is_right_in_half_is_forty_off() -> None:
    found = reliability("a", np.full(100, 0.9), np.arange(100) % 2 == 0, np.arange(100))
    assert found.ece == pytest.approx(0.4)
    (bar,) = [b for b in found.bins if b.count]
    assert bar.stated == pytest.approx(0.9)
    assert (bar.found, bar.count) == (0.5, 100)
    assert len(found.bins) == BINS


def test_each_class_is_held_against_the_rest() -> None:
    p = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    first, second, third = class_reliability(["a", "b", "c"], p, np.array([0, 1]), np.array(["s", "t"]))
    assert (first.ece, second.ece, third.ece) == (0.0, 0.25, 0.25)
    assert [r.name for r in (first, second, third)] == ["a", "b", "c"]


@given(seed=st.integers(0, 1000))
@few
def test_the_order_of_cases_and_the_names_of_slides_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, g = rng.random(200), rng.integers(0, 8, 200)
    y = rng.random(200) < p
    order = rng.permutation(200)
    there = reliability("a", p, y, g)
    back = reliability("a", p[order], y[order], np.array([f"slide-{n}" for n in g[order]]))
    assert there.ece == pytest.approx(back.ece)
    assert there.ece_interval == pytest.approx(back.ece_interval)


def test_with_few_slides_there_is_no_interval() -> None:
    assert slides_of(0, FEWEST - 1).ece_interval is None
    assert slides_of(0, FEWEST - 1).ece_debiased is None
    assert slides_of(0, FEWEST).ece_interval is not None


def test_of_a_calibrated_model_the_debiased_error_is_nearer_to_zero() -> None:
    found = [slides_of(seed, 10) for seed in range(20)]
    debiased = [r.ece_debiased for r in found if r.ece_debiased is not None]
    assert len(debiased) == 20
    assert np.mean(debiased) < 0.7 * np.mean([r.ece for r in found])


def test_intervals_cover_the_error_of_the_population_in_most_simulated_studies() -> None:
    # In 150 runs of four designs 81 to 95 % did; docs/confidence.md says so.
    population = slides_of(1, 4000, steeper=1.7, shift=0.4, cases=100).ece
    intervals = [slides_of(seed, 16, steeper=1.7, shift=0.4).ece_interval for seed in range(40)]
    inside = [i is not None and i[0] <= population <= i[1] for i in intervals]
    assert np.mean(inside) >= 0.75
    assert all(i is not None and i[1] - i[0] < 0.1 for i in intervals)


@pytest.mark.parametrize(
    ("p", "y", "g"), [([1.2], [True], [0]), ([math.nan], [True], [0]), ([], [], []), ([0.5], [True, False], [0])]
)
def test_what_is_no_probability_is_refused(p: list[float], y: list[bool], g: list[int]) -> None:
    with pytest.raises(ValueError, match="a: "):
        reliability("a", np.array(p), np.array(y, bool), np.array(g))


def test_json_has_the_bins_and_null_where_nothing_is() -> None:
    value = reliability("a", np.array([0.05, 0.95]), np.array([False, True]), np.array([0, 1])).to_json()
    assert value["ece_ci95"] is None
    assert value["bins"][7] == {"low": 7 / 15, "high": 8 / 15, "count": 0, "stated": None, "found": None}


def test_the_interval_of_a_ratio_is_that_of_weighing_every_case() -> None:
    rng = np.random.default_rng(3)
    part, whole, groups = rng.random(90), 1 + rng.random(90), rng.integers(0, 9, 90)
    quick = ratio_interval(part, whole, groups)
    slow = percentile_interval(lambda w: float((w * part).sum() / (w * whole).sum()), groups)
    assert quick == pytest.approx(slow)
    assert ratio_interval(part, whole, groups % 3) is None


def test_a_figure_that_is_seldom_defined_has_no_interval() -> None:
    groups = np.arange(6)
    assert percentile_interval(lambda w: 1.0 if w[0] else None, groups) is None
