from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.learning.made import empty_score, score, trained_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.learning.promote import FEWEST, Decision, Verdict, decide
from wsi_pipeline.learning.scores import Overlap, SlideScore
from wsi_pipeline.models.load import load_card
from wsi_pipeline.states import Source

OLD, NEW = trained_card("old"), trained_card("new")


def compare(old: Sequence[float], new: Sequence[float], groups: Sequence[str] | None = None) -> Decision:
    names = [f"s{index:02d}" for index in range(len(old))]
    of = groups or names
    return decide(
        [score(name, dice, group) for name, dice, group in zip(names, old, of, strict=True)],
        [score(name, dice, group) for name, dice, group in zip(names, new, of, strict=True)],
        old_card=OLD,
        new_card=NEW,
    )


dices = st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=0, max_size=12)


@given(pairs=dices)
def test_a_model_that_is_not_shown_to_be_better_is_never_promoted(pairs: list[tuple[float, float]]) -> None:
    decision = compare([old for old, _ in pairs], [new for _, new in pairs])
    if decision.promote:
        assert decision.groups >= FEWEST
        assert decision.difference is not None
        assert decision.low is not None
        assert decision.difference > 0
        assert decision.low > 0
        assert "should replace" in decision.reason
    else:
        assert "The old model stays" in decision.reason


@given(pairs=dices)
def test_swapping_the_models_mirrors_the_interval(pairs: list[tuple[float, float]]) -> None:
    old, new = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = compare(old, new), compare(new, old)
    assert not (there.promote and back.promote)
    if there.low is not None and back.high is not None:
        assert there.low == pytest.approx(-back.high)
    if there.verdict is Verdict.WORSE:
        assert back.verdict is Verdict.BETTER


def test_a_consistent_gain_on_enough_slides_promotes() -> None:
    decision = compare([0.6, 0.7, 0.65, 0.5, 0.72, 0.61], [0.68, 0.77, 0.75, 0.59, 0.79, 0.7])
    assert decision.promote
    assert decision.verdict is Verdict.BETTER
    assert (decision.groups, decision.improved, decision.unit) == (6, 6, "slides")
    assert decision.reason.startswith("The new model is better: mean difference in Dice +0.083 over 6 slides")
    assert (decision.old_model, decision.new_model) == ("old@000000000000", "new@000000000000")


def test_the_interval_is_students_over_the_paired_differences() -> None:
    decision = compare([0.5] * 5, [0.55, 0.60, 0.52, 0.58, 0.50])
    # mean .05, sd .0412311, t(4, .975) = 2.776445: half width .0511953
    assert decision.difference == pytest.approx(0.05)
    assert decision.low == pytest.approx(0.05 - 0.0511953, abs=1e-6)
    assert decision.high == pytest.approx(0.05 + 0.0511953, abs=1e-6)
    assert decision.verdict is Verdict.NO_DIFFERENCE
    assert "that includes zero" in decision.reason


def test_a_worse_model_is_called_worse() -> None:
    decision = compare([0.8, 0.82, 0.79, 0.81, 0.8], [0.7, 0.71, 0.7, 0.72, 0.69])
    assert decision.verdict is Verdict.WORSE
    assert decision.reason.startswith("The new model is worse")


def test_two_slides_are_too_few_however_large_the_gain() -> None:
    decision = compare([0.1, 0.2], [0.9, 0.95])
    assert decision.verdict is Verdict.TOO_FEW
    assert not decision.promote
    assert (decision.low, decision.high) == (None, None)
    assert decision.reason.startswith(
        "Too few to tell: mean difference in Dice +0.775 over 2 slides, the new model ahead in 2"
    )


def test_many_slides_of_few_patients_are_few() -> None:
    gain = [0.6 + 0.01 * index for index in range(8)]
    decision = compare([0.5] * 8, gain, groups=["p1", "p2"] * 4)
    assert (decision.groups, decision.unit, decision.verdict) == (2, "patients", Verdict.TOO_FEW)


def test_a_patient_with_many_slides_weighs_as_much_as_one_with_one() -> None:
    decision = compare([0.5] * 4, [0.7, 0.7, 0.7, 0.4], groups=["a", "a", "a", "b"])
    assert decision.difference == pytest.approx((0.2 - 0.1) / 2)


def test_slides_that_either_model_was_trained_on_do_not_count_and_are_named() -> None:
    names = [f"s{index}" for index in range(8)]
    old = [score(name, 0.5, group=f"p{name}") for name in names]
    new = [score(name, 0.9, group=f"p{name}") for name in names]
    decision = decide(
        old,
        [*new[:-1], score("elsewhere", 0.9)],
        old_card=trained_card("old", slides=["s0"]),
        new_card=trained_card("new", slides=["s1"], patients=["ps2"]),
    )
    assert decision.left_out == {
        "s0": "old@000000000000 was trained on it",
        "s1": "new@000000000000 was trained on it",
        "s2": "new@000000000000 was trained on another slide of the patient",
        "s7": "scored for one of the two models only",
        "elsewhere": "scored for one of the two models only",
    }
    assert decision.groups == 4


def test_models_of_different_classes_are_not_compared() -> None:
    baseline = load_card("baseline:stain-density")
    with pytest.raises(ModelError, match=r"finds Haematoxylin-dense, new@.* finds Tumor: only models of the same"):
        decide([score("a", 1)], [score("a", 1)], old_card=baseline, new_card=NEW)
    same_class = load_card("baseline:stain-density?class=Tumor")
    assert decide([score("a", 1)], [score("a", 1)], old_card=same_class, new_card=NEW).verdict is Verdict.TOO_FEW


def test_when_nothing_counts_it_says_so() -> None:
    decision = decide([], [score("a", 1)], old_card=OLD, new_card=NEW)
    assert decision.difference is None
    assert decision.reason.startswith("Nothing can be said")


def test_more_false_alarms_on_empty_slides_hold_a_better_model_back() -> None:
    old = [score(f"s{i}", 0.5) for i in range(6)]
    new = [score(f"s{i}", 0.6 + 0.01 * i) for i in range(6)]
    quiet = decide([*old, empty_score("e", 0)], [*new, empty_score("e", 1000)], old_card=OLD, new_card=NEW)
    loud = decide([*old, empty_score("e", 0)], [*new, empty_score("e", 50_000)], old_card=OLD, new_card=NEW)
    assert (quiet.promote, loud.promote) == (True, False)
    assert loud.verdict is Verdict.BETTER
    assert "it marks 5.0% more of their area. The old model stays." in loud.reason
    # An empty slide is no pair of Dice.
    assert quiet.groups == 6


def test_one_simulated_slide_makes_the_decision_simulated() -> None:
    made = SlideScore("x", "x", 1e6, {"Tumor": Overlap(1, 1, 1)}, Source.SIMULATED)
    assert decide([made], [made], old_card=OLD, new_card=NEW).source == "simulated"
    assert compare([0.5], [0.5]).source == "measured"


def test_a_decision_is_json() -> None:
    raw = json.loads(json.dumps(compare([0.5] * 5, [0.6] * 5).to_json()))
    assert (raw["verdict"], raw["promote"], raw["unit"]) == ("better", True, "slides")


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_without_a_difference_few_are_promoted_by_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    promoted = 0
    for _ in range(200):
        old = rng.uniform(0.4, 0.9, 6)
        new = np.clip(old + rng.normal(0, 0.05, 6), 0.01, 1)
        promoted += compare(list(old), list(new)).promote
    # 2.5 % expected; 20 of 200 has a chance of one in a million.
    assert promoted < 20
