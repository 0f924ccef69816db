"""Matching, quality and harm on boxes that can be counted by hand."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.study.answers import all_harmed, all_quality, at_place, ious, match, not_opened, quality
from tests.study.builder import Draft, box, log
from wsi_pipeline.measures.time_sources.exact import Box, Item

ME = "Participant_1"


def item(corners: Box, label: str | None = "1", image: str = "a", *, deleted: bool = False) -> Item:
    return Item(image, label, corners, "p", 0, "p", 0, f"{image}{corners}{label}", deleted)


def wide(x: float, width: float = 10.0) -> Box:
    """A box of height 10 from x on: overlaps are those of intervals."""
    return (x, 0.0, x + width, 10.0)


CORNERS = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)).map(
    lambda c: (float(min(c[0], c[2])), float(min(c[1], c[3])), float(max(c[0], c[2])), float(max(c[1], c[3])))
)


@given(st.lists(CORNERS, max_size=4), st.lists(CORNERS, max_size=4))
def test_iou_is_the_one_of_polygons(a: list[Box], b: list[Box]) -> None:
    found = ious([item(corners) for corners in a], [item(corners) for corners in b])
    assert found.shape == (len(a), len(b))
    for i, j in np.ndindex(found.shape):
        one, other = shapely.box(*a[i]), shapely.box(*b[j])
        union = one.area + other.area - one.intersection(other).area
        assert found[i, j] == pytest.approx(one.intersection(other).area / union if union else 0.0)


@given(st.lists(CORNERS, max_size=4), st.lists(CORNERS, max_size=4))
def test_matching_has_as_many_pairs_as_possible_and_then_the_most_overlap(a: list[Box], b: list[Box]) -> None:
    mine, theirs = [item(corners) for corners in a], [item(corners) for corners in b]
    found, iou = match(mine, theirs), ious(mine, theirs)
    edges = [(i, j) for i, j in np.ndindex(iou.shape) if iou[i, j] >= 0.5]
    best = (0, 0.0)
    for count in range(1, min(len(a), len(b)) + 1):
        for chosen in combinations(edges, count):
            if len({i for i, _ in chosen}) == len({j for _, j in chosen}) == count:
                best = max(best, (count, sum(float(iou[edge]) for edge in chosen)))
    assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found)
    assert (len(found), sum(float(iou[pair]) for pair in found)) == pytest.approx(best)


def test_half_is_enough_and_a_box_has_one_partner() -> None:
    assert match([item(wide(0, 10))], [item(wide(0, 20))]) == [(0, 0)]
    assert match([item(wide(0, 10))], [item(wide(0, 20.01))]) == []
    # The best single overlap would leave the second box alone: 0-0 has 0.9, but 0-1 and 1-0 are two pairs.
    mine, theirs = [item(wide(0)), item(wide(3))], [item(wide(0.5)), item(wide(-3))]
    assert match(mine, theirs) == [(0, 1), (1, 0)]


def test_quality_is_pooled_over_opened_images() -> None:
    truth = [item(wide(0)), item(wide(50)), item(wide(100), deleted=True), item(wide(0), image="b"), item(wide(9), "3")]
    found = [
        item(wide(0)),
        item(wide(1)),  # a second box on the same object
        item(wide(50), "2"),  # another class
        item(wide(100)),  # deleted in the truth
        item(wide(9), "3", deleted=True),
        item(wide(0), image="c"),  # no image that counts
    ]
    assert quality(found, truth, {"a"}) == {
        "precision": 2 / 4,
        "recall": 2 / 3,
        "f1": 4 / 7,
        "f1_class": 2 / 7,
        "boxes": 4,
        "truth": 3,
        "matched": 2,
        "matched_class": 1,
    }
    assert quality(found, truth, {"a", "b"})["recall"] == 2 / 4


def test_boxes_without_class_count_without_classes_only() -> None:
    truth = [item(wide(0), None), item(wide(50)), item(wide(100))]
    found = [item(wide(0), None), item(wide(50), None), item(wide(100))]
    row = quality(found, truth, {"a"})
    assert (row["f1"], row["f1_class"]) == (1.0, 2 / 3)
    nothing = quality([item(wide(0), None)], [item(wide(0), None)], {"a"})
    assert (nothing["f1"], nothing["f1_class"]) == (1.0, None)


def test_with_classes_a_box_may_have_another_partner() -> None:
    truth, found = [item(wide(0), "1")], [item(wide(0), "2"), item(wide(2), "1")]
    assert quality(found, truth, {"a"})["matched_class"] == 1


def test_nothing_to_divide_by_is_no_zero() -> None:
    row = quality([], [], {"a"})
    assert (row["precision"], row["recall"], row["f1"], row["f1_class"]) == (None, None, None, None)
    row = quality([], [item(wide(0))], {"a"})
    assert (row["precision"], row["recall"], row["f1"]) == (None, 0.0, 0.0)


def test_places_are_of_one_image_best_first() -> None:
    place = item(wide(0))
    near = [item(wide(3)), item(wide(0), image="b"), item(wide(1)), item(wide(8))]
    assert at_place(place, near) == [near[2], near[0]]


def test_unopened_images_are_left_out_on_both_sides_and_listed(tmp_path: Path) -> None:
    draft = Draft(assisted={"1": [log("a", 0, 1), box("a", "1", uuid="s"), box("b", "1", uuid="t")]})
    draft.truth["ground_truth"] = [box("a", "1", uuid="g"), box("b", "1", (0, 0, 5, 5), uuid="h")]
    draft.truth["unchanged_1"] = [box("a", "1", uuid="s"), box("b", "1", uuid="t")]
    study = draft.read(tmp_path)
    found = all_quality(study)
    assert (found["assisted"]["1"]["f1"], found["assisted"]["1"]["truth"]) == (1.0, 1)
    assert (found["suggestions"]["f1"], found["suggestions"]["truth"]) == (0.5, 2)
    assert found["manual"]["1"]["f1"] is None
    assert not_opened(study) == {"manual": {"1": ["a", "b"]}, "assisted": {"1": ["b"]}}


def test_harm_is_done_to_right_suggestions_only(tmp_path: Path) -> None:
    names = ["keep", "drop", "redo", "swap", "wrong", "move"]
    places = {name: (40.0 * n, 0.0, 40.0 * n + 20, 20.0) for n, name in enumerate(names)}
    suggested = [box("a", "2" if name == "wrong" else "1", corners, uuid=name) for name, corners in places.items()]
    draft = Draft()
    draft.truth["ground_truth"] = [box("a", "1", corners, uuid=f"t {name}") for name, corners in places.items()]
    draft.truth["ground_truth"].append(box("never", "1", uuid="t never"))
    draft.truth["unchanged_1"] = [*suggested, box("never", "1", uuid="never")]
    draft.assisted["1"] = [
        log("a", 0, 1),
        box("a", "1", places["keep"], uuid="keep"),
        box("a", "1", places["drop"], uuid="drop", deleted=True),
        box("a", "1", places["redo"], uuid="redo", deleted=True),
        box("a", "1", places["redo"], uuid="new", by=ME),
        box("a", "3", places["swap"], uuid="swap", changed_by=ME),
        box("a", "3", places["wrong"], uuid="wrong", changed_by=ME),
        box("a", "1", (900, 0, 920, 20), uuid="move", changed_by=ME),
        box("never", "1", uuid="never", deleted=True),
    ]
    assert all_harmed(draft.read(tmp_path)) == {
        "1": {"right": 5, "harmed": 2, "rate": 2 / 5, "deleted": 1, "reclassified": 1, "moved": 1}
    }
