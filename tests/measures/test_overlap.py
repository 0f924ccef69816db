"""Areas: exact, additive, and independent of how a region is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box
from shapely.affinity import rotate, scale, translate
from shapely.geometry.base import BaseGeometry

from tests.measures.shapes import blob, region, regions
from wsi_pipeline.measures import Areas, compare_areas, compare_many_areas, region_of, regions_of, union_of
from wsi_pipeline.raster import fill
from wsi_pipeline.tiling import Bounds

close = pytest.approx
few = settings(max_examples=40, deadline=None)


@given(a=regions(), b=regions())
@few
def test_areas_are_those_that_shapely_finds_in_one_overlay(a: BaseGeometry, b: BaseGeometry) -> None:
    found = compare_areas(a, b, 0.5)
    assert found.kept == close(a.intersection(b).area / 4, abs=1e-6)
    assert found.removed == close(a.difference(b).area / 4, abs=1e-6)
    assert found.added == close(b.difference(a).area / 4, abs=1e-6)
    assert found.iou == close(a.intersection(b).area / a.union(b).area)


@given(a=regions(), b=regions())
@few
def test_before_and_after_change_places(a: BaseGeometry, b: BaseGeometry) -> None:
    there, back = compare_areas(a, b, 1.0), compare_areas(b, a, 1.0)
    assert (there.removed, there.added) == close((back.added, back.removed), abs=1e-6)
    assert there.dice == close(back.dice)


@given(a=regions(), b=regions())
@few
def test_dice_and_iou_tell_the_same_and_stay_between_0_and_1(a: BaseGeometry, b: BaseGeometry) -> None:
    found = compare_areas(a, b, 1.0)
    assert 0 <= found.iou <= found.dice <= 1
    assert found.dice == close(2 * found.iou / (1 + found.iou))


@given(a=regions(), b=regions(), by=st.floats(-1e5, 1e5), turn=st.floats(0, 360), mpp=st.floats(0.1, 2))
@few
def test_dice_does_not_depend_on_place_direction_or_scale(
    a: BaseGeometry, b: BaseGeometry, by: float, turn: float, mpp: float
) -> None:
    def placed(shape: BaseGeometry) -> BaseGeometry:
        return translate(rotate(shape, turn, origin=(0, 0)), by, -by)

    assert compare_areas(placed(a), placed(b), mpp).dice == close(compare_areas(a, b, 1.0).dice, abs=1e-6)


@given(seed=st.integers(0, 10_000))
@few
def test_a_raster_agrees_within_the_pixels_on_the_outline(seed: int) -> None:
    a, b = region(seed), region(seed + 1)
    window, fine = Bounds(0, 0, 800, 800), 0.25
    pixels_a, pixels_b = (fill(shape, window, fine) for shape in (a, b))
    found = compare_areas(a, b, 1.0)
    # A pixel is wrong at most where the outline passes through it.
    allowed = (a.length + b.length) * fine
    assert found.kept == close(float((pixels_a & pixels_b).sum()) * fine**2, abs=allowed)
    assert found.removed == close(float((pixels_a & ~pixels_b).sum()) * fine**2, abs=allowed)


def test_areas_of_two_slides_are_pooled_by_their_sums() -> None:
    pooled = sum([Areas(100, 80, 60), Areas(10, 30, 5)], Areas())
    assert pooled == Areas(110, 110, 65)
    assert pooled.dice == close(130 / 220)


@pytest.mark.parametrize(
    ("before", "after", "dice"),
    [
        (None, None, 1.0),
        (None, box(0, 0, 1, 1), 0.0),
        (box(0, 0, 1, 1), Polygon(), 0.0),
        (Point(1, 1), LineString([(0, 0), (5, 5)]), 1.0),
    ],
)
def test_empty_regions_have_a_dice_too(before: BaseGeometry | None, after: BaseGeometry | None, dice: float) -> None:
    found = compare_areas(before, after, 1.0)
    assert (found.dice, found.iou) == (dice, dice)


def test_what_two_objects_of_a_class_cover_counts_once() -> None:
    union = union_of([box(0, 0, 10, 10), box(5, 0, 15, 10), box(100, 0, 110, 10), None, Point(0, 0)])
    assert union.area == 250
    assert len(shapely.get_parts(union)) == 2


@given(seeds=st.lists(st.integers(0, 500), max_size=8))
@few
def test_a_union_is_the_one_that_shapely_makes(seeds: list[int]) -> None:
    shapes = [translate(region(seed), (seed % 5) * 90.0, 0) for seed in seeds]
    union = union_of(shapes)
    assert union.is_valid
    assert union.symmetric_difference(shapely.union_all(shapes)).area == close(0, abs=1e-6)


def test_polygons_that_meet_nobody_keep_their_vertices() -> None:
    rng = np.random.default_rng(1)
    shapes = [blob(rng, i * 500.0, 0, 100) for i in range(5)]
    union = union_of([*shapes, shapes[0].buffer(3)])
    kept = [any(part.equals_exact(shape, 0.0) for part in union.geoms) for shape in shapes]  # type: ignore[attr-defined]
    assert kept == [False, True, True, True, True]


def test_a_bow_tie_keeps_both_halves() -> None:
    assert region_of(Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])).area == 50


def test_of_a_mixed_collection_only_the_areas_count() -> None:
    mixed = GeometryCollection([box(0, 0, 2, 2), LineString([(0, 0), (9, 9)]), MultiPolygon([box(5, 5, 6, 6)])])
    assert region_of(mixed).area == 5


def test_outlines_that_nearly_coincide_are_overlaid() -> None:
    shape = blob(np.random.default_rng(3), 90_000, 90_000, 800, vertices=3000)
    stored = shapely.transform(shape, lambda xy: xy.astype(np.float32).astype(np.float64))
    found = compare_areas(shape, stored, 1.0)
    assert found.dice == close(1, abs=1e-4)
    assert scale(shape, 0.5, 0.5).area == close(shape.area / 4)


@given(seeds=st.lists(st.integers(0, 10_000), max_size=6), gap=st.integers(0, 400))
@few
def test_many_pairs_at_once_have_the_areas_of_each_alone(seeds: list[int], gap: int) -> None:
    # One polygon and several on a side, the same on both, nothing on one: all in one call.
    pairs: list[tuple[BaseGeometry | None, BaseGeometry | None]] = [(None, None)]
    for seed in seeds:
        a, b = region(seed), region(seed + 1)
        wide = MultiPolygon([*shapely.get_parts(a), box(500 + gap, 0, 510 + gap, 10)])
        pairs += [(a, b), (a, a), (a, None), (None, b), (wide, b), (wide, a), (LineString([(0, 0), (9, 9)]), b)]
    found = compare_many_areas(pairs, 0.5)
    assert found == [compare_areas(before, after, 0.5) for before, after in pairs]
    for (before, after), areas in zip(pairs, found, strict=True):
        if before is not None and after is not None:
            assert areas.kept == close(region_of(before).intersection(region_of(after)).area / 4, abs=1e-6)


def test_regions_at_once_are_those_of_each_alone() -> None:
    bow_tie = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    shapes = [
        bow_tie,
        None,
        Point(1, 1),
        Polygon(),
        box(0, 0, 1, 1),
        GeometryCollection([box(0, 0, 2, 2), Point(9, 9)]),
    ]
    found = regions_of(shapes)
    assert [shape.wkt for shape in found] == [region_of(shape).wkt for shape in shapes]
    assert [shape.area for shape in found] == close([50, 0, 0, 0, 1, 4])
