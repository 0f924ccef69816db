"""The simulated pathologist: each fault provokes its gesture, and each gesture leaves what QuPath would leave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.synthetic.suggestions import (
    ALL,
    BRIDGED,
    IN_TWO,
    MISSED,
    RIGHT,
    TOO_LARGE,
    TOO_SMALL,
    WRONG,
    Fault,
    suggestion,
    suggestions_of,
    truth_of,
)
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.synthetic.pathologist import IGNORE_CLASS, Correction, Did, Habits, correct

# Never careless, and no gesture by chance: each test allows what it is about.
STRICT = Habits(overlooks=0, ignores=0, merges=0, splits=0, slivers=0, forgets_class=0)


def work(*faults: Fault, habits: Habits = STRICT, seed: int = 0) -> tuple[list[PathObject], Correction]:
    before = suggestions_of(*faults)
    truth = truth_of(*faults)
    return before, correct(before, truth, np.random.default_rng(seed), habits=habits)


def off(objects: list[PathObject], *faults: Fault) -> float:
    """Area in px² where the objects of the class and the truth disagree."""
    marked = shapely.union_all([o.geometry for o in objects if o.path_class == "Tumor"])
    return float(marked.symmetric_difference(truth_of(*faults).tumour).area)


def test_a_good_suggestion_is_left_exactly_as_it_is() -> None:
    before, (after, acts) = work(RIGHT)
    assert after == before
    assert [act.did for act in acts] == [Did.UNTOUCHED]


@pytest.mark.parametrize("fault", [TOO_LARGE, TOO_SMALL], ids=["too large", "too small"])
def test_a_brushed_object_keeps_uuid_class_and_metadata_and_loses_its_measurements(fault: Fault) -> None:
    before, (after, acts) = work(fault)
    assert [act.did for act in acts] == [Did.EDITED]
    assert acts[0].strokes > 0
    assert after[0].uuid == before[0].uuid
    assert after[0].path_class == "Tumor"
    assert after[0].metadata == before[0].metadata
    assert after[0].measurements == {}
    assert off(after, fault) < 0.2 * off(before, fault)


def test_a_wrong_suggestion_is_deleted() -> None:
    _, (after, acts) = work(WRONG)
    assert after == []
    assert [act.did for act in acts] == [Did.DELETED]


def test_a_wrong_suggestion_may_be_called_ignore_and_keeps_its_shape() -> None:
    before, (after, acts) = work(WRONG, habits=replace(STRICT, ignores=1))
    assert [act.did for act in acts] == [Did.RECLASSIFIED]
    assert after == [replace(before[0], path_class=IGNORE_CLASS)]


def test_a_wrong_suggestion_may_be_overlooked() -> None:
    before, (after, acts) = work(WRONG, habits=replace(STRICT, overlooks=1))
    assert after == before
    assert [act.did for act in acts] == [Did.UNTOUCHED]


def test_a_missed_region_is_drawn_as_a_new_object_without_metadata() -> None:
    _, (after, acts) = work(MISSED)
    assert [act.did for act in acts] == [Did.ADDED]
    assert len(after) == 1
    assert after[0].metadata == {}
    assert after[0].measurements == {}
    assert after[0].path_class == "Tumor"
    assert off(after, MISSED) < 0.05 * 300 * 300


def test_a_class_may_be_forgotten() -> None:
    _, (after, _) = work(MISSED, habits=replace(STRICT, forgets_class=1))
    assert after[0].path_class is None


def test_a_missed_region_may_stay_missed() -> None:
    _, (after, acts) = work(MISSED, habits=replace(STRICT, overlooks=1))
    assert after == []
    assert acts == []


def test_two_suggestions_of_one_region_are_merged_into_a_new_object() -> None:
    before, (after, acts) = work(IN_TWO, habits=replace(STRICT, merges=1))
    assert [act.did for act in acts] == [Did.MERGED]
    assert set(acts[0].before) == {o.uuid for o in before}
    assert len(after) == 1
    assert after[0].uuid not in acts[0].before
    assert after[0].metadata == {}
    assert off(after, IN_TWO) < 0.1 * 700 * 300


def test_two_suggestions_of_one_region_are_brushed_when_they_are_not_merged() -> None:
    before, (after, acts) = work(IN_TWO)
    assert {o.uuid for o in after} == {o.uuid for o in before}
    assert sorted(act.did for act in acts) == [Did.EDITED, Did.UNTOUCHED]
    assert off(after, IN_TWO) < 0.1 * 700 * 300


def test_a_suggestion_of_two_regions_is_split_into_new_objects() -> None:
    before, (after, acts) = work(BRIDGED, habits=replace(STRICT, splits=1))
    assert [act.did for act in acts] == [Did.SPLIT]
    assert acts[0].before == (before[0].uuid,)
    assert len(after) == 2
    assert all(o.metadata == {} and o.uuid != before[0].uuid for o in after)
    assert off(after, BRIDGED) < 0.1 * 600 * 300


def test_a_suggestion_of_two_regions_becomes_one_object_of_two_parts_when_it_is_not_split() -> None:
    before, (after, acts) = work(BRIDGED)
    assert [act.did for act in acts] == [Did.EDITED]
    assert after[0].uuid == before[0].uuid
    assert after[0].geometry is not None
    assert len(shapely.get_parts(after[0].geometry)) == 2


def test_a_stroke_that_starts_outside_makes_a_sliver_that_touches() -> None:
    before, (after, acts) = work(TOO_SMALL, habits=replace(STRICT, slivers=1))
    assert [act.did for act in acts] == [Did.UNTOUCHED, Did.ADDED]
    assert after[0] == before[0]
    assert after[1].geometry is not None
    assert before[0].geometry is not None
    assert after[1].geometry.distance(before[0].geometry) == 0
    assert off(after, TOO_SMALL) < 0.2 * off(before, TOO_SMALL)


def test_an_object_may_slip() -> None:
    before, (after, acts) = work(RIGHT, habits=replace(STRICT, slips=1))
    assert [act.did for act in acts] == [Did.MOVED]
    assert after[0].geometry is not None
    assert before[0].geometry is not None
    assert after[0].geometry.area == pytest.approx(before[0].geometry.area)
    assert after[0].geometry.distance(before[0].geometry) == 0
    assert not after[0].geometry.equals(before[0].geometry)


def test_locked_objects_other_classes_and_tiles_are_left_alone() -> None:
    truth = truth_of(MISSED)
    others = [
        suggestion(WRONG[1][0], locked=True),
        suggestion(WRONG[1][0], path_class="Stroma"),
        replace(suggestion(WRONG[1][0], path_class="Review"), kind=Kind.TILE),
    ]
    others = [replace(o, uuid=f"00000000-0000-4000-8000-00000000000{i}") for i, o in enumerate(others)]
    after, _ = correct(others, truth, np.random.default_rng(0), habits=STRICT)
    assert after[:3] == others


def test_a_rater_who_runs_out_of_patience_leaves_the_rest() -> None:
    before, truth = suggestions_of(*ALL), truth_of(*ALL)
    after, acts = correct(before, truth, np.random.default_rng(0), habits=STRICT, patience=2)
    assert sum(act.did is not Did.UNTOUCHED for act in acts) == 2
    assert off(after, *ALL) < off(before, *ALL)
    touched = {uuid for act in acts for uuid in act.before}
    assert [o for o in before if o.uuid not in touched] == [o for o in after if o in before and o.uuid not in touched]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_whatever_the_habits_lead_to_objects_are_unique_valid_and_told_in_acts(seed: int) -> None:
    habits = Habits(overlooks=0.2, ignores=0.3, merges=0.5, splits=0.5, slivers=0.5, forgets_class=0.3, slips=0.1)
    before, (after, acts) = work(*ALL, habits=habits, seed=seed)
    uuids = [o.uuid for o in after]
    assert len(set(uuids)) == len(uuids)
    assert all(o.geometry is not None and o.geometry.is_valid and o.geometry.area > 0 for o in after)
    # Every suggestion is in one act, and what the acts leave is what is there.
    told = [uuid for act in acts for uuid in act.before]
    left = [o.uuid for act in acts for o in act.after]
    assert sorted(told) == sorted(o.uuid for o in before)
    assert set(uuids) <= set(left) | {o.uuid for o in before}
    assert off(after, *ALL) < off(before, *ALL)


def test_the_same_seed_does_the_same() -> None:
    _, first = work(*ALL, habits=Habits(), seed=3)
    _, second = work(*ALL, habits=Habits(), seed=3)
    assert first == second


def test_an_image_without_suggestions_and_without_tumour_is_left_empty() -> None:
    after, acts = correct([], truth_of(WRONG), np.random.default_rng(0))
    assert (after, acts) == ([], [])
