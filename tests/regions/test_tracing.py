"""Tracing block by block, while they come: the bytes of the plain way, whatever the order."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.regions.fakes import ArrayMap, array_map, smooth
from tests.regions.plain import plain_regions
from wsi_pipeline.config import Regions
from wsi_pipeline.regions.contours import Polygons
from wsi_pipeline.regions.extract import extract_regions, tracer_of
from wsi_pipeline.regions.packed import Packed, together
from wsi_pipeline.regions.samples import Kept
from wsi_pipeline.regions.shapes import ShapeRules
from wsi_pipeline.regions.tracing import Tracer
from wsi_pipeline.tiling import BlockGrid, Bounds

RULES = ShapeRules(min_area_px=6.0, min_hole_px=12.0, tolerance_px=0.7)


def grid_of(source: ArrayMap) -> BlockGrid:
    _, height, width = source.shape
    return BlockGrid(width, height, source.block)


def bytes_of(polygons: Polygons) -> list[bytes]:
    return [shapely.to_wkb(polygon) for polygon in polygons]


def tracer(source: ArrayMap, factor: int, rules: ShapeRules = RULES, kept: Kept | None = None) -> Tracer:
    return Tracer(source, source.shape[0], threshold=0.5, factor=factor, rules=rules, kept=kept)


def fed(source: ArrayMap, tracer: Tracer, order: NDArray[np.intp], until: int) -> None:
    """Settle the first `until` blocks of the order one by one, and trace what becomes ready."""
    grid = grid_of(source)
    blocks = list(grid)
    for number in order[:until]:
        for block in tracer.ready([blocks[number]]):
            tracer.trace(block)


@given(
    seed=st.integers(0, 9999),
    block=st.sampled_from([8, 16, 32]),
    factor=st.sampled_from([1, 2, 4]),
    scale=st.sampled_from([2, 4, 9]),
    downsample=st.sampled_from([1.0, 2.37]),
    min_hole=st.sampled_from([0.0, 12.0, 200.0]),
    kept=st.sampled_from([1, 2000, 10**6]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_any_order_gives_the_bytes_of_the_plain_way(
    seed: int, block: int, factor: int, scale: int, downsample: float, min_hole: float, kept: int, data: st.DataObject
) -> None:
    maps = np.stack([smooth(seed, 61, 83, scale=scale), 255 - smooth(seed + 1, 61, 83, scale=scale)])
    source = array_map(
        maps,
        block=block,
        downsample=downsample,
        size=(round(82.6 * downsample), round(60.5 * downsample)),
        entropy=smooth(seed + 2, 61, 83),
        apart=smooth(seed + 3, 61, 83) if seed % 2 else None,
    )
    rules = ShapeRules(6.0 * downsample**2, min_hole * downsample**2, 0.7)
    blocks = len(list(grid_of(source)))
    order = np.random.default_rng(seed).permutation(blocks)
    mine = tracer(source, factor, rules, Kept(kept))
    # What is not settled when the maps are said to be whole is traced at the end.
    fed(source, mine, order, data.draw(st.integers(0, blocks)))
    for channel in (0, 1):
        polygons, values = mine.polygons(channel)
        expected, expected_values = plain_regions(source, channel, 0.5, factor, rules)
        assert bytes_of(polygons) == bytes_of(expected)
        assert values == expected_values


def test_what_lies_in_a_hole_that_is_filled_goes_with_it_over_blocks_and_inside_of_one() -> None:
    image = np.zeros((64, 64), np.uint8)
    # A ring over four blocks, and one inside of a block, each with an island in its hole.
    image[20:44, 20:44] = 255
    image[26:38, 26:38] = 0
    image[28:31, 28:31] = 255
    image[2:16, 2:16] = 255
    image[5:13, 5:13] = 0
    image[7:11, 7:11] = 255
    source = array_map(image, block=32)
    for min_hole, count in ((1.0, 4), (80.0, 3), (200.0, 2)):
        rules = ShapeRules(4.0, min_hole, 0.0)
        polygons, values = tracer(source, 1, rules).polygons(0)
        assert len(polygons) == len(values) == count
        assert bytes_of(polygons) == bytes_of(plain_regions(source, 0, 0.5, 1, rules)[0])


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_block_is_ready_once_and_with_all_its_neighbours(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    source = array_map(np.zeros((rows * 8, columns * 8), np.uint8), block=8)
    mine = tracer(source, 1)
    settled = np.zeros((rows, columns), bool)
    told: list[tuple[int, int]] = []
    everywhere = list(grid_of(source))
    while not settled.all():
        new = data.draw(st.lists(st.sampled_from(everywhere), max_size=4))
        if data.draw(st.integers(0, 9)) == 0:
            new = everywhere
        for block in new:
            settled[block] = True
        told += mine.ready(iter(new))
        for row, column in everywhere:
            around = settled[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            assert ((row, column) in told) == bool(around.all())
    assert len(told) == len(set(told)) == rows * columns
    assert mine.ready(everywhere) == []


def test_nothing_is_read_of_a_block_before_it_is_settled() -> None:
    """A file system elsewhere may remember that something was not there."""
    image = smooth(4, 80, 96)
    settled = np.zeros((5, 6), bool)

    class Guarded(ArrayMap):
        def read(self, channel: int, bounds: Bounds) -> NDArray[np.uint8]:
            self.check(bounds)
            return super().read(channel, bounds)

        def uncertainty(self, bounds: Bounds) -> NDArray[np.uint8]:
            self.check(bounds)
            return super().uncertainty(bounds)

        def check(self, bounds: Bounds) -> None:
            y, x = np.s_[bounds.y // 16 : -(-bounds.bottom // 16)], np.s_[bounds.x // 16 : -(-bounds.right // 16)]
            assert settled[y, x].all()

    source = Guarded(image[None], image, 16, 1.0, (96, 80))
    mine = tracer(source, 2)
    blocks = list(grid_of(source))
    for number in np.random.default_rng(1).permutation(30):
        settled[blocks[number]] = True
        for block in mine.ready([blocks[number]]):
            mine.trace(block)
    assert bytes_of(mine.polygons(0)[0]) == bytes_of(plain_regions(source, 0, 0.5, 2, RULES)[0])


def test_a_block_that_cannot_be_traced_is_tried_again_at_the_end() -> None:
    image = smooth(4, 64, 64)
    broken = True

    class Busy(ArrayMap):
        def read(self, channel: int, bounds: Bounds) -> NDArray[np.uint8]:
            if broken:
                raise OSError("busy")
            return super().read(channel, bounds)

    source = Busy(image[None], image, 32, 1.0, (64, 64))
    mine = tracer(source, 1)
    with pytest.raises(OSError, match="busy"):
        mine.trace(mine.ready(grid_of(source))[0])
    with pytest.raises(OSError, match="busy"):
        mine.polygons(0)
    broken = False
    assert bytes_of(mine.polygons(0)[0]) == bytes_of(plain_regions(source, 0, 0.5, 1, RULES)[0])


def test_a_tracer_that_was_given_up_reads_nothing() -> None:
    class Closed(ArrayMap):
        def read(self, channel: int, bounds: Bounds) -> NDArray[np.uint8]:
            raise AssertionError

    source = Closed(np.zeros((1, 32, 32), np.uint8), np.zeros((32, 32), np.uint8), 16, 1.0, (32, 32))
    mine = tracer(source, 1)
    mine.give_up()
    for block in mine.ready(grid_of(source)):
        mine.trace(block)
    assert mine.nbytes == 0


def test_what_is_kept_of_a_block_is_what_its_polygons_need() -> None:
    """16 bytes a corner, of polygons inside of a block after they were simplified."""
    image = np.zeros((256, 256), np.uint8)
    y, x = np.mgrid[:256, :256]
    for row in range(32, 256, 64):
        for column in range(32, 256, 64):
            image[(y - row) ** 2 + (x - column) ** 2 < 20**2] = 255
    source = array_map(image, block=64)
    mine = tracer(source, 1, ShapeRules(4.0, 4.0, 1.0))
    fed(source, mine, np.arange(16), 16)
    polygons, _ = mine.polygons(0)
    assert len(polygons) == 16
    corners = int(shapely.get_num_coordinates(polygons).sum())
    assert 16 * corners <= mine.nbytes <= 16 * corners + 16 * 300


def test_regions_are_the_same_with_and_without_a_tracer_that_was_fed() -> None:
    source = array_map(np.stack([smooth(3, 120, 100), smooth(4, 120, 100)]), block=32, entropy=smooth(5, 120, 100))
    config = Regions(min_area_um2=10, min_hole_um2=5, simplify_um=0.5, contour_downsample=2)
    names = {"mpp": 0.5, "run_id": "r", "slide_id": "s", "model_id": "m"}
    mine = tracer_of(source, 2, config, mpp=0.5)
    fed(source, mine, np.arange(16)[::-1], 16)
    with_tracer = extract_regions(source, ["a", "b"], config, tracer=mine, **names)  # type: ignore[arg-type]
    assert with_tracer == extract_regions(source, ["a", "b"], config, **names)  # type: ignore[arg-type]
    assert len(with_tracer) > 4


@given(seed=st.integers(0, 9999), count=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_packing_keeps_every_corner(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    polygons = np.empty(count, dtype=object)
    for i in range(count):
        outline = shapely.Point(rng.random(2) * 1e6).buffer(5 + rng.random() * 10, int(rng.integers(1, 9)))
        hole = shapely.Point(outline.centroid).buffer(rng.random() * 2) if rng.random() < 0.5 else None
        polygons[i] = outline if hole is None else outline.difference(hole)
    packed = Packed.of(polygons)
    assert len(packed) == count
    assert bytes_of(packed.unpacked()) == bytes_of(polygons)
    rings = sum(1 + len(p.interiors) for p in polygons)
    assert packed.nbytes == 16 * shapely.get_num_coordinates(polygons).sum() + 4 * (rings + count + 2)
    assert bytes_of(together([packed.unpacked(), packed.unpacked()])) == 2 * bytes_of(polygons)
