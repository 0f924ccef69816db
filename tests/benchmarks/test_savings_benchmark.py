"""The simulation of the saving, small: intervals cover, and only one order is biased by practice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.savings import (
    LARGE,
    LOG_RATIO,
    PRACTICE,
    SMALL,
    Scenario,
    practice,
    readings_of,
    run,
    scenarios,
    simulate,
)
from wsi_pipeline.measures.arms import Layout, layout_of

RUNS = 200


@pytest.mark.slow
@pytest.mark.parametrize("scenario", list(scenarios()), ids=lambda s: s.name)
def test_intervals_cover(scenario: Scenario) -> None:
    """Within the range that 93 to 97 % true coverage leaves one run of the test in a thousand to miss."""
    found = run(scenario, RUNS, seed=11)
    low, high = binom.ppf(0.001, RUNS, 0.93) / RUNS, binom.ppf(0.999, RUNS, 0.97) / RUNS
    assert low <= found.coverage <= high
    assert abs(found.bias) < 4 * found.bias_error


def test_only_both_orders_equally_are_without_bias() -> None:
    equal, manual_first, assisted_first = practice(RUNS)
    assert abs(equal.bias) < 4 * equal.bias_error
    assert manual_first.bias == pytest.approx(-PRACTICE, abs=4 * manual_first.bias_error)
    assert assisted_first.bias == pytest.approx(PRACTICE, abs=4 * assisted_first.bias_error)


def test_an_interval_that_forgets_the_raters_would_be_found_out() -> None:
    """The check has teeth: a t-test on all log ratios covers far too seldom where raters differ."""
    scenario = Scenario(Layout.PAIRED, 5, 20, LARGE, SMALL)
    rng = np.random.default_rng(0)
    readings = readings_of(scenario, rng)
    logs = simulate(scenario, readings, RUNS, rng).logs
    values = logs[:, 1::2] - logs[:, ::2]
    half = 1.98 * values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    covered = np.mean(np.abs(values.mean(axis=1) - LOG_RATIO) <= half)
    assert covered < binom.ppf(0.001, RUNS, 0.93) / RUNS


@pytest.mark.parametrize("scenario", list(scenarios()), ids=lambda s: s.name)
def test_scenarios_are_what_they_are_called(scenario: Scenario) -> None:
    readings = readings_of(scenario, np.random.default_rng(1))
    assert layout_of(readings) is scenario.layout
    assert len({r.rater for r in readings}) == scenario.raters
