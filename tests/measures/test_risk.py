"""Risk-coverage against closed forms and loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.measures.risk import Floats, risk_coverage

few = settings(max_examples=40, deadline=None)


def auroc(confidence: Floats, wrong: Floats) -> float:
    """Chance that a right case is surer than a wrong one, ties counted by half: over all pairs."""
    pairs = [(r, w) for r in confidence[wrong == 0] for w in confidence[wrong == 1]]
    return float(np.mean([1.0 if r > w else 0.5 if r == w else 0.0 for r, w in pairs])) if pairs else 0.5


@given(seed=st.integers(0, 10_000), n=st.integers(1, 50), levels=st.sampled_from([2, 5, 1000]))
@few
def test_augrc_is_the_closed_form_of_auroc_and_accuracy(seed: int, n: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    sure = rng.integers(0, levels, n) / levels
    wrong = (rng.random(n) < 0.4).astype(float)
    e = wrong.mean()
    found = risk_coverage(sure, wrong, np.zeros(n))
    assert found.augrc == pytest.approx(0.5 * e**2 + e * (1 - e) * (1 - auroc(sure, wrong)))
    assert found.augrc_best == pytest.approx(0.5 * e**2)
    assert found.augrc_random == pytest.approx(0.5 * e)
    assert found.mean_loss == pytest.approx(e)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 40))
@few
def test_aurc_is_the_mean_of_the_risks_of_all_prefixes(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    sure, loss = rng.permutation(n).astype(float), rng.random(n)
    found = risk_coverage(sure, loss, np.zeros(n))
    in_order = loss[np.argsort(-sure)]
    assert found.aurc == pytest.approx(np.mean([in_order[:k].mean() for k in range(1, n + 1)]))
    best = np.sort(loss)
    assert found.e_aurc == pytest.approx(found.aurc - np.mean([best[:k].mean() for k in range(1, n + 1)]), abs=1e-12)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 60))
@few
def test_only_the_order_counts_and_a_weight_is_a_number_of_copies(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    sure, loss, w = rng.integers(0, 6, n).astype(float), rng.random(n), rng.integers(1, 4, n)
    weight = w.astype(float)
    groups = rng.integers(0, 3, n)
    found = risk_coverage(sure, loss, groups, weight)
    stretched = risk_coverage(np.exp(sure), loss, groups, weight)
    copied = risk_coverage(np.repeat(sure, w), np.repeat(loss, w), np.repeat(groups, w))
    for other in (stretched, copied):
        assert other.augrc == pytest.approx(found.augrc)
        assert other.mean_loss == pytest.approx(found.mean_loss)
    assert found.augrc_best - 1e-12 <= found.augrc


def test_the_curve_ends_at_the_mean_loss_and_a_perfect_order_keeps_nothing_wrong_at_first() -> None:
    loss = np.array([0.0] * 80 + [1.0] * 20)
    found = risk_coverage(-loss - 0.001 * np.arange(100), loss, np.arange(100) % 10)
    assert found.coverage[-1] == 1.0
    assert found.selective_risk[-1] == pytest.approx(0.2)
    assert {r for c, r in zip(found.coverage, found.generalized_risk, strict=True) if c <= 0.8} == {0.0}
    assert found.e_aurc == pytest.approx(0)
    assert found.augrc_interval is not None
    assert found.augrc_interval[0] <= found.augrc <= found.augrc_interval[1]


def test_slides_make_the_interval_wider_than_cases_would() -> None:
    rng = np.random.default_rng(0)
    slide = np.repeat(np.arange(12), 50)
    loss = (rng.random(600) < rng.random(12)[slide]).astype(float)
    sure = rng.random(600)
    clustered = risk_coverage(sure, loss, slide).augrc_interval
    alone = risk_coverage(sure, loss, np.arange(600)).augrc_interval
    assert clustered is not None
    assert alone is not None
    assert clustered[1] - clustered[0] > 1.5 * (alone[1] - alone[0])


def test_long_tables_give_a_curve_of_a_hundred_points_and_json() -> None:
    n = 5000
    value = risk_coverage(np.arange(n, dtype=float), np.ones(n), np.zeros(n)).to_json()
    assert len(value["coverage"]) == len(value["generalized_risk"]) == 101
    assert value["augrc_ci95"] is None
    assert value["augrc"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("sure", "loss", "weight"),
    [([np.nan], [1.0], [1.0]), ([1.0], [-1.0], [1.0]), ([1.0], [1.0], [0.0]), ([1.0, 2.0], [1.0], [1.0])],
)
def test_what_makes_no_curve_is_refused(sure: list[float], loss: list[float], weight: list[float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        risk_coverage(np.array(sure), np.array(loss), np.zeros(len(sure)), np.array(weight))
