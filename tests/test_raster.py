"""Polygons to pixels, against shapely's own answer at every pixel centre."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import MultiPolygon, Point, Polygon, box
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.raster import fill
from wsi_pipeline.tiling import Bounds


def centres(bounds: Bounds, downsample: float) -> tuple[np.ndarray, np.ndarray]:
    x = (np.arange(bounds.x, bounds.right) + 0.5) * downsample
    y = (np.arange(bounds.y, bounds.bottom) + 0.5) * downsample
    return np.meshgrid(x, y)


coordinates = st.integers(-40, 440).map(lambda v: v / 10 + 0.0123)
polygons = (
    st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=12)
    .map(lambda xy: shapely.make_valid(Polygon(xy)))
    .filter(lambda p: p.area > 0)
)


@given(geometry=polygons, x=st.integers(-5, 20), y=st.integers(-5, 20), downsample=st.sampled_from([1.0, 0.5, 2.37]))
def test_a_pixel_is_marked_exactly_when_its_centre_lies_inside(
    geometry: Polygon, x: int, y: int, downsample: float
) -> None:
    bounds = Bounds(x, y, x + 23, y + 17)
    x_centre, y_centre = centres(bounds, downsample)
    expected = shapely.contains_xy(geometry, x_centre, y_centre)
    decided = shapely.distance(geometry.boundary, shapely.points(x_centre, y_centre)) > 1e-9
    np.testing.assert_array_equal(fill(geometry, bounds, downsample)[decided], expected[decided])


def test_holes_and_islands_stay_what_they_are() -> None:
    ring = Polygon(box(0, 0, 10, 10).exterior, [box(2, 2, 8, 8).exterior])
    island = box(4, 4, 6, 6)
    mask = fill(MultiPolygon([ring, island]), Bounds(0, 0, 10, 10))
    assert mask.sum() == 100 - 36 + 4
    assert mask[5, 5]
    assert not mask[3, 3]


def test_neighbours_share_no_pixel_and_leave_none_out() -> None:
    left, right = fill(box(0, 0, 5.5, 8), Bounds(0, 0, 12, 8)), fill(box(5.5, 0, 12, 8), Bounds(0, 0, 12, 8))
    assert (left ^ right).all()


def test_several_geometries_count_as_their_union() -> None:
    mask = fill([box(0, 0, 2, 2), MultiPolygon([box(3, 3, 4, 4)]), Point(1, 1)], Bounds(0, 0, 5, 5))
    assert mask.sum() == 5


@pytest.mark.parametrize("geometry", [Polygon(), Point(3, 3), shapely.LineString([(0, 0), (9, 9)])])
def test_what_has_no_area_marks_nothing(geometry: BaseGeometry) -> None:
    assert not fill(geometry, Bounds(0, 0, 10, 10)).any()
