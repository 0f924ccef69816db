"""Paths over pictures: they show the region that was meant."""

from __future__ import annotations

import re

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.report.outlines import UNITS, Frame, class_unions, difference, path_data


def parsed(d: str) -> BaseGeometry:
    """The area of a path with rule evenodd, in picture pixels: read by a parser of its own."""
    area: BaseGeometry = Polygon()
    for ring in re.findall(r"M([^z]+)z", d):
        start, steps = ring.split("l")
        x, y = (int(v) for v in start.split())
        numbers = [int(v) for v in re.findall(r"-?\d+", steps)]
        points = [(x, y)]
        for dx, dy in zip(numbers[::2], numbers[1::2], strict=True):
            x, y = x + dx, y + dy
            points.append((x, y))
        area = area.symmetric_difference(shapely.make_valid(Polygon([(a / UNITS, b / UNITS) for a, b in points])))
    return area


def annotation(shape: BaseGeometry, name: str | None = "Tumor", kind: Kind = Kind.ANNOTATION) -> PathObject:
    return PathObject(uuid="00000000-0000-0000-0000-000000000000", kind=kind, geometry=shape, path_class=name)


@st.composite
def discs(draw: st.DrawFn) -> BaseGeometry:
    x, y = draw(st.floats(500, 9500)), draw(st.floats(500, 7500))
    disc: BaseGeometry = shapely.Point(x, y).buffer(draw(st.floats(100, 2500)))
    if draw(st.booleans()):
        disc = disc.difference(shapely.Point(x, y).buffer(60))
    return disc


WHOLE = Frame(0, 0, 10_000, 8_000, 0.05)


@given(st.lists(discs(), min_size=1, max_size=4))
def test_a_path_covers_its_region_within_a_picture_pixel(shapes: list[BaseGeometry]) -> None:
    region = shapely.union_all(shapes)
    scaled = shapely.affinity.affine_transform(region, [WHOLE.scale, 0, 0, WHOLE.scale, 0, 0])
    picture = shapely.box(0, 0, 500, 400)
    drawn = parsed(path_data(region, WHOLE)).intersection(picture)
    wrong = drawn.symmetric_difference(scaled.intersection(picture)).area
    assert wrong <= 0.6 * scaled.length + 1


@given(st.lists(discs(), max_size=4), st.lists(discs(), max_size=4))
def test_kept_removed_and_added_make_up_both_sides(before: list[BaseGeometry], after: list[BaseGeometry]) -> None:
    old, new = class_unions(map(annotation, before)), class_unions(map(annotation, after))
    kept, removed, added = difference(old, new)
    assert kept.area + removed.area == pytest.approx(shapely.union_all(before).area, rel=1e-9, abs=1e-3)
    assert kept.area + added.area == pytest.approx(shapely.union_all(after).area, rel=1e-9, abs=1e-3)
    assert removed.intersection(added).area == pytest.approx(0, abs=1e-3)


def test_a_region_that_changed_its_class_is_removed_and_added() -> None:
    square = shapely.box(0, 0, 10, 10)
    parts = difference(class_unions([annotation(square)]), class_unions([annotation(square, "Stroma")]))
    assert [part.area for part in parts] == [0, 100, 100]


def test_only_areas_of_annotations_count_and_ignored_classes_do_not() -> None:
    square = shapely.box(0, 0, 10, 10)
    objects = [
        annotation(square),
        annotation(square, None),
        annotation(square, "Ignore*"),
        annotation(square, "Review", Kind.TILE),
        annotation(shapely.Point(3, 3)),
    ]
    assert {name: shape.area for name, shape in class_unions(objects).items()} == {"Tumor": 100, "Unclassified": 100}


def test_a_bow_tie_is_repaired_and_not_halved() -> None:
    bow_tie = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    assert class_unions([annotation(bow_tie)])["Tumor"].area == pytest.approx(50)


def test_a_crop_shows_no_outline_along_its_own_edge() -> None:
    frame = Frame(1000, 1000, 512, 512, 0.5)
    drawn = parsed(path_data(shapely.box(0, 0, 4000, 4000), frame))
    assert drawn.bounds[0] < -1
    assert drawn.bounds[2] > 257


def test_what_lies_outside_or_is_smaller_than_a_pixel_draws_nothing() -> None:
    assert path_data(shapely.box(20_000, 0, 20_100, 100), WHOLE) == ""
    assert path_data(shapely.box(100, 100, 101, 101), WHOLE) == ""
    assert path_data(Polygon(), WHOLE) == ""


def test_a_coarser_detail_makes_a_shorter_path() -> None:
    disc = shapely.Point(5000, 4000).buffer(2000, quad_segs=200)
    assert len(path_data(disc, WHOLE, detail=3)) < len(path_data(disc, WHOLE)) / 2
