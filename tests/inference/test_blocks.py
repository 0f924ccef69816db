"""The plan of a block: windows that hold each tissue cell once, reads that hold the windows."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from wsi_pipeline.inference.blocks import Region, Window, batches, cells_of, plan_block, strip_order
from wsi_pipeline.inference.work import BlockSpec
from wsi_pipeline.tiling import Bounds

CELL = 128
grids = hnp.arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 8)))


@st.composite
def plans(draw: st.DrawFn) -> tuple[NDArray[np.bool_], Bounds, int, int, tuple[int, int], list[Region]]:
    cells = draw(grids)
    rows, columns = cells.shape
    x, y = draw(st.integers(0, 3)) * 1024, draw(st.integers(0, 3)) * 1024
    block = Bounds(x, y, x + columns * CELL, y + rows * CELL)
    # The slide ends somewhere in the last row and column of cells.
    edge = (block.right - 8 * draw(st.integers(0, 15)), block.bottom - 8 * draw(st.integers(0, 15)))
    halo = 8 * draw(st.integers(0, 8))
    window = draw(st.integers(100, 1200))
    regions = plan_block(block, cells, cell=CELL, halo=halo, window=window, edge=edge)
    return cells, block, halo, window, edge, regions


@given(plans())
def test_every_pixel_of_a_tissue_cell_is_computed_exactly_once(
    plan: tuple[NDArray[np.bool_], Bounds, int, int, tuple[int, int], list[Region]],
) -> None:
    cells, block, _, _, edge, regions = plan
    hits = np.zeros((block.height // 8, block.width // 8), int)
    for region in regions:
        for window in region.windows:
            core = window.core
            hits[(core.y - block.y) // 8 : (core.bottom - block.y) // 8,
                 (core.x - block.x) // 8 : (core.right - block.x) // 8] += 1  # fmt: skip
    wanted = cells.repeat(16, 0).repeat(16, 1)
    wanted[(edge[1] - block.y) // 8 :] = False
    wanted[:, (edge[0] - block.x) // 8 :] = False
    assert (hits[wanted] == 1).all()
    assert hits.max(initial=0) <= 1


@given(plans())
def test_windows_lie_in_their_region_begin_on_the_grid_and_are_as_small_as_asked(
    plan: tuple[NDArray[np.bool_], Bounds, int, int, tuple[int, int], list[Region]],
) -> None:
    _, _, halo, window, edge, regions = plan
    largest = max(window, CELL + 2 * halo)
    for region in regions:
        assert region.windows
        for item in region.windows:
            assert item.bounds.within(region.bounds) == item.bounds
            assert (item.core.x % CELL, item.core.y % CELL) == (0, 0)
            assert max(item.bounds.width, item.bounds.height) <= largest
            assert item.core.right <= edge[0]
            assert item.core.bottom <= edge[1]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=12), st.integers(0, 100))
def test_batches_hold_windows_of_one_shape_and_lose_none(sizes: list[tuple[int, int]], pixels: int) -> None:
    windows = [(n, Window(Bounds(0, 0, w, h), 1)) for n, (w, h) in enumerate(sizes)]
    found = list(batches(windows, pixels))
    assert sorted(n for batch in found for n, _ in batch) == list(range(len(windows)))
    for batch in found:
        shapes = {(w.bounds.width, w.bounds.height) for _, w in batch}
        assert len(shapes) == 1
        width, height = shapes.pop()
        assert len(batch) == 1 or len(batch) * width * height <= pixels


@given(st.lists(st.integers(1, 2), max_size=20), st.integers(0, 50), st.integers(1, 4))
def test_no_more_windows_go_together_than_are_wanted(sides: list[int], pixels: int, most: int) -> None:
    windows = [(n, Window(Bounds(0, 0, side, side), 1)) for n, side in enumerate(sides)]
    found = list(batches(windows, pixels, most))
    assert sorted(n for batch in found for n, _ in batch) == list(range(len(windows)))
    for batch in found:
        assert len(batch) <= most
        assert len(batch) == 1 or len(batch) * batch[0][1].bounds.width ** 2 <= pixels


@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9))), st.integers(1, 4))
def test_the_order_of_blocks_leaves_none_out(blocks: set[tuple[int, int]], height: int) -> None:
    ordered = strip_order(sorted(blocks), height)
    assert len(ordered) == len(blocks)
    assert set(ordered) == blocks


def test_blocks_that_follow_each_other_in_a_strip_are_neighbours() -> None:
    ordered = strip_order([(row, column) for row in range(4) for column in range(5)], 2)
    steps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(ordered)]
    assert steps.count(1) == len(steps) - 1


@given(grids, st.integers(1, 8))
def test_the_cells_of_all_blocks_are_the_cells_of_the_slide(cells: NDArray[np.bool_], per_block: int) -> None:
    rows, columns = (-(-side // per_block) for side in cells.shape)
    joined = np.block([[cells_of(cells, r, c, per_block) for c in range(columns)] for r in range(rows)])
    np.testing.assert_array_equal(joined, cells)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 9))
def test_a_block_that_is_sent_holds_its_cells_as_bits(rows: int, columns: int, seed: int) -> None:
    cells = np.random.default_rng(seed).random((rows, columns)) < 0.5
    sent = pickle.loads(pickle.dumps(BlockSpec.of(3, 4, cells)))
    assert (sent.row, sent.column) == (3, 4)
    np.testing.assert_array_equal(sent.cells, cells)
    assert len(pickle.dumps(sent)) < 250 + rows * columns / 8
