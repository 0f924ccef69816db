"""Contours: where the line runs, and that blocks leave no trace."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.regions.fakes import array_map, smooth
from tests.regions.plain import class_polygons
from wsi_pipeline.raster import fill
from wsi_pipeline.regions.contours import flattened, level_of, pooled
from wsi_pipeline.tiling import Bounds


@given(seed=st.integers(0, 999), block=st.sampled_from([16, 32, 64]), factor=st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None)
def test_the_area_is_the_same_whatever_the_blocks(seed: int, block: int, factor: int) -> None:
    image = smooth(seed, 61, 83)
    whole = class_polygons(array_map(image, block=128), 0, 0.5, factor)
    cut = class_polygons(array_map(image, block=block), 0, 0.5, factor)
    assert shapely.is_valid(cut).all()
    difference = shapely.symmetric_difference(shapely.union_all(whole), shapely.union_all(cut))
    assert difference.area < 1e-6
    assert len(whole) == len(cut)


@given(seed=st.integers(0, 999), threshold=st.sampled_from([0.2, 0.5, 0.731]))
@settings(max_examples=25, deadline=None)
def test_a_sample_lies_inside_exactly_when_its_probability_reaches_the_threshold(seed: int, threshold: float) -> None:
    image = smooth(seed, 40, 50)
    polygons = class_polygons(array_map(image, block=16), 0, threshold, 1)
    inside = fill(list(polygons), Bounds(0, 0, 50, 40))
    np.testing.assert_array_equal(inside, image >= np.ceil(255 * threshold))


def test_the_outline_runs_half_way_between_the_centres_of_the_pixels() -> None:
    image = np.zeros((20, 20), np.uint8)
    image[5:15, 4:12] = 255
    (polygon,) = class_polygons(array_map(image, downsample=8.0), 0, 0.5, 1)
    assert polygon.bounds == pytest.approx((4 * 8, 5 * 8, 12 * 8, 15 * 8), abs=0.05)


def test_a_class_that_fills_the_slide_ends_at_its_edge() -> None:
    image = np.full((33, 47), 255, np.uint8)
    (polygon,) = class_polygons(array_map(image, block=16, downsample=2.37, size=(111, 78)), 0, 0.5, 2)
    assert shapely.bounds(polygon) == pytest.approx((0, 0, 111, 78), abs=0.02)


def test_the_last_map_pixels_never_push_a_polygon_beyond_the_slide() -> None:
    image = np.full((10, 10), 255, np.uint8)
    polygons = class_polygons(array_map(image, downsample=4.0, size=(37, 38)), 0, 0.5, 2)
    assert shapely.total_bounds(polygons) == pytest.approx((0, 0, 37, 38), abs=0.01)


def test_a_hole_over_a_seam_stays_one_hole() -> None:
    image = np.full((64, 64), 255, np.uint8)
    image[24:40, 24:40] = 0
    (polygon,) = class_polygons(array_map(image, block=32), 0, 0.5, 1)
    assert len(polygon.interiors) == 1
    assert shapely.Polygon(polygon.interiors[0]).area == pytest.approx(256, rel=0.01)


def test_an_empty_map_has_no_polygon() -> None:
    assert len(class_polygons(array_map(np.zeros((9, 9), np.uint8)), 0, 0.5, 2)) == 0


def test_the_level_never_meets_a_value_of_the_map() -> None:
    for threshold in (0.1, 0.2, 0.4, 0.5, 0.8, 0.999):
        level = level_of(threshold)
        assert level % 1 == 0.5
        assert (level - 0.5) / 255 < threshold <= (level + 0.5) / 255 + 1e-9


def test_pooling_rounds_the_mean_and_repeats_the_edge() -> None:
    image = np.array([[0, 1, 10], [1, 1, 20]], np.uint8)
    np.testing.assert_array_equal(pooled(image, 2), [[1, 15]])


def test_flattening_finds_polygons_two_levels_deep() -> None:
    deep = shapely.GeometryCollection(
        [shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]), shapely.Point(0, 0)]
    )
    assert shapely.area(flattened(np.array([deep], dtype=object))).sum() == 2
