"""Cutting a slide: every pixel in one block, every tissue cell in one rectangle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from wsi_pipeline.tiling import CELL, BlockGrid, Bounds, Rectangle, cell_side, cover_cells, working_size

Grid = NDArray[np.bool_]

grids = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
lengths = st.integers(-50, 50)


@st.composite
def rectangles(draw: st.DrawFn) -> Bounds:
    x, y = draw(lengths), draw(lengths)
    return Bounds(x, y, x + draw(st.integers(0, 40)), y + draw(st.integers(0, 40)))


def pixels(bounds: Bounds) -> set[tuple[int, int]]:
    return {(x, y) for x in range(bounds.x, bounds.right) for y in range(bounds.y, bounds.bottom)}


@given(rectangles(), rectangles())
def test_what_lies_within_another_rectangle_is_what_both_share(one: Bounds, other: Bounds) -> None:
    assert pixels(one.within(other)) == pixels(one) & pixels(other)


@given(rectangles(), st.integers(0, 9))
def test_a_grown_rectangle_has_its_margin_on_each_side(bounds: Bounds, margin: int) -> None:
    grown = bounds.grown(margin)
    assert (grown.width, grown.height) == (bounds.width + 2 * margin, bounds.height + 2 * margin)
    assert grown.within(bounds) == bounds


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(1, 40))
def test_the_working_level_covers_the_slide_and_no_more(width: int, height: int, downsample: float) -> None:
    w, h = working_size((width, height), downsample)
    for pixels_, length in ((w, width), (h, height)):
        assert pixels_ * downsample >= length - 1e-4
        assert (pixels_ - 1) * downsample < length or pixels_ == 1


@pytest.mark.parametrize("parts", [3, 7, 49, 1000])
def test_a_hair_below_a_whole_number_of_pixels_is_that_number(parts: int) -> None:
    assert working_size((1000, 1000), 1000 / parts) == (parts, parts)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 90))
def test_every_pixel_of_the_working_level_is_in_exactly_one_block(width: int, height: int, block: int) -> None:
    grid = BlockGrid(width, height, block)
    hits = np.zeros((height, width), int)
    for row, column in grid:
        bounds = grid.bounds(row, column)
        assert min(bounds.width, bounds.height) > 0
        hits[bounds.y : bounds.bottom, bounds.x : bounds.right] += 1
    assert (hits == 1).all()
    assert len(list(grid)) == grid.shape[0] * grid.shape[1]


@given(st.integers(1, 1024))
def test_a_cell_is_a_whole_number_of_strides_and_as_small_as_can_be(stride: int) -> None:
    side = cell_side(stride)
    assert side % stride == 0
    assert CELL <= side < CELL + stride
    assert side == CELL or CELL % stride


def covered(cells: Grid, found: list[Rectangle]) -> NDArray[np.int_]:
    hits = np.zeros(cells.shape, int)
    for r in found:
        hits[r.row : r.row + r.rows, r.column : r.column + r.columns] += 1
    return hits


@given(grids, st.integers(1, 12), st.floats(0, 8), st.floats(0, 2))
def test_every_true_cell_is_in_exactly_one_rectangle(cells: Grid, limit: int, margin: float, each: float) -> None:
    found = cover_cells(cells, limit=limit, margin=margin, each=each)
    hits = covered(cells, found)
    assert (hits[cells] == 1).all()
    assert hits.max(initial=0) <= 1
    assert all(max(r.rows, r.columns) <= limit for r in found)
    assert found == sorted(found)


@given(grids, st.integers(1, 12), st.floats(0, 8))
def test_every_side_of_a_rectangle_touches_a_true_cell(cells: Grid, limit: int, margin: float) -> None:
    for row, column, rows, columns in cover_cells(cells, limit=limit, margin=margin):
        inside = cells[row : row + rows, column : column + columns]
        assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@given(grids, st.integers(1, 12), st.floats(0, 8), st.floats(0, 2))
def test_a_cover_never_costs_more_than_one_call_for_each_cell_of_the_frame(
    cells: Grid, limit: int, margin: float, each: float
) -> None:
    found = cover_cells(cells, limit=limit, margin=margin, each=each)
    cost = sum((r.rows + margin) * (r.columns + margin) + each for r in found)
    assert cost <= cells.size * ((1 + margin) ** 2 + each) + 1e-6


def test_a_full_grid_is_one_rectangle_when_it_may_be() -> None:
    assert cover_cells(np.ones((5, 4), bool), limit=5, margin=1) == [Rectangle(0, 0, 5, 4)]


def test_a_gap_is_computed_where_that_is_cheaper_than_two_halos() -> None:
    cells = np.ones((5, 5), bool)
    cells[2, 2] = False
    assert cover_cells(cells, limit=5, margin=0.75) == [Rectangle(0, 0, 5, 5)]
    cells[:, 1:4] = False
    assert len(cover_cells(cells, limit=5, margin=0.75)) == 2


def test_a_grid_without_tissue_needs_nothing() -> None:
    assert cover_cells(np.zeros((4, 4), bool), limit=4, margin=1) == []


def test_a_rectangle_of_cells_is_placed_in_pixels() -> None:
    assert Rectangle(1, 2, 3, 4).bounds(10, x=100, y=200) == Bounds(120, 210, 160, 240)
