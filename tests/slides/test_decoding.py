"""Tiles and strips of every kind: the right colours, and a word where the data are damaged."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.slides.make import texture, write_slide
from tests.slides.test_opening import refusal
from tests.slides.test_reading import ref
from wsi_pipeline.errors import SlideUnreadable
from wsi_pipeline.slides import open_slide
from wsi_pipeline.slides.decoding import Codestream
from wsi_pipeline.slides.readers import TiffSlideReader
from wsi_pipeline.slides.tiffs import tiled
from wsi_pipeline.tiling import Bounds

TILE = Bounds(0, 0, 256, 256)


def place(path: Path, level: int = 0, number: int = 0) -> tuple[int, int]:
    """Where a tile lies in a file: offset and length."""
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[level]
        return page.dataoffsets[number], page.databytecounts[number]


def tag_place(path: Path, level: int, name: str) -> int:
    """Where the values of a tag lie in a file."""
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[level]
        return int(page.tags[name].valueoffset)


def overwritten(path: Path, at: int, data: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("compression", ["jpeg", "lzw", "deflate", "packbits"])
def test_garbage_in_the_middle_of_a_tile_fails_that_tile_only(tmp_path: Path, compression: str) -> None:
    path = write_slide(tmp_path / "a.tif", texture(600, 600), compression=compression)
    offset, count = place(path)
    overwritten(path, offset + count // 2, np.random.default_rng(1).bytes(400))
    with open_slide(ref(path)) as slide:
        with pytest.raises(SlideUnreadable, match=r"tile 0,0 of level 0 (is damaged|cannot be decoded)"):
            slide.read(TILE, 1.0)
        assert slide.read(Bounds(300, 300, 500, 500), 1.0).shape == (200, 200, 3)


@pytest.mark.parametrize(("compression", "marker", "at"), [("jpeg", b"\xff\xc0", 5), ("jpeg2000", b"\xff\x51", 6)])
def test_a_tile_that_says_it_is_huge_takes_no_memory(tmp_path: Path, compression: str, marker: bytes, at: int) -> None:
    path = write_slide(tmp_path / "a.tif", texture(600, 600), compression=compression)
    offset, count = place(path)
    found = path.read_bytes()[offset : offset + count].index(marker)
    size = struct.pack(">2H", 60_000, 60_000) if compression == "jpeg" else struct.pack(">2I", 60_000, 60_000)
    overwritten(path, offset + found + at, size)
    with open_slide(ref(path)) as slide, pytest.raises(SlideUnreadable, match=r"says that it has 60000 x 60000 px"):
        slide.read(TILE, 1.0)


def as_aperio(path: Path, code: int) -> Path:
    """The slide with another code of compression in each of its directories."""
    for level in range(3):
        overwritten(path, tag_place(path, level, "Compression"), struct.pack("<H", code))
    return path


def test_luminance_and_chrominance_in_jpeg_2000_become_colours(tmp_path: Path) -> None:
    image = texture(600, 600)
    apart = np.asarray(Image.fromarray(image).convert("YCbCr"))
    path = write_slide(tmp_path / "a.tif", apart, compression="jpeg2000", compressionargs={"mct": False, "level": 60})
    with open_slide(ref(path)) as slide:
        np.testing.assert_allclose(slide.read(TILE, 1.0).astype(int), apart[:256, :256], atol=6)
    with open_slide(ref(as_aperio(path, 33003))) as slide:
        assert np.abs(slide.read(TILE, 1.0).astype(int) - image[:256, :256]).mean() < 3
    # Where the codestream itself mixes its components, a decoder has made colours already.
    path = write_slide(tmp_path / "b.tif", image, compression="jpeg2000", compressionargs={"mct": True, "level": 60})
    with open_slide(ref(as_aperio(path, 33003))) as slide:
        assert np.abs(slide.read(TILE, 1.0).astype(int) - image[:256, :256]).mean() < 3


@pytest.mark.parametrize("mct", [False, True])
def test_a_codestream_says_how_large_it_is_and_whether_it_mixes_its_components(mct: bool) -> None:
    data = bytes(imagecodecs.jpeg2k_encode(texture(70, 90), level=60, codecformat="J2K", mct=mct))
    found = Codestream.of(data)
    assert found is not None
    assert (found.width, found.height, found.keeps_colours) == (90, 70, not mct)
    assert Codestream.of(data[:30]) is None
    assert Codestream.of(b"\0\0\0\x0cjP  " + data) is None


def test_luminance_and_chrominance_without_jpeg_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, texture(300, 300), photometric="ycbcr", compression="lzw", tile=(256, 256), subsampling=(1, 1),
        metadata=None, resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    assert "stores luminance and chrominance (YCbCr) without JPEG; convert it" in refusal(path, SlideUnreadable)


# ---- strips


def strips(path: Path, image: NDArray[np.uint8], compression: str | None, rows: int) -> Path:
    size: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, image, photometric="rgb", compression=compression, rowsperstrip=rows, metadata=None, **size)
    return path


@pytest.mark.parametrize("compression", ["jpeg", "lzw", None])
@pytest.mark.parametrize("rows", [16, 64, 1000])
def test_strips_are_read_as_tiffslide_reads_them(tmp_path: Path, compression: str | None, rows: int) -> None:
    path = strips(tmp_path / "a.tif", texture(300, 421), compression, rows)
    slow, fast = TiffSlideReader(str(path)), tiled(TiffSlideReader(str(path)))
    for bounds in (Bounds(0, 0, 421, 300), Bounds(100, 40, 300, 290), Bounds(420, 299, 421, 300)):
        np.testing.assert_array_equal(slow.read(0, bounds), fast.read(0, bounds))
    assert fast.tile_size(0) == (min(rows, 300), 421)
    slow.close()
    fast.close()


def test_a_damaged_strip_is_named(tmp_path: Path) -> None:
    path = strips(tmp_path / "a.tif", texture(300, 421), "jpeg", 64)
    offset, count = place(path, number=2)
    overwritten(path, offset + count // 2, np.random.default_rng(1).bytes(400))
    with open_slide(ref(path)) as slide:
        with pytest.raises(SlideUnreadable, match=r"tile 0,2 of level 0 is damaged"):
            slide.read(Bounds(0, 0, 400, 300), 1.0)
        assert slide.read(Bounds(0, 0, 400, 120), 1.0).std() > 5


# ---- what the directory says


@pytest.mark.parametrize("offset", [b"\xff" * 8, b"\xfe" * 8, struct.pack("<Q", 2**40)])
def test_offsets_beyond_the_file_are_refused_when_it_is_opened(tmp_path: Path, offset: bytes) -> None:
    path = write_slide(tmp_path / "a.tif", texture(600, 600))
    overwritten(path, tag_place(path, 1, "TileOffsets"), offset)
    said = refusal(path, SlideUnreadable)
    assert "is cut off: 1 of 4 tiles of level 1 lie beyond the end of the file; copy the file again" in said


def emptied(path: Path, level: int, number: int) -> None:
    """The slide without the data of one tile."""
    at = tag_place(path, level, "TileByteCounts")
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[level]
        width = page.tags["TileByteCounts"].dtype
    length = {3: 2, 4: 4, 16: 8}[int(width)]
    overwritten(path, at + number * length, bytes(length))


def test_what_a_level_lacks_is_read_from_the_finer_one(tmp_path: Path) -> None:
    image = texture(1024, 1024)
    path = write_slide(tmp_path / "a.tif", image)
    with open_slide(ref(path)) as slide:
        whole = slide.read(Bounds(0, 0, 512, 512), 2.0)
        assert slide.notes == ()
    emptied(path, 1, 2)
    with open_slide(ref(path)) as slide:
        assert [level.index for level in slide.levels] == [0, 2]
        assert slide.notes == ("level 1 lacks tiles that finer levels have: they are read in its place",)
        found = slide.read(Bounds(0, 0, 512, 512), 2.0)
    # Averaged, where the level of the file has every second pixel: no hole, though.
    assert np.abs(found[300:500, 20:250].astype(int) - whole[300:500, 20:250]).mean() < 20


def test_what_was_not_scanned_is_lacking_in_all_levels_and_glass(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", texture(1024, 1024))
    emptied(path, 1, 3)
    for number in (10, 11, 14, 15):
        emptied(path, 0, number)
    with open_slide(ref(path)) as slide:
        assert [level.index for level in slide.levels] == [0, 1, 2]
        assert slide.notes == ()
        assert (slide.read(Bounds(512, 512, 1024, 1024), 1.0) == 255).all()
        assert (slide.read(Bounds(256, 256, 512, 512), 2.0) == 255).all()
