"""Boundary measures against exact geometry, against rasters, and at the bounds that they state."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from shapely import Point, Polygon, box
from shapely.affinity import rotate, translate
from shapely.geometry.base import BaseGeometry

from tests.measures.shapes import blob, region, regions
from wsi_pipeline.measures import boundary, compare_boundaries, compare_many_boundaries, outline, region_of
from wsi_pipeline.measures.boundary import Arcs
from wsi_pipeline.measures.outline import Floats, Indices, Outline, distances, samples_of
from wsi_pipeline.measures.overlap import polygons_of
from wsi_pipeline.raster import fill
from wsi_pipeline.tiling import Bounds

close = pytest.approx
few = settings(max_examples=30, deadline=None)


def boundary_of(shape: BaseGeometry) -> BaseGeometry:
    return shape.boundary


def outline_of(shape: BaseGeometry) -> Outline:
    return Outline.of(polygons_of(shape))


def arcs(a: BaseGeometry, b: BaseGeometry, step: float) -> Arcs:
    """Every sample of one outline searched on the other, whatever the two have in common."""
    first, second, steps = outline_of(a), outline_of(b), np.array([step])
    samples = samples_of(first, steps)
    return Arcs(distances(samples, first, second, steps), samples.weight)


@given(a=regions(), b=regions())
@few
def test_the_hausdorff_distance_is_within_half_a_step_of_the_exact_one(a: BaseGeometry, b: BaseGeometry) -> None:
    found = compare_boundaries(a, b, 1.0, tolerance_um=4, step_um=1.0)
    exact = shapely.hausdorff_distance(boundary_of(a), boundary_of(b), densify=0.05)
    assert found.hd is not None
    assert exact - 0.5 - 1e-6 <= found.hd <= exact + 0.25


@given(a=regions(), b=regions(), tolerance=st.floats(1, 8))
@few
def test_surface_dice_lies_between_the_exact_ones_half_a_step_tighter_and_looser(
    a: BaseGeometry, b: BaseGeometry, tolerance: float
) -> None:
    step = 0.5

    def exact(reach: float) -> float:
        near = boundary_of(a).intersection(boundary_of(b).buffer(reach, quad_segs=64)).length
        near += boundary_of(b).intersection(boundary_of(a).buffer(reach, quad_segs=64)).length
        return float(near / (a.length + b.length))

    found = compare_boundaries(a, b, 1.0, tolerance_um=tolerance, step_um=step).surface_dice
    assert exact(tolerance - step / 2) - 2e-3 <= found <= exact(tolerance + step / 2) + 2e-3


@given(a=regions(), b=regions())
@few
def test_half_the_step_moves_no_measure_by_more_than_the_bound(a: BaseGeometry, b: BaseGeometry) -> None:
    step = 2.0
    coarse = compare_boundaries(a, b, 1.0, tolerance_um=4, step_um=step)
    fine = compare_boundaries(a, b, 1.0, tolerance_um=4, step_um=step / 32)
    slack = step / 64 + 1e-9
    assert coarse.hd == close(fine.hd, abs=step / 2 + slack)
    assert coarse.hd95 == close(fine.hd95, abs=step / 2 + slack)
    assert coarse.assd == close(fine.assd, abs=step / 4 + slack)


@given(seed=st.integers(0, 10_000))
@few
def test_a_raster_with_a_distance_transform_agrees_within_a_pixel(seed: int) -> None:
    a, b = region(seed), region(seed + 1)
    # Pixels of 0.7: thin parts do not vanish in them.
    window, pixel = Bounds(-30, -30, 330, 330), 0.7
    lengths = [contour_lengths(fill(shape, window, pixel)) for shape in (a, b)]
    to_a, to_b = (ndimage.distance_transform_edt(length == 0, sampling=pixel) for length in lengths)
    pairs = [(to_b[lengths[0] > 0], lengths[0][lengths[0] > 0]), (to_a[lengths[1] > 0], lengths[1][lengths[1] > 0])]
    found = compare_boundaries(a, b, 1.0, tolerance_um=2.0)
    assert found.hd == close(max(d.max() for d, _ in pairs), abs=1)
    assert found.hd95 == close(max(weighted_quantile(d, w, 0.95) for d, w in pairs), abs=1)
    assert found.assd == close(sum(d @ w for d, w in pairs) / sum(w.sum() for _, w in pairs), abs=1)


def contour_lengths(mask: NDArray[np.bool_]) -> Floats:
    """Length of the outline in each square of 2 x 2 pixels, by how many and which of them are inside.

    This is how surface-distance (Nikolov et al.) and MONAI measure rasters.
    """
    corners = [mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]]
    count = np.sum(corners, axis=0)
    opposite = (corners[0] == corners[3]) & (corners[1] == corners[2])
    length = np.select([count == 2, (count == 1) | (count == 3)], [1.0, np.sqrt(0.5)], 0.0)
    return np.asarray(np.where((count == 2) & opposite, np.sqrt(2), length), np.float64)


def weighted_quantile(values: Floats, weights: Floats, share: float) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), share * weights.sum())])


@given(a=regions(), b=regions())
@few
def test_every_sample_has_its_distance_to_the_nearest_segment(a: BaseGeometry, b: BaseGeometry) -> None:
    found = arcs(a, b, 1.5)
    samples = samples_of(outline_of(a), np.array([1.5]))
    exact = shapely.distance(shapely.points(samples.points), boundary_of(b))
    assert samples.weight.sum() == close(a.length)
    assert np.abs(found.distance - exact).max() < 1e-9


@given(a=regions(), step=st.floats(0.3, 20))
@few
def test_samples_stand_for_equal_arcs_of_their_ring_and_lie_on_it(a: BaseGeometry, step: float) -> None:
    points, weight, _ = samples_of(outline_of(a), np.array([step]))
    assert (weight <= step + 1e-9).all()
    assert shapely.distance(shapely.points(points), boundary_of(a)).max() < 1e-9
    rings = shapely.get_rings(shapely.get_parts(a))
    assert len(np.unique(np.round(weight, 6))) <= len(rings)


@given(a=regions(), b=regions())
@few
def test_before_and_after_change_places(a: BaseGeometry, b: BaseGeometry) -> None:
    there = compare_boundaries(a, b, 0.5, tolerance_um=2)
    back = compare_boundaries(b, a, 0.5, tolerance_um=2)
    assert there.hd == close(back.hd)
    assert there.hd95 == close(back.hd95)
    assert there.assd == close(back.assd)
    assert there.surface_dice == close(back.surface_dice)
    assert (there.near_before, there.near_after) == close((back.near_after, back.near_before))


@given(a=regions(), by=st.floats(0.1, 30), turn=st.floats(0, 360))
@few
def test_nothing_is_farther_than_the_shift(a: BaseGeometry, by: float, turn: float) -> None:
    moved = translate(a, by * np.cos(turn), by * np.sin(turn))
    found = compare_boundaries(a, moved, 1.0, tolerance_um=max(by, 0.5))
    assert found.hd is not None
    assert found.hd <= by + 1e-6
    assert found.surface_dice == 1.0
    assert found.added_path == 0


def test_the_same_outline_drawn_from_elsewhere_is_at_distance_0() -> None:
    shape = region(5)
    other = rotate(shapely.reverse(shape), 0)
    found = compare_boundaries(shape, shapely.normalize(other), 1.0, tolerance_um=2)
    assert (found.hd, found.surface_dice) == (0.0, 1.0)


def test_of_an_outline_only_what_changed_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    # An independent count: how many samples are asked for when one corner of a long outline was edited.
    asked: list[int] = []
    search = outline._to_segment

    def counting(points: Floats, of: Outline, segment: Indices) -> Floats:
        asked.append(len(points))
        return search(points, of, segment)

    monkeypatch.setattr(outline, "_to_segment", counting)
    shape = blob(np.random.default_rng(2), 0, 0, 500, vertices=400)
    edited = shape.union(Point(shapely.get_coordinates(shape)[10]).buffer(30))
    found = compare_boundaries(shape, edited, 1.0, tolerance_um=2)
    assert found.hd == close(30, abs=8)
    assert sum(asked) / 2 < 0.2 * (shape.length + edited.length) / 0.5


@given(seed=st.integers(0, 10_000), alone=st.integers(1, 8), shift=st.sampled_from([0.0, 0.4, 25.0, 160.0]))
@few
def test_polygons_that_both_have_change_no_figure(seed: int, alone: int, shift: float) -> None:
    # A grid of blobs of which some were edited, deleted or added next to others that were left alone.
    rng = np.random.default_rng(seed)
    same = [blob(rng, x * 90, y * 90, 30) for x in range(3) for y in range(3)][:alone]
    before = region_of(shapely.union_all([*same, blob(rng, 300, 90, 30)][: 9 + (seed % 3 > 0)]))
    moved = blob(rng, 300 - shift, 90, 30)
    after = region_of(shapely.union_all([*same, moved][: None if seed % 4 else -1]))
    found = compare_boundaries(before, after, 1.0, tolerance_um=2)
    step = found.step or 0.5
    there, back = arcs(before, after, step), arcs(after, before, step)
    assert found.hd == close(max(there.distance.max(), back.distance.max()), abs=1e-9)
    assert found.hd95 == close(max(there.quantile(0.95), back.quantile(0.95)), abs=1e-9)
    assert found.near_before == close(there.share_within(2.0 * (1 + 1e-9)) * before.length)
    assert found.near_after == close(back.share_within(2.0 * (1 + 1e-9)) * after.length)
    mean = (there.distance @ there.weight + back.distance @ back.weight) / (before.length + after.length)
    assert found.assd == close(mean, abs=1e-9)


def many_pairs(seed: int) -> list[tuple[BaseGeometry | None, BaseGeometry | None]]:
    """Edited, another, the same, gone, new, nothing twice, of few vertices and far apart, several polygons."""
    rng = np.random.default_rng(seed)
    some = [region(seed + i) for i in range(4)]
    grid = [blob(rng, x * 90, 0, 30) for x in range(4)]
    return [
        (some[0], some[0].union(Point(shapely.get_coordinates(some[0])[3]).buffer(20))),
        (some[1], some[2]),
        (some[3], some[3]),
        (some[1], None),
        (None, some[2]),
        (None, None),
        (Polygon([(0, 0), (9, 0), (0, 9)]), Polygon([(1e5, 0), (1e5 + 9, 0), (1e5, 9)])),
        (region_of(shapely.union_all(grid)), region_of(shapely.union_all([*grid[1:], blob(rng, 400, 0, 30)]))),
    ]


@pytest.mark.parametrize("together", [1, 1_000, 131_072])
@pytest.mark.parametrize("boxes", [0, 1_000_000])
@pytest.mark.parametrize("seed", [1, 20, 300])
def test_many_pairs_at_once_are_what_each_is_alone(
    seed: int, boxes: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = many_pairs(seed)
    alone = [compare_boundaries(before, after, 0.5, tolerance_um=2) for before, after in pairs]
    monkeypatch.setattr(boundary, "_TOGETHER", together)
    monkeypatch.setattr(boundary, "_MOST_BOXES", boxes)
    found = compare_many_boundaries(pairs, 0.5, tolerance_um=2)
    for one, other in zip(found, alone, strict=True):
        assert [v if v is None else close(v, abs=1e-9) for v in astuple(other)] == list(astuple(one))


def test_outlines_of_other_planes_are_out_of_reach_even_at_the_same_place() -> None:
    near, far = box(0, 0, 10, 10), box(500, 0, 510, 10)
    pairs = [(near, far), (far, near), (near, near.buffer(1, join_style="mitre"))]
    found = [b.hd for b in compare_many_boundaries(pairs, 1.0, tolerance_um=2)]
    assert found == close([500, 500, np.sqrt(2)], abs=0.25)


@pytest.mark.parametrize("tolerance", [2.0, 50.0, 400.0, 20_000.0])
def test_small_outlines_under_a_large_tolerance_stay_apart(tolerance: float) -> None:
    whole = box(0, 0, 4, 4)
    pairs = [(whole, box(0, 0, 4, 3)), (whole, box(1, 1, 3, 3)), (box(1, 1, 4, 4), box(1, 1, 2, 2))]
    alone = [compare_boundaries(a, b, 0.25, tolerance_um=tolerance) for a, b in pairs]
    for one, many in zip(alone, compare_many_boundaries(pairs, 0.25, tolerance_um=tolerance), strict=True):
        assert astuple(many) == close(astuple(one))


def test_no_pairs_have_no_boundaries() -> None:
    assert compare_many_boundaries([], 1.0, tolerance_um=2) == []


def test_a_very_long_outline_is_sampled_more_coarsely_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary, "MOST_SAMPLES", 100)
    found = compare_boundaries(box(0, 0, 100, 100), box(0, 0, 100, 110), 1.0, tolerance_um=2)
    assert found.step == close((400 + 420) / 100)
    assert found.hd == close(10, abs=found.step / 2)


def test_samples_are_asked_for_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = region(1), region(2)
    whole = compare_boundaries(a, b, 1.0, tolerance_um=2)
    monkeypatch.setattr(outline, "_PIECE", 17)
    assert compare_boundaries(a, b, 1.0, tolerance_um=2) == whole


def test_the_added_path_is_what_had_to_be_drawn() -> None:
    found = compare_boundaries(box(0, 0, 100, 100), box(0, 0, 150, 100), 0.5, tolerance_um=1)
    # Two sides of 50 and one of 100, less the tolerance of 2 px at both ends; 0.5 µm/px.
    assert found.added_path == close((50 + 50 + 100 - 2 * 2) / 2, abs=0.5)
