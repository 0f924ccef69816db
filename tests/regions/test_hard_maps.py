"""Maps made to be hard: what block by block gives is what one piece gives, nothing is lost, all is valid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.regions.fakes import array_map
from wsi_pipeline.raster import fill
from wsi_pipeline.regions.contours import Polygons, level_of, pooled
from wsi_pipeline.regions.shapes import ShapeRules
from wsi_pipeline.regions.tracing import Tracer
from wsi_pipeline.tiling import BlockGrid, Bounds

Image = NDArray[np.uint8]
EXACT = ShapeRules(min_area_px=0.0, min_hole_px=0.0, tolerance_px=0.0)
WIDTH, HEIGHT, BLOCK = 107, 91, 32


def checkerboard(side: int) -> Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.where((x // side + y // side) % 2, 255, 0).astype(np.uint8)


def spiral() -> Image:
    """One region that winds through all blocks, and one of glass beside it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    angle, radius = np.arctan2(y - HEIGHT / 2, x - WIDTH / 2), np.hypot(y - HEIGHT / 2, x - WIDTH / 2)
    image: Image = np.round(127.5 + 127 * np.sin(angle + radius * 0.8)).astype(np.uint8)
    return image


def rings(count: int) -> Image:
    """Square rings in each other, each a pixel wide with a pixel between."""
    image = np.zeros((4 * count + 3, 4 * count + 5), np.uint8)
    for number in range(count):
        start = 2 * number
        image[start : image.shape[0] - start, start : image.shape[1] - start] = 255
        image[start + 1 : image.shape[0] - start - 1, start + 1 : image.shape[1] - start - 1] = 0
    return image


def lines() -> Image:
    """A pixel wide, along, beside and across the seams."""
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    for at in (BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK):
        image[at, ::] = 255
    for at in (5, BLOCK - 1, BLOCK, 2 * BLOCK + 7):
        image[:, at] = 255
    diagonal = np.arange(min(HEIGHT, WIDTH))
    image[diagonal, diagonal] = 255
    image[diagonal, WIDTH - 1 - diagonal] = 255
    return image


def corners() -> Image:
    """Squares that meet at corners alone, just where four blocks meet, and one pixel off that."""
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, column in ((BLOCK, BLOCK), (BLOCK, 2 * BLOCK + 1), (2 * BLOCK - 1, BLOCK)):
        image[row - 8 : row, column - 8 : column] = 255
        image[row : row + 8, column : column + 8] = 255
    image[2 * BLOCK :, 2 * BLOCK :] = 200
    return image


def holes() -> Image:
    """All marked but holes: on seams, on corners of blocks, a pixel wide along a seam, at the edge."""
    image = np.full((HEIGHT, WIDTH), 255, np.uint8)
    image[BLOCK - 3 : BLOCK + 3, 10:20] = 0
    image[BLOCK - 3 : BLOCK + 3, BLOCK - 3 : BLOCK + 3] = 0
    image[40:70, 2 * BLOCK] = 0
    image[2 * BLOCK - 1, 5:40] = 0
    image[:4, 50:60] = 0
    image[48, 48] = image[49, 49] = image[50, 48] = 0
    return image


def full() -> Image:
    return np.full((HEIGHT, WIDTH), 255, np.uint8)


def comb() -> Image:
    """Teeth over all rows of blocks that hang together at the far end only."""
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    image[:, ::2] = 255
    image[-1] = 255
    return image


MAPS: dict[str, Callable[[], Image]] = {
    "checkerboard of pixels": lambda: checkerboard(1)[:45, :55],
    "checkerboard of blocks": lambda: checkerboard(BLOCK),
    "checkerboard beside the blocks": lambda: checkerboard(BLOCK - 1),
    "spiral": spiral,
    "fifty rings": lambda: rings(50),
    "lines": lines,
    "corners": corners,
    "holes": holes,
    "full": full,
    "comb": comb,
}


