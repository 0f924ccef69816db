"""Shapes on QuPath's grid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.qupath.shapes import on_grid, same_region

coordinates = st.floats(min_value=-1000, max_value=200_000, allow_nan=False)
rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=12, unique=True)

steps = st.integers(min_value=0, max_value=40_000).map(lambda n: n / 4)
grid_rings = st.lists(st.tuples(steps, steps), min_size=3, max_size=12, unique=True)


def _grid(geometry: BaseGeometry) -> Any:
    return on_grid([geometry], ["shape"])[0]


@given(rings)
@example([(0.0, 0.0), (10.0, 10.0), (10.0, 0.0), (0.0, 10.0)])
@example([(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)])
def test_every_polygon_comes_out_valid_on_the_grid_and_is_never_empty(ring: list[tuple[float, float]]) -> None:
    out = _grid(shapely.Polygon(ring))
    assert out.is_valid
    assert not out.is_empty
    points = shapely.get_coordinates(out)
    assert np.array_equal(points, np.round(points, 2))


def test_a_polygon_that_is_valid_on_the_grid_keeps_its_vertices() -> None:
    polygon = shapely.Polygon([(0.123, 0.004), (10.001, 0), (10, 9.996), (0, 10)], [[(1, 1), (2, 1), (2, 2)]])
    assert _grid(polygon).equals(shapely.Polygon([(0.12, 0), (10, 0), (10, 10), (0, 10)], [[(1, 1), (2, 1), (2, 2)]]))
    assert len(_grid(polygon).exterior.coords) == 5


def test_a_bow_tie_keeps_both_of_its_wings() -> None:
    out = _grid(shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]))
    assert out.geom_type == "MultiPolygon"
    assert out.area == pytest.approx(50)


def test_a_flat_polygon_is_kept_as_a_line_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    out = on_grid([shapely.Polygon([(1, 1), (2, 2), (3, 3)])], ["object 7"])[0]
    assert out.equals(shapely.LineString([(1, 1), (3, 3)]))
    assert "object 7" in caplog.text


def test_a_spike_that_rounding_folds_is_cut_and_the_area_stays() -> None:
    spike = shapely.Polygon([(0, 0), (10, 0), (10, 10), (5.001, 10), (5.0, 30), (4.999, 10), (0, 10)])
    out = _grid(spike)
    assert out.is_valid
    assert out.geom_type == "Polygon"
    assert out.area == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (shapely.Polygon(), "empty"),
        (shapely.Point(math.nan, 1), "empty|finite"),
        (shapely.LineString([(0, 0), (math.inf, 1)]), "finite"),
        (shapely.GeometryCollection([shapely.Point(1, 1)]), "GeometryCollection"),
    ],
)
def test_a_shape_that_qupath_cannot_import_is_refused_by_name(shape: BaseGeometry, says: str) -> None:
    with pytest.raises(QuPathFormatError, match=f"object 3.*({says})"):
        on_grid([shape], ["object 3"])


@given(grid_rings, st.integers(min_value=0, max_value=20))
def test_a_region_is_itself_however_its_ring_is_written(ring: list[tuple[float, float]], turn: int) -> None:
    polygon = shapely.Polygon(ring)
    turn %= len(ring)
    rewritten = shapely.Polygon([*ring[turn:], *ring[:turn]][::-1])
    assert same_region(polygon, rewritten, 0.02)


def test_regions_that_differ_by_more_than_the_tolerance_are_told_apart() -> None:
    square = shapely.box(0, 0, 100, 100)
    assert same_region(square, shapely.box(0.01, 0.01, 100.01, 100.01), 0.02)
    assert not same_region(square, shapely.box(1, 0, 101, 100), 0.02)
    assert not same_region(square, shapely.LineString([(0, 0), (100, 100)]), 0.02)
    assert not same_region(square, None, 0.02)
    assert same_region(None, None, 0.02)
    assert same_region(shapely.Polygon(), shapely.Polygon(), 0.02)
    assert not same_region(shapely.Point(1, 1), shapely.Point(1, 2), 0.02)
    assert same_region(shapely.LineString([(0, 0), (5, 5)]), shapely.LineString([(5, 5), (0, 0)]), 0.02)
    assert not same_region(shapely.LineString([(0, 0), (5, 5)]), shapely.LineString([(0, 0), (2, 2)]), 0.02)
