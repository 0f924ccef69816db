"""The plan of a study: everybody gets what they should, arms and order are balanced, and what was planned stays."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wsi_pipeline.config import Arm, Handout, Planted
from wsi_pipeline.handout import Design, PlannedSlide, StudyBatch
from wsi_pipeline.handout.study import batches_of

BOTH: tuple[Arm, ...] = ("assisted", "manual")
STRATA = st.sampled_from(["", "A | little", "A | much", "B | nothing"])
COHORTS = st.dictionaries(st.integers(0, 500), STRATA, min_size=1, max_size=60).map(
    lambda found: [PlannedSlide(f"s{i}", stratum) for i, stratum in found.items()]
)
RATERS = st.integers(1, 4).map(lambda n: tuple(f"r{i}" for i in range(n)))


def design(raters: tuple[str, ...] = ("anna", "ben"), **values: object) -> Design:
    return Design.of(Handout.model_validate({"raters": raters, "arms": BOTH, **values}))


def cases(batches: list[StudyBatch], rater: str) -> list[tuple[str, str]]:
    return [(c.slide_id, c.arm) for b in batches if b.rater == rater for c in b.cases if not c.repeat]


@given(COHORTS, RATERS, st.integers(0, 99), st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_in_a_crossover_each_rater_sees_each_slide_once_in_each_arm(
    slides: list[PlannedSlide], raters: tuple[str, ...], seed: int, size: int
) -> None:
    batches = batches_of(design(raters, seed=seed), slides, size)
    for rater in raters:
        assert sorted(cases(batches, rater)) == sorted((s.slide_id, arm) for s in slides for arm in BOTH)
        positions = [c.position for b in batches if b.rater == rater for c in b.cases]
        assert positions == list(range(1, 2 * len(slides) + 1))
    assert all(1 <= len(b.cases) <= size for b in batches)
    assert len({b.name for b in batches}) == len({b.project for b in batches}) == len(batches)


@given(COHORTS, RATERS, st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_arms_are_balanced_by_rater_period_and_position(
    slides: list[PlannedSlide], raters: tuple[str, ...], seed: int
) -> None:
    batches = batches_of(design(raters, seed=seed), slides, 200)
    for batch in batches:
        arms = [c.arm for c in batch.cases]
        for end in range(1, len(arms) + 1):
            assert abs(arms[:end].count("assisted") - arms[:end].count("manual")) <= 1
    first = {(b.rater, c.slide_id): c.arm for b in batches if not b.after for c in b.cases}
    for a, b in itertools.pairwise(raters):
        assert all(first[a, s.slide_id] != first[b, s.slide_id] for s in slides), "neighbours begin with opposite arms"
    for stratum in {s.stratum for s in slides}:
        held = Counter(first[raters[0], s.slide_id] for s in slides if s.stratum == stratum)
        assert abs(held["assisted"] - held["manual"]) <= 1


@given(COHORTS, RATERS)
@settings(deadline=None, max_examples=40)
def test_a_second_reading_waits_for_every_first_one(slides: list[PlannedSlide], raters: tuple[str, ...]) -> None:
    batches = batches_of(design(raters, repeats=0.2), slides, 7)
    seen: dict[str, dict[str, str]] = {}
    for batch in batches:
        own = seen.setdefault(batch.rater, {})
        for case in batch.cases:
            if case.slide_id in own:
                assert own[case.slide_id] in batch.after
                assert batch.washout_days == 14
            own.setdefault(case.slide_id, batch.name)


@given(COHORTS, RATERS)
@settings(deadline=None, max_examples=40)
def test_parallel_gives_one_arm_and_divided_one_rater(slides: list[PlannedSlide], raters: tuple[str, ...]) -> None:
    ids = sorted(s.slide_id for s in slides)
    parallel = batches_of(design(raters, design="parallel"), slides, 200)
    assert all(sorted(s for s, _ in cases(parallel, rater)) == ids for rater in raters)
    divided = batches_of(design(raters, design="divided"), slides, 200)
    assert sorted(s for rater in raters for s, _ in cases(divided, rater)) == ids
    sizes = [len(cases(divided, rater)) for rater in raters]
    assert max(sizes) - min(sizes) <= 1


@given(COHORTS, COHORTS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_a_cohort_that_grows_leaves_what_was_planned_and_its_order_does_not_matter(
    slides: list[PlannedSlide], more: list[PlannedSlide], rng: object
) -> None:
    first = batches_of(design(), slides, 9)
    shuffled = list(slides)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert batches_of(design(), shuffled, 9) == first
    assert batches_of(design(), slides, 9, first) == []
    new = [s for s in more if s.slide_id not in {x.slide_id for x in slides}]
    later = batches_of(design(), [*slides, *more], 9, first)
    assert {c.slide_id for b in later for c in b.cases} == {s.slide_id for s in new}
    assert len({b.name for b in [*first, *later]}) == len(first) + len(later)
    for rater in ("anna", "ben"):
        positions = [c.position for b in [*first, *later] if b.rater == rater for c in b.cases]
        assert positions == list(range(1, len(positions) + 1))


def test_repeats_have_the_arm_of_the_first_reading_and_every_stratum_has_its_share() -> None:
    slides = [PlannedSlide(f"s{i}", "AB"[i % 2]) for i in range(40)]
    batches = batches_of(design(repeats=0.25), slides, 200)
    first = {c.slide_id: c.arm for b in batches if b.rater == "anna" and not b.after for c in b.cases}
    again = [c for b in batches if b.rater == "anna" for c in b.cases if c.repeat]
    assert len(again) == 10
    assert all(c.arm == first[c.slide_id] for c in again)
    assert Counter(int(c.slide_id[1:]) % 2 for c in again) == {0: 5, 1: 5}


def test_errors_are_planted_only_when_asked_for_and_never_in_the_manual_arm() -> None:
    slides = [PlannedSlide(f"s{i}") for i in range(100)]
    plain = [c for b in batches_of(design(), slides, 200) for c in b.cases]
    assert all(c.planted is None and c.name is None for c in plain)
    found = [c for b in batches_of(design(planted={"share": 0.2}), slides, 200) for c in b.cases]
    planted = [c for c in found if c.planted is not None]
    assert 20 <= len(planted) <= 60
    assert {c.arm for c in planted} == {"assisted"}
    assert {c.planted for c in planted} == set(Planted().kinds)


def test_masked_names_are_given_in_the_order_of_reading() -> None:
    batches = batches_of(design(blind=True), [PlannedSlide(f"s{i}") for i in range(5)], 3)
    names = [c.name for b in batches if b.rater == "ben" for c in b.cases]
    assert names == [f"case-{i:04d}" for i in range(1, 11)]


def test_the_first_batch_of_a_single_rater_is_the_plain_project() -> None:
    batches = batches_of(design(("anna",)), [PlannedSlide(f"s{i}") for i in range(5)], 3)
    assert [b.project.split("/")[:-1] for b in batches][:2] == [["project"], ["projects", "batch-2-anna"]]


@pytest.mark.parametrize(
    "raw",
    [
        {"rater": "a", "raters": ["b"]},
        {"raters": ["a", "A"]},
        {"raters": ["../a"]},
        {"arms": ["manual"]},
        {"blind": True},
        {"raters": ["a"], "arms": []},
        {"raters": ["a"], "batch_size": 201},
        {"raters": ["a"], "planted": {"share": 0.1, "kinds": ["typo"]}},
    ],
)
def test_a_study_that_cannot_be_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Handout.model_validate(raw)
