"""What is done to raw polygons, and what must hold of every polygon that leaves."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon, box

from tests.regions.fakes import array_map, smooth
from wsi_pipeline.config import Regions
from wsi_pipeline.regions.contours import class_polygons
from wsi_pipeline.regions.shapes import ShapeRules, fill_small_holes, tidy


def array_of(*polygons: Polygon) -> np.ndarray:
    result = np.empty(len(polygons), dtype=object)
    result[:] = polygons
    return result


@given(
    seed=st.integers(0, 9999),
    tolerance=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    downsample=st.sampled_from([1.0, 2.37, 8.0]),
    scale=st.sampled_from([2, 5, 9]),
)
@settings(max_examples=40, deadline=None)
def test_every_polygon_is_valid_on_the_grid_that_qupath_uses(
    seed: int, tolerance: float, downsample: float, scale: int
) -> None:
    source = array_map(smooth(seed, 70, 70, scale=scale), block=32, downsample=downsample)
    rules = ShapeRules(min_area_px=20.0, min_hole_px=10.0, tolerance_px=tolerance)
    polygons = tidy(class_polygons(source, 0, 0.5, 1), rules)
    assert shapely.is_valid(polygons).all()
    assert (shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON).all()
    assert (shapely.area(polygons) >= 20.0).all()
    rounded = shapely.transform(polygons, lambda xy: np.round(xy, 2))
    assert shapely.is_valid(rounded).all()
    assert shapely.equals_exact(rounded, polygons, tolerance=1e-9).all()
    holes = [Polygon(ring).area for p in polygons for ring in p.interiors]
    assert all(area >= 9.9 for area in holes)


def test_a_bow_tie_keeps_both_wings() -> None:
    bow_tie = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    polygons = tidy(array_of(bow_tie), ShapeRules(1.0, 1.0, 0.0))
    assert shapely.area(polygons).sum() == pytest.approx(50)


def test_specks_go_and_pinholes_are_filled() -> None:
    speck = box(100, 100, 101, 101)
    holed = Polygon(box(0, 0, 50, 50).exterior, [box(5, 5, 6, 6).exterior, box(20, 20, 30, 30).exterior])
    (polygon,) = tidy(array_of(speck, holed), ShapeRules(min_area_px=4.0, min_hole_px=4.0, tolerance_px=0.0))
    assert polygon.area == 2500 - 100
    assert len(polygon.interiors) == 1


def test_a_polygon_without_small_holes_is_left_alone() -> None:
    holed = Polygon(box(0, 0, 50, 50).exterior, [box(20, 20, 30, 30).exterior])
    (polygon,) = fill_small_holes(array_of(holed), 50.0)
    assert polygon is holed


def test_micrometres_become_pixels_of_the_slide() -> None:
    rules = ShapeRules.of(Regions(min_area_um2=100, min_hole_um2=50, simplify_um=1.0), mpp=0.5)
    assert rules == ShapeRules(min_area_px=400.0, min_hole_px=200.0, tolerance_px=2.0)


def test_simplifying_stays_within_the_tolerance() -> None:
    source = array_map(smooth(3, 120, 120), block=64)
    raw = class_polygons(source, 0, 0.5, 1)
    tidied = tidy(raw, ShapeRules(0.0, 0.0, 1.0))
    assert shapely.get_num_coordinates(tidied).sum() < 0.7 * shapely.get_num_coordinates(raw).sum()
    assert shapely.hausdorff_distance(shapely.union_all(raw), shapely.union_all(tidied)) < 1.5