def traced(image: Image, block: int, factor: int, rules: ShapeRules = EXACT, threshold: float = 0.5) -> Polygons:
    source = array_map(image, block=block)
    tracer = Tracer(source, 1, threshold=threshold, factor=factor, rules=rules)
    for at in tracer.ready(list(BlockGrid(image.shape[1], image.shape[0], block))[::-1]):
        tracer.trace(at)
    return tracer.polygons(0)[0]


def check(image: Image, block: int, factor: int, threshold: float = 0.5) -> None:
    """What must hold of every map."""
    cut = traced(image, block, factor, threshold=threshold)
    whole = traced(image, 256 * factor, factor, threshold=threshold)
    assert shapely.is_valid(cut).all()
    a, b = shapely.union_all(cut), shapely.union_all(whole)
    assert shapely.symmetric_difference(a, b).area < 0.02 * max(1, len(cut))
    # Regions are apart: their areas add up, which they would not if one lay over another.
    assert shapely.area(cut).sum() == pytest.approx(a.area, abs=1e-6)
    assert len(cut) == len(whole)
    assert shapely.get_num_interior_rings(cut).sum() == shapely.get_num_interior_rings(whole).sum()
    samples = pooled(image, factor)
    inside = fill(list(cut), Bounds(0, 0, samples.shape[1], samples.shape[0]), factor)
    level = level_of(threshold)
    # Nearer to the level the line runs within the grid's 0.01 px of the sample.
    clear = np.abs(samples - level) > 4
    # The last samples may lie beyond the map, where nothing is drawn.
    clear[image.shape[0] // factor :] = clear[:, image.shape[1] // factor :] = False
    np.testing.assert_array_equal(inside[clear], samples[clear] > level)


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("name", MAPS)
def test_a_hard_map_is_the_same_in_blocks_and_in_one_piece(name: str, block: int, factor: int) -> None:
    check(MAPS[name](), block, factor)


@pytest.mark.parametrize("block", [16, 32])
def test_fifty_rings_are_fifty_regions(block: int) -> None:
    found = traced(rings(50), block, 1)
    assert len(found) == 50
    assert (shapely.get_num_interior_rings(found) == 1).all()


@given(
    rows=st.integers(2, 50),
    columns=st.integers(2, 50),
    share=st.sampled_from([0.1, 0.5, 0.9]),
    values=st.sampled_from([(0, 255), (127, 128), (0, 128), (127, 255), (100, 140)]),
    seed=st.integers(0, 99_999),
    block=st.sampled_from([8, 16, 24]),
    factor=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=150, deadline=None)
def test_any_noise_is_the_same_in_blocks_and_in_one_piece(
    rows: int, columns: int, share: float, values: tuple[int, int], seed: int, block: int, factor: int
) -> None:
    noise = np.random.default_rng(seed).random((rows, columns)) < share
    check(np.where(noise, values[1], values[0]).astype(np.uint8), block, factor)


@given(seed=st.integers(0, 99_999), block=st.sampled_from([8, 16, 24]), tolerance=st.sampled_from([0.4, 1.0, 2.5]))
@settings(max_examples=40, deadline=None)
def test_simplifying_noise_loses_nothing_but_area_within_the_tolerance(seed: int, block: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    image = np.kron(rng.random((9, 11)) < 0.5, np.ones((6, 6))).astype(np.uint8) * 255
    raw = traced(image, block, 1)
    slim = traced(image, block, 1, ShapeRules(0.0, 0.0, tolerance))
    assert shapely.is_valid(slim).all()
    length = float(shapely.length(raw).sum())
    difference = shapely.symmetric_difference(shapely.union_all(raw), shapely.union_all(slim)).area
    assert difference <= tolerance * length
    # Each region of a size is found again.
    tree = shapely.STRtree(slim)
    middles = shapely.point_on_surface(raw[shapely.area(raw) > 20])
    deep = shapely.distance(middles, shapely.boundary(raw[shapely.area(raw) > 20])) > 2 * tolerance
    hit, _ = tree.query(middles[deep], predicate="intersects")
    assert set(hit) == set(range(int(deep.sum())))
