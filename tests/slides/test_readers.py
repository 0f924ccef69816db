"""Readers by themselves: openslide's habits, NDPI's pieces, slides without a pyramid."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import fsspec
import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.slides.make import texture, write_slide
from tests.slides.test_reading import ref
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.slides import open_slide
from wsi_pipeline.slides.readers import OpenSlideReader, TiffSlideReader, grid_pieces, on_white
from wsi_pipeline.slides.tiffs import tiled
from wsi_pipeline.tiling import Bounds

WIDTH, HEIGHT = 1111, 877


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("readers") / "a.tif", texture(HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def by_openslide(path: Path) -> Iterator[OpenSlideReader]:
    reader = OpenSlideReader(str(path))
    yield reader
    reader.close()


rectangles = st.builds(
    lambda x, y, width, height: Bounds(x, y, x + width, y + height),
    st.integers(0, 150),
    st.integers(0, 100),
    st.integers(1, 100),
    st.integers(1, 100),
)


@given(part=rectangles)
@settings(deadline=None, max_examples=40)
def test_openslide_gives_the_same_pixels_whatever_the_rectangle(by_openslide: OpenSlideReader, part: Bounds) -> None:
    # Level 2 has 278 of 1111 px: openslide takes each pixel to be 3.998 wide and interpolates.
    whole = by_openslide.read(2, Bounds(0, 0, 278, 220))
    found = by_openslide.read(2, part)
    inside = part.within(Bounds(0, 0, 278, 220))
    np.testing.assert_array_equal(
        found[: inside.height, : inside.width], whole[part.y : inside.bottom, part.x : inside.right]
    )


@given(part=rectangles, level=st.integers(0, 2))
@settings(deadline=None, max_examples=40)
def test_tiffslide_and_the_tiles_agree_at_every_place(path: Path, part: Bounds, level: int) -> None:
    slow = TiffSlideReader(str(path))
    fast = tiled(TiffSlideReader(str(path)))
    np.testing.assert_array_equal(slow.read(level, part), fast.read(level, part))
    fast.close()
    slow.close()


def test_openslide_goes_on_after_a_damaged_tile(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", texture(600, 600), levels=1)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages.first.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 100] = bytes(100)
    path.write_bytes(data)
    reader = OpenSlideReader(str(path))
    for _ in range(2):
        with pytest.raises(openslide.OpenSlideError):
            reader.read(0, Bounds(0, 0, 100, 100))
        assert reader.read(0, Bounds(300, 300, 400, 400)).std() > 5
    reader.close()


def test_a_closed_reader_leaves_no_file_open(path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("no /proc here")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        with open_slide(ref(path)) as slide:
            slide.read(Bounds(0, 0, 300, 300), 1.0)
    text = path.with_name("text.svs")
    text.write_text("no slide")
    for _ in range(5):
        with pytest.raises(ValueError, match="not a TIFF"):
            TiffSlideReader(str(text))
    assert len(list(descriptors.iterdir())) <= before


def test_transparent_pixels_are_shown_as_glass() -> None:
    image = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    np.testing.assert_array_equal(on_white(image), [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]])


@given(rectangles, st.integers(1, 90))
def test_pieces_of_a_grid_cover_a_rectangle_once(bounds: Bounds, side: int) -> None:
    hits = np.zeros((bounds.height, bounds.width), int)
    for piece in grid_pieces(bounds, side):
        assert piece.x % side == piece.y % side == 0
        part = piece.within(bounds)
        hits[part.y - bounds.y : part.bottom - bounds.y, part.x - bounds.x : part.right - bounds.x] += 1
    assert (hits == 1).all()


def write_ndpi(path: Path, image: NDArray[np.uint8], tile: int) -> Path:
    """One JPEG whose pieces between restart markers are tiles of one row of blocks, as Hamamatsu writes it.

    The directory is that of a 32-bit TIFF, but its links have 64 bits, and the upper halves of the values follow it.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90, subsampling=0, restart_marker_blocks=tile // 8)
    data = file.getvalue()
    scan = data.index(b"\xff\xda")
    scan += 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    markers = [at + 2 for at in range(scan, len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    starts = struct.pack(f"<{len(markers) + 1}I", scan, *markers)
    strings = b"Hamamatsu\0"
    resolution = struct.pack("<II", 20_000, 1)
    at_starts, at_strings = 12 + len(data), 12 + len(data) + len(starts)
    at_resolution = at_strings + len(strings)
    entries = [
        (256, 4, 1, image.shape[1]), (257, 4, 1, image.shape[0]), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 6),
        (271, 2, len(strings), at_strings), (273, 4, 1, 12), (277, 3, 1, 3), (278, 4, 1, image.shape[0]),
        (279, 4, 1, len(data)), (282, 5, 1, at_resolution), (283, 5, 1, at_resolution), (296, 3, 1, 3),
        (65420, 4, 1, 1), (65421, 11, 1, struct.unpack("<I", struct.pack("<f", 20.0))[0]),
        (65426, 4, len(markers) + 1, at_starts),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    at_directory = at_resolution + len(resolution)
    head = struct.pack("<2sHQ", b"II", 42, at_directory)
    path.write_bytes(head + data + starts + strings + resolution + directory + bytes(8 + 4 * len(entries)))
    return path


def test_pieces_between_the_restart_markers_of_an_ndpi_are_its_tiles(tmp_path: Path) -> None:
    image = texture(64, 512)
    path = write_ndpi(tmp_path / "a.ndpi", image, tile=128)
    with Image.open(io.BytesIO(path.read_bytes()[12:])) as whole:
        expected = np.asarray(whole)
    fsspec.filesystem("memory").pipe("/readers-test/a.ndpi", path.read_bytes())
    for here in (ref(path), SlideRef("r", "memory://readers-test/a.ndpi", "a.ndpi")):
        with open_slide(here) as slide:
            assert slide.size == (512, 64)
            assert slide._reader.tile_size(0) == (8, 128)
            found = slide.read(Bounds(0, 0, 512, 64), 1.0)
        assert np.abs(found.astype(int) - expected).max() <= 4, "decoders round differently"


def write_sparse(path: Path, side: int, tile: int = 512) -> Path:
    """A slide without a pyramid: one tile of colour at the top left, nothing else scanned."""
    first = imagecodecs.jpeg8_encode(np.full((tile, tile, 3), (200, 100, 150), np.uint8), level=90)
    count = (-(-side // tile)) ** 2
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(
            (bytes(first) if number == 0 else b"" for number in range(count)),
            shape=(side, side, 3),
            dtype=np.uint8,
            tile=(tile, tile),
            photometric="rgb",
            compression="jpeg",
            metadata=None,
            resolution=(40_000, 40_000),
            resolutionunit="CENTIMETER",
        )
    return path


def thumbnail_of_sparse(path: Path, side: int) -> tuple[NDArray[np.uint8], int]:
    """A thumbnail of 1000 px, and the most memory that it took."""
    with open_slide(ref(write_sparse(path, side))) as slide:
        tracemalloc.start()
        try:
            return slide.thumbnail(1000), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def test_a_thumbnail_of_a_slide_without_a_pyramid_needs_little_memory(tmp_path: Path) -> None:
    image, peak = thumbnail_of_sparse(tmp_path / "a.tif", 16_000)
    assert image.shape == (1000, 1000, 3)
    assert np.abs(image[:31, :31].astype(int) - (200, 100, 150)).max() <= 3
    assert (image[34:] == 255).all()
    assert peak < 160e6, "the slide's pixels are 768 MB"


@pytest.mark.slow
def test_the_memory_of_a_thumbnail_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    _, small = thumbnail_of_sparse(tmp_path / "small.tif", 8_000)
    _, large = thumbnail_of_sparse(tmp_path / "large.tif", 50_000)
    assert large < small + 20e6
