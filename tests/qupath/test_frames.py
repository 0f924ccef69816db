"""Objects between frames, in the order of a hierarchy, and what nobody has touched."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import affinity

from tests.qupath.strategies import object_lists
from wsi_pipeline.errors import ProjectError
from wsi_pipeline.objects import META_RUN, Kind, PathObject, Roi
from wsi_pipeline.qupath.affine import invert
from wsi_pipeline.qupath.frames import depth_first, moved, plan_replacement
from wsi_pipeline.qupath.protocol import IDENTITY, Affine
from wsi_pipeline.qupath.shapes import same_region

TURN: Affine = (0.0, 1.0, -1.0, 0.0, 0.0, 200.0)
SLANT: Affine = (0.8, -0.6, 0.6, 0.8, 3.0, 4.0)


def _id(number: int) -> str:
    return str(uuid.UUID(int=number))


def _object(number: int, parent: int | None = None, **more: object) -> PathObject:
    item = PathObject(
        uuid=_id(number),
        kind=Kind.ANNOTATION,
        geometry=shapely.box(10 * number, 0, 10 * number + 9, 9),
        path_class="Tumor",
        measurements={"p": 0.5},
        metadata={META_RUN: "run"},
        parent=None if parent is None else _id(parent),
    )
    return replace(item, **more)  # type: ignore[arg-type]


@given(object_lists, st.sampled_from([IDENTITY, TURN, SLANT, (2.0, 0.0, 0.0, 2.0, 5.0, 0.0)]))
def test_objects_come_back_from_another_frame(objects: list[PathObject], affine: Affine) -> None:
    there = moved(objects, affine)
    back = moved(there, invert(affine))
    for before, away, after in zip(objects, there, back, strict=True):
        assert before.geometry is not None
        assert same_region(affinity.affine_transform(before.geometry, affine), away.geometry, 1e-6)
        assert same_region(before.geometry, after.geometry, 1e-6)
        assert same_region(before.nucleus, after.nucleus, 1e-6)
        assert (
            replace(after, geometry=None, nucleus=None, roi=None, nucleus_roi=None, measurements={})
            == replace(before, geometry=None, nucleus=None, roi=None, nucleus_roi=None, measurements={})
            or before.class_probability != before.class_probability
        )


def test_a_rectangle_stays_one_along_the_axes_and_becomes_a_polygon_when_it_slants() -> None:
    box = [_object(1, roi=Roi.RECTANGLE)]
    assert moved(box, TURN)[0].roi is Roi.RECTANGLE
    assert moved(box, SLANT)[0].roi is None
    assert moved(box, IDENTITY)[0] is box[0]
    assert moved([_object(1, geometry=None)], TURN)[0].geometry is None


def test_children_follow_their_parents_and_siblings_keep_their_order() -> None:
    shuffled = [_object(4, 2), _object(1), _object(3, 1), _object(2, 1), _object(5)]
    assert [o.uuid for o in depth_first(shuffled, "a")] == [_id(n) for n in (1, 3, 2, 4, 5)]


@given(object_lists)
def test_what_is_in_order_stays_in_order(objects: list[PathObject]) -> None:
    assert depth_first(objects, "a") == objects


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ([_object(1), _object(1)], "two objects"),
        ([_object(1, 7)], "which is not there"),
        ([_object(1, 2), _object(2, 1)], "ring"),
        ([_object(n, n - 1 if n > 1 else None) for n in range(1, 103)], "100 deep"),
    ],
)
def test_a_hierarchy_that_qupath_could_not_keep_is_refused(objects: list[PathObject], says: str) -> None:
    with pytest.raises(ProjectError, match=f"slide a: .*{says}"):
        depth_first(objects, "slide a")


def test_predictions_make_room_and_what_a_person_touched_stays() -> None:
    handed_out = [_object(n) for n in range(1, 9)]
    moved_by_hand = affinity.translate(shapely.box(20, 0, 29, 9), 0.5, 0)
    now = [
        _object(1),
        _object(2, geometry=moved_by_hand, measurements={}),
        _object(3, path_class="Stroma"),
        _object(4, name="look"),
        _object(5, locked=True),
        _object(6, measurements={}),
        _object(7, metadata={META_RUN: "run", "ANNOTATION_DESCRIPTION": "necrosis?"}),
        # Number 8 was deleted; 20 was drawn by a person, 21 is of another run.
        _object(20, metadata={}),
        _object(21, metadata={META_RUN: "other"}),
    ]
    incoming = [_object(8), _object(30, metadata={META_RUN: "new"}), _object(2)]
    change = plan_replacement(now, "run", incoming, handed_out)
    assert change.going == {_id(1)}
    assert change.kept == 6
    assert [o.uuid for o in change.new] == [_id(30)]


def test_a_small_edit_of_a_long_outline_counts() -> None:
    long = shapely.box(0, 0, 10_000, 10_000)
    nicked = long.difference(shapely.box(0, 100, 0.5, 101))
    change = plan_replacement([_object(1, geometry=nicked)], "run", [], [_object(1, geometry=long)])
    assert (change.going, change.kept) == (set(), 1)


def test_the_rounding_of_the_file_is_no_edit() -> None:
    shape = shapely.Polygon([(100_000.004, 7.3), (100_010.013, 7.31), (100_005.5, 19.999)])
    stored = shapely.transform(shape, lambda c: c.astype("float32").astype("float64"))
    change = plan_replacement([_object(1, geometry=stored)], "run", [], [_object(1, geometry=shape)])
    assert change.going == {_id(1)}


def test_a_prediction_in_which_a_person_drew_stays() -> None:
    inside = _object(2, 1, metadata={}, geometry=shapely.box(11, 1, 12, 2))
    change = plan_replacement([_object(1), inside], "run", [], [_object(1)])
    assert (change.going, change.kept) == (set(), 1)


def test_what_comes_in_as_it_stands_there_changes_nothing() -> None:
    objects = [_object(1), _object(2)]
    change = plan_replacement(objects, "run", objects, objects)
    assert (change.going, change.new, change.kept) == (set(), [], 0)


def test_an_object_that_was_never_handed_out_stays() -> None:
    change = plan_replacement([_object(1)], "run", [_object(9)], [])
    assert (change.going, change.kept) == (set(), 1)
    assert [o.uuid for o in change.new] == [_id(9)]
