"""What is done to raw polygons, and what must hold of every polygon that leaves."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon, box

from tests.regions.fakes import array_map, smooth
from tests.regions.plain import class_polygons
from wsi_pipeline.config import Regions
from wsi_pipeline.regions.shapes import CAREFUL_VERTICES, ShapeRules, fill_small_holes, simplified, tidy


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


def pouch(corners: int = 0) -> Polygon:
    """A square with a pouch of depth 0.9 at its lower edge, a hole inside the pouch, and `corners` more on top."""
    x = np.linspace(100, 0, corners + 2)[1:-1]
    top = [(float(a), 102.0 if i % 2 else 100.0) for i, a in enumerate(x)]
    outline = [(0, 0), (48, 0), (50, -0.9), (52, 0), (100, 0), (100, 100), *top, (0, 100)]
    return Polygon(outline, [[(49, -0.3), (51, -0.3), (50, 20)]])


def test_rings_that_would_come_to_cross_are_simplified_with_care() -> None:
    (polygon,) = simplified(array_of(pouch()), 1.0)
    assert polygon.is_valid
    assert len(polygon.interiors) == 1
    assert shapely.hausdorff_distance(polygon, pouch()) <= 2


def test_rings_of_a_very_large_polygon_that_come_to_cross_are_mended() -> None:
    large = pouch(corners=CAREFUL_VERTICES)
    assert not simplified(array_of(large), 1.0)[0].is_valid
    (polygon,) = tidy(array_of(large), ShapeRules(4.0, 0.0, 1.0))
    assert polygon.is_valid
    assert polygon.area == pytest.approx(large.area, abs=3)
    outline = large.boundary
    shapely.prepare(outline)
    assert shapely.dwithin(outline, shapely.points(shapely.get_coordinates(polygon)), 2).all()


@given(seed=st.integers(0, 9999), tolerance=st.sampled_from([0.2, 0.7, 2.0]))
@settings(max_examples=25)
def test_no_outline_moves_by_more_than_twice_the_tolerance(seed: int, tolerance: float) -> None:
    raw = class_polygons(array_map(smooth(seed, 60, 60, scale=4), block=32), 0, 0.5, 1)
    for before, after in zip(raw, simplified(raw, tolerance), strict=True):
        outline = before.exterior
        corners = shapely.points(shapely.get_coordinates(after.exterior))
        assert (shapely.distance(corners, outline) < 1e-9).all()
        # Once for the corners between, once for the ring's first corner, which GEOS drops last of all.
        assert shapely.distance(shapely.points(outline.coords), after.exterior).max() <= 2 * tolerance + 1e-9


def test_a_hole_that_is_flat_at_the_tolerance_goes_and_an_outline_stays() -> None:
    sliver = Polygon([(0, 0), (10, 0.1), (20, 0), (10, -0.1)])
    holed = Polygon(box(0, 0, 50, 50).exterior, [[(5, 5), (6, 5.1), (7, 5), (6, 4.9)]])
    kept, plain = simplified(array_of(sliver, holed), 1.0)
    assert kept.area > 0
    assert not plain.interiors


def test_nothing_is_nothing_and_no_tolerance_changes_nothing() -> None:
    none = np.empty(0, dtype=object)
    assert not len(simplified(none, 1.0))
    assert not len(fill_small_holes(none, 1.0))
    given_ = array_of(pouch())
    assert simplified(given_, 0.0) is given_
