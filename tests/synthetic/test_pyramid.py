"""The pyramid writer: right sizes, right pixels on every level, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiffslide
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_pipeline.synthetic.pyramid import Encoding, halved, level_sizes, write_pyramid


def gradient(width: int, height: int) -> NDArray[np.uint8]:
    """A smooth grey picture, which JPEG with subsampled chroma keeps to a few values."""
    y, x = np.mgrid[0:height, 0:width]
    grey = 30 + (x + y) * 200 // max(width + height, 400)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def cut(image: NDArray[np.uint8], rows: int) -> Iterator[NDArray[np.uint8]]:
    for y in range(0, image.shape[0], rows):
        yield image[y : y + rows]


def reduced(image: NDArray[np.uint8], levels: int) -> NDArray[np.uint8]:
    for _ in range(levels):
        image = halved(image)
    return image


@settings(max_examples=12, deadline=None)
@given(
    width=st.integers(1, 500),
    height=st.integers(1, 500),
    tile=st.sampled_from([16, 32, 64, 256]),
    smallest=st.sampled_from([1, 20, 100]),
)
def test_every_level_is_the_picture_halved(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, tile: int, smallest: int
) -> None:
    path = tmp_path_factory.mktemp("pyramid") / "p.tif"
    image = gradient(width, height)
    encoding = Encoding(tile, quality=95)
    write_pyramid(path, cut(image, tile), (width, height), mpp=0.5, encoding=encoding, smallest=smallest)
    with tifffile.TiffFile(path) as file:
        sizes = level_sizes(width, height, smallest)
        assert [(page.shape[1], page.shape[0]) for page in file.pages] == sizes
        for index, page in enumerate(file.pages):
            expected = reduced(image, index)
            assert np.abs(np.asarray(page.asarray()).reshape(expected.shape).astype(int) - expected).max() < 8


def test_tiffslide_opens_it_with_mpp_and_levels(tmp_path: Path) -> None:
    image = gradient(2500, 1700)
    write_pyramid(tmp_path / "s.tif", cut(image, 512), (2500, 1700), mpp=0.5)
    with tiffslide.TiffSlide(tmp_path / "s.tif") as slide:
        assert slide.dimensions == (2500, 1700)
        assert slide.level_dimensions == ((2500, 1700), (1250, 850), (625, 425))
        assert float(slide.properties["tiffslide.mpp-x"]) == pytest.approx(0.5, rel=1e-4)
        region = slide.read_region((2400, 1600), 0, (100, 100), as_array=True)
    assert np.abs(region.astype(int) - image[1600:1700, 2400:2500]).max() < 8


def test_a_wrong_strip_leaves_no_file_behind(tmp_path: Path) -> None:
    strips = [np.zeros((512, 600, 3), np.uint8), np.zeros((10, 600, 3), np.uint8)]
    with pytest.raises(ValueError, match="strip at row 512"):
        write_pyramid(tmp_path / "s.tif", strips, (600, 600), mpp=0.5)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_strip_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is missing"):
        write_pyramid(tmp_path / "s.tif", [np.zeros((512, 600, 3), np.uint8)], (600, 600), mpp=0.5)


def test_halving_rounds_and_leaves_out_an_odd_column() -> None:
    rows = np.array([[[0], [1], [9]], [[1], [1], [9]]], np.uint8).repeat(3, axis=2)
    assert halved(rows).tolist() == [[[1, 1, 1]]]
