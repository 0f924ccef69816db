from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from tests.learning.made import CLASSES, annotation
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import ModelError
from wsi_pipeline.learning.labels import UNKNOWN, AnnotatedSlide, background_of, label_map
from wsi_pipeline.models.card import ClassSpec
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.tiling import Bounds

REF = SlideRef(slide_id="s1", uri="s1.tif", name="s1.tif", patient="p1")
THREE = (*CLASSES, ClassSpec(name="Necrosis", color=(0, 0, 0)))
FIELD = Bounds(0, 0, 32, 32)


def slide(*objects: PathObject, reviewed: Polygon | None = None) -> AnnotatedSlide:
    return AnnotatedSlide(REF, objects, reviewed)


@st.composite
def polygons_with_holes(draw: st.DrawFn) -> BaseGeometry:
    """A star-shaped polygon, perhaps with a hole, in level-0 pixels around (60, 60)."""
    count = draw(st.integers(3, 12))
    radii = np.array(draw(st.lists(st.floats(5, 50), min_size=count, max_size=count)))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + 0.1
    polygon = Polygon(np.column_stack([60 + radii * np.cos(angles), 60 + radii * np.sin(angles)]))
    if draw(st.booleans()):
        return polygon.difference(shapely.Point(60, 60).buffer(draw(st.floats(1, 20))))
    return polygon


@given(
    geometry=polygons_with_holes(),
    x=st.integers(-5, 20),
    y=st.integers(-5, 20),
    downsample=st.floats(1, 6),
)
def test_a_pixel_has_the_class_of_the_annotation_that_holds_its_centre(
    geometry: BaseGeometry, x: int, y: int, downsample: float
) -> None:
    bounds = Bounds(x, y, x + 24, y + 17)
    labels = label_map(slide(annotation("Tumor", geometry)), bounds, downsample, CLASSES)
    columns, rows = np.meshgrid(np.arange(x, x + 24), np.arange(y, y + 17))
    cx, cy = (columns + 0.5) * downsample, (rows + 0.5) * downsample
    inside = shapely.contains_xy(geometry, cx, cy)
    # A centre on the outline itself may fall to either side.
    clear = shapely.distance(geometry.boundary, shapely.points(cx, cy)) > 1e-6
    np.testing.assert_array_equal(labels[clear], inside[clear].astype(np.uint8))
    assert labels.shape == (17, 24)


def test_where_annotations_overlap_the_smaller_one_wins_in_any_order() -> None:
    large, small = annotation("Tumor", box(0, 0, 32, 32)), annotation("Necrosis", box(8, 8, 16, 16))
    expected = np.ones((32, 32), dtype=np.uint8)
    expected[8:16, 8:16] = 2
    for objects in ((large, small), (small, large)):
        np.testing.assert_array_equal(label_map(slide(*objects), FIELD, 1, THREE), expected)


def test_what_is_to_be_ignored_is_unknown_whatever_lies_under_it() -> None:
    labels = label_map(
        slide(annotation("Ignore*", box(0, 0, 32, 8)), annotation("Tumor", box(0, 0, 4, 32))), FIELD, 1, CLASSES
    )
    assert (labels[:8] == UNKNOWN).all()
    assert (labels[8:, :4] == 1).all()
    assert (labels[8:, 4:] == 0).all()


def test_outside_of_what_was_reviewed_nothing_is_known() -> None:
    labels = label_map(slide(annotation("Tumor", box(0, 0, 32, 32)), reviewed=box(0, 0, 10, 32)), FIELD, 1, CLASSES)
    assert (labels[:, :10] == 1).all()
    assert (labels[:, 10:] == UNKNOWN).all()


def test_other_classes_other_kinds_and_what_has_no_class_are_background() -> None:
    whole = box(0, 0, 32, 32)
    objects = (
        annotation("Stroma", whole),
        annotation(None, whole),
        annotation("Tumor", whole, Kind.DETECTION),
        annotation("Tumor", whole, Kind.TILE),
        PathObject(uuid="1", kind=Kind.ANNOTATION, geometry=None, path_class="Tumor"),
        annotation("Background", whole),
    )
    assert (label_map(slide(*objects), FIELD, 1, CLASSES) == 0).all()


def test_lines_and_points_mark_nothing() -> None:
    objects = [annotation("Tumor", shapely.LineString([(0, 0), (32, 32)])), annotation("Tumor", shapely.Point(5, 5))]
    assert not label_map(slide(*objects), FIELD, 1, CLASSES).any()


def test_the_group_is_the_patient_where_known() -> None:
    assert slide().group == "p1"
    assert AnnotatedSlide(SlideRef(slide_id="s2", uri="u", name="n"), ()).group == "s2"


def test_classes_without_a_background_cannot_be_learned() -> None:
    assert background_of(CLASSES) == 0
    with pytest.raises(ModelError, match="one class with `background: true`"):
        background_of(CLASSES[1:])
