"""Flags against where something was changed: hand-made tables, loops, and simulated audits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from wsi_pipeline.measures.flags import (
    EARLY,
    FlagQuality,
    Floats,
    Reference,
    audited_recall,
    exact_interval,
    found_early,
    is_changed,
    judge_flags,
)

few = settings(max_examples=30, deadline=None)


def judged(flagged: list[int], score: list[float], area: list[float], slides: list[str] | None = None) -> FlagQuality:
    size = np.array(area)
    return judge_flags(
        flagged=np.array(flagged, bool),
        score=np.array(score),
        area=size,
        changed=size > 0,
        slides=np.array(slides or ["s"] * len(area)),
    )


def test_a_table_done_by_hand() -> None:
    found = judged([1, 1, 0, 0, 0], [5, 4, 3, 2, 1], [30.0, 0, 10, 0, 60])
    assert (found.flagged, found.changed, found.changed_area) == (2, 3, 100.0)
    assert found.precision == 0.5
    assert found.recall == pytest.approx(1 / 3)
    assert found.area_recall == pytest.approx(0.3)
    # A tenth of five tiles is half of the first one.
    assert found.early == pytest.approx(0.15)
    assert found.early_best == pytest.approx(0.3)
    assert found.early_random == EARLY
    assert found.precision_interval is None
    assert found.reference is Reference.CHANGED
    assert found.to_json()["reference"] == "changed by the reviewer"


def test_where_nothing_was_changed_recall_is_not_defined() -> None:
    found = judged([1, 0], [2, 1], [0.0, 0.0])
    assert (found.precision, found.recall, found.area_recall, found.early, found.early_best) == (
        0,
        None,
        None,
        None,
        None,
    )
    assert judged([0, 0], [2, 1], [1.0, 0.0]).precision is None


@given(seed=st.integers(0, 10_000), n=st.integers(10, 80))
@few
def test_no_order_finds_more_than_the_best_one_and_ties_are_random(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    area, score = rng.random(n) * (rng.random(n) < 0.4), rng.integers(0, 4, n).astype(float)
    one = np.ones(n)
    found, best = found_early(score, area, one), found_early(area, area, one)
    if found is None or best is None:
        assert not area.any()
        return
    assert found <= best + 1e-12
    assert found_early(np.zeros(n), area, one) == pytest.approx(EARLY)
    order = rng.permutation(n)
    assert found_early(score[order], area[order], one) == pytest.approx(found)


def brute_early(score: Floats, area: Floats) -> float:
    """Without ties, tile by tile."""
    left, total = EARLY * len(area), 0.0
    for index in np.argsort(-score):
        part = min(1.0, left)
        total += part * area[index]
        left -= part
    return total / float(area.sum())


@given(seed=st.integers(0, 10_000), n=st.integers(1, 60))
@few
def test_the_first_tenth_is_that_of_a_loop(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    area, score = 0.1 + rng.random(n), rng.permutation(n).astype(float)
    assert found_early(score, area, np.ones(n)) == pytest.approx(brute_early(score, area))


def test_intervals_come_from_slides() -> None:
    rng = np.random.default_rng(1)
    slides = [f"s{i % 8}" for i in range(400)]
    area = (rng.random(400) * (rng.random(400) < 0.3)).tolist()
    score = [a + 0.2 * rng.random() for a in area]
    found = judged([int(s > 0.3) for s in score], score, area, slides)
    for value, interval in (
        (found.precision, found.precision_interval),
        (found.recall, found.recall_interval),
        (found.area_recall, found.area_recall_interval),
        (found.early, found.early_interval),
    ):
        assert value is not None
        assert interval is not None
        assert 0 <= interval[0] <= value <= interval[1] <= 1
    assert found.slides == 8


def test_a_tile_counts_as_changed_from_a_hundredth_of_its_tissue_on() -> None:
    found = is_changed(np.array([0.0, 0.9, 1.0, 0.0]), np.array([100.0, 100.0, 100.0, 0.0]))
    assert found.tolist() == [False, False, True, False]


def test_an_audit_done_by_hand() -> None:
    # 2 flagged (1 changed), 8 not, of which 4 were drawn: 1 of them changed.
    flagged = np.array([1, 1] + [0] * 8, bool)
    audited = np.array([0, 0, 1, 1, 1, 1, 0, 0, 0, 0], bool)
    changed = np.array([1, 0, 1, 0, 0, 0, 1, 1, 1, 1], bool)
    found = audited_recall(flagged=flagged, audited=audited, chance=np.full(10, 0.5), changed=changed)
    assert found is not None
    # What was not drawn is not looked at, changed or not.
    assert (found.flagged_changed, found.unflagged, found.audited, found.audited_changed) == (1, 8, 4, 1)
    assert found.missed == 2.0
    assert found.recall == pytest.approx(1 / 3)
    assert found.interval[0] < 1 / 3 < found.interval[1]


def test_an_audit_that_found_nothing_still_says_how_much_may_be_missed() -> None:
    flagged, audited = np.array([1] * 5 + [0] * 59, bool), np.array([0] * 5 + [1] * 59, bool)
    changed = flagged.copy()
    found = audited_recall(flagged=flagged, audited=audited, chance=np.ones(64), changed=changed)
    assert found is not None
    assert (found.recall, found.interval[1]) == (1.0, 1.0)
    most = 59 * (1 - 0.025 ** (1 / 59))
    assert found.interval[0] == pytest.approx(5 / (5 + most))


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (1, 59)])
def test_the_interval_of_a_share_is_that_of_binomial_tails(hits: int, n: int) -> None:
    low, high = exact_interval(hits / n, n)
    assert low == 0 if hits == 0 else binom.sf(hits - 1, n, low) == pytest.approx(0.025)
    assert high == 1 if hits == n else binom.cdf(hits, n, high) == pytest.approx(0.025)


def test_audits_with_unequal_chances_are_unbiased_and_their_intervals_cover() -> None:
    rng = np.random.default_rng(7)
    n, per_slide, drawn = 20, np.array([20, 60, 200] * 7)[:20], 6
    slide = np.repeat(np.arange(n), per_slide)
    # Large slides have more that is wrong: an audit without weights would miss that.
    changed = rng.random(len(slide)) < np.array([0.02, 0.1, 0.3] * 7)[:20][slide]
    flagged = changed & (rng.random(len(slide)) < 0.6)
    true = flagged.sum() / changed.sum()
    recalls, inside = [], []
    for _ in range(300):
        audited, chance = np.zeros(len(slide), bool), np.ones(len(slide))
        for s in range(n):
            rest = np.flatnonzero((slide == s) & ~flagged)
            audited[rng.permutation(rest)[:drawn]] = True
            chance[rest] = min(1.0, drawn / len(rest))
        found = audited_recall(flagged=flagged, audited=audited, chance=chance, changed=changed)
        assert found is not None
        assert found.recall is not None
        recalls.append(found.missed)
        inside.append(found.interval[0] <= true <= found.interval[1])
    assert np.mean(recalls) == pytest.approx((changed & ~flagged).sum(), rel=0.05)
    assert np.mean(inside) >= 0.93


def test_no_audit_is_no_estimate_and_a_wrong_one_is_refused() -> None:
    no, yes = np.zeros(3, bool), np.ones(3, bool)
    assert audited_recall(flagged=yes, audited=no, chance=np.ones(3), changed=no) is None
    with pytest.raises(ValueError, match="not"):
        audited_recall(flagged=yes, audited=yes, chance=np.ones(3), changed=no)
    with pytest.raises(ValueError, match="no chance"):
        audited_recall(flagged=no, audited=yes, chance=np.zeros(3), changed=no)


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        judged([1], [1.0, 2.0], [1.0, 2.0])
