"""The hand: it corrects what is worth it, leaves the rest exactly, and what it leaves is valid in QuPath."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from tests.synthetic.suggestions import box
from wsi_pipeline.synthetic.hand import CRUMB, brushed, strokes_toward, without_crumbs, wobbled

seeds = st.integers(0, 10_000)


@st.composite
def blobs(draw: st.DrawFn) -> BaseGeometry:
    """A region of up to four discs and boxes that may overlap, with holes where discs are cut out."""
    region: BaseGeometry = shapely.MultiPolygon()
    for _ in range(draw(st.integers(1, 4))):
        x, y, r = draw(st.floats(100, 900)), draw(st.floats(100, 900)), draw(st.floats(20, 220))
        region = region.union(shapely.Point(x, y).buffer(r))
    for _ in range(draw(st.integers(0, 2))):
        region = region.difference(shapely.Point(draw(st.floats(100, 900)), draw(st.floats(100, 900))).buffer(60))
    return region


def test_a_border_that_is_off_by_little_is_left_alone() -> None:
    assert not strokes_toward(box(0, 0), box(6, 6), width=20, smallest=500)


def test_a_small_difference_is_left_alone() -> None:
    target = box(0, 0).union(box(300, 100, 20, 20))
    assert not strokes_toward(box(0, 0), target, width=10, smallest=1000)
    assert strokes_toward(box(0, 0), target, width=10, smallest=100)


@settings(max_examples=40, deadline=None)
@given(current=blobs(), target=blobs(), seed=seeds)
def test_what_was_brushed_is_valid_and_nearer_to_the_target(
    current: BaseGeometry, target: BaseGeometry, seed: int
) -> None:
    strokes = strokes_toward(current, target, width=20, smallest=800)
    after = brushed(current, strokes, np.random.default_rng(seed), 2.0)
    assert after.is_valid
    assert after.geom_type in {"Polygon", "MultiPolygon"}
    before_off = current.symmetric_difference(target).area
    after_off = after.symmetric_difference(target).area
    if strokes:
        assert after_off < before_off
    # What remains is a rim along the outlines, of about half a brush and the jitter.
    assert after_off < 20 * (current.length + target.length) + 20 * 800


@settings(max_examples=40, deadline=None)
@given(current=blobs(), target=blobs(), seed=seeds)
def test_far_from_the_strokes_the_outline_stays_as_it_was(
    current: BaseGeometry, target: BaseGeometry, seed: int
) -> None:
    strokes = strokes_toward(current, target, width=20, smallest=800)
    after = brushed(current, strokes, np.random.default_rng(seed), 2.0)
    reach = shapely.union_all([strokes.added, strokes.removed]).buffer(14)
    changed = after.symmetric_difference(current).difference(reach)
    # Crumbs aside.
    assert all(part.area <= CRUMB for part in shapely.get_parts(changed.buffer(-0.05)))


@given(radius=st.floats(12, 60), seed=seeds, jitter=st.floats(0.5, 3))
def test_a_small_stroke_strays_no_farther_than_a_large_one(radius: float, seed: int, jitter: float) -> None:
    drawn = shapely.Point(500, 500).buffer(radius)
    after = wobbled(drawn, np.random.default_rng(seed), jitter)
    assert shapely.hausdorff_distance(after.boundary, drawn.boundary) < 6 * jitter + 3


@settings(max_examples=30, deadline=None)
@given(region=blobs(), seed=seeds, jitter=st.floats(0.1, 6))
def test_a_wobbled_outline_stays_near_the_line(region: BaseGeometry, seed: int, jitter: float) -> None:
    drawn = wobbled(region, np.random.default_rng(seed), jitter)
    assert drawn.is_valid
    rim = region.boundary.buffer(6 * jitter + 8)
    off = drawn.symmetric_difference(region).difference(rim).area
    assert off <= 2 * CRUMB


def test_the_same_seed_draws_the_same_line() -> None:
    first, second = (wobbled(box(0, 0), np.random.default_rng(4), 2.0) for _ in range(2))
    assert first.equals_exact(second, 0.0)
    assert not first.equals_exact(wobbled(box(0, 0), np.random.default_rng(5), 2.0), 0.5)


@given(region=blobs())
def test_nothing_that_is_left_is_smaller_than_a_crumb(region: BaseGeometry) -> None:
    for part in shapely.get_parts(without_crumbs(region)):
        assert part.area >= CRUMB
        assert all(shapely.Polygon(ring).area >= CRUMB for ring in part.interiors)


def test_one_part_is_a_polygon_and_none_is_empty() -> None:
    assert without_crumbs(shapely.MultiPolygon([box(0, 0)])).geom_type == "Polygon"
    assert without_crumbs(box(0, 0, 3, 3)).is_empty
