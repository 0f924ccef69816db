"""Opening: each kind of bad slide gets one clear line with slide, cause and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.slides.make import texture, write_slide
from tests.slides.test_reading import ref
from wsi_pipeline.config import parse_config
from wsi_pipeline.errors import MppMissing, SlideError, SlideNotFound, SlideTooCoarse, SlideUnreadable
from wsi_pipeline.slides import open_slide
from wsi_pipeline.slides.listing import list_cohort
from wsi_pipeline.tiling import Bounds


def refusal(path: Path, kind: type[SlideError], **options: Any) -> str:
    with pytest.raises(kind) as caught:
        open_slide(ref(path), **options)
    text = str(caught.value)
    assert text.startswith(f"{path.stem}: ")
    assert "; " in text
    assert "\n" not in text
    return text


def test_a_missing_file_a_folder_and_an_empty_file_are_told_apart(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "none.svs", SlideNotFound)
    (tmp_path / "folder.svs").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.svs", SlideUnreadable)
    (tmp_path / "empty.svs").write_bytes(b"")
    assert "is empty" in refusal(tmp_path / "empty.svs", SlideUnreadable)


def test_a_text_called_svs_is_no_slide(tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("this is not a slide\n" * 100)
    assert "is no slide that can be opened" in refusal(tmp_path / "text.svs", SlideUnreadable)


@pytest.mark.parametrize("share", [0.999, 0.9, 0.7, 0.4, 0.1])
def test_a_truncated_pyramid_is_refused_wherever_it_was_cut(tmp_path: Path, share: float) -> None:
    whole = write_slide(tmp_path / "whole.tif", texture(1024, 1024)).read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "is cut off" in refusal(path, SlideUnreadable)


@pytest.mark.parametrize(("mpp", "shown"), [(896.0, "896"), (0.005, "0.005"), (352.0, "352")])
def test_an_implausible_mpp_is_refused_and_can_be_given(tmp_path: Path, mpp: float, shown: str) -> None:
    path = write_slide(tmp_path / "a.tif", texture(300, 300), mpp=mpp)
    assert f"implausible mpp of {shown}" in refusal(path, MppMissing)
    with open_slide(ref(path, mpp=0.5)) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "config")


def test_a_slide_without_mpp_is_refused_and_can_be_given(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", texture(300, 300), mpp=None)
    assert "states no mpp" in refusal(path, MppMissing)
    with open_slide(ref(path, mpp=0.25)) as slide:
        assert slide.mpp == 0.25


def test_a_slide_that_is_too_coarse_for_the_model_is_refused(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", texture(300, 300), mpp=2.5)
    assert "is too coarse" in refusal(path, SlideTooCoarse, needed_mpp=1.0)
    with open_slide(ref(path), needed_mpp=1.3) as slide:
        assert slide.mpp == pytest.approx(2.5)


def damage(path: Path, level: int, how: str) -> None:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[level]
        assert isinstance(page, tifffile.TiffPage)
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(path.read_bytes())
    if how == "zeroed":
        data[offset : offset + count] = bytes(count)
    elif how == "header":
        data[offset : offset + 4] = b"\0\0\0\0"
    else:
        data[offset + count // 2 : offset + count] = bytes(count - count // 2)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["zeroed", "header", "half"])
def test_a_damaged_tile_is_named_and_the_rest_can_be_read(tmp_path: Path, how: str) -> None:
    path = write_slide(tmp_path / "a.tif", texture(600, 600))
    damage(path, 0, how)
    with open_slide(ref(path)) as slide:
        with pytest.raises(SlideUnreadable, match=r"a: cannot be read at level 0.* tile 0,0 of level 0"):
            slide.read(Bounds(0, 0, 100, 100), 1.0)
        assert slide.read(Bounds(300, 300, 500, 500), 1.0).shape == (200, 200, 3)


def test_the_listing_shows_every_slide_and_every_problem(tmp_path: Path) -> None:
    write_slide(tmp_path / "good.tif", texture(300, 300))
    write_slide(tmp_path / "coarse.tif", texture(300, 300), mpp=10)
    (tmp_path / "text.svs").write_text("no slide")
    raw = {"output": "o", "cohort": {"slides": ["*.tif", "*.svs", "x.ndpi"]}, "model": {"path": "m"}}
    rows = {row.uri.rsplit("/", 1)[-1]: row for row in list_cohort(parse_config(raw, base=tmp_path), 1.0)}
    good = rows["good.tif"]
    assert (good.width, good.height, good.levels, good.reader, good.problems) == (300, 300, 3, "tiffslide", ())
    assert "too coarse" in rows["coarse.tif"].problems[0]
    assert "no slide" in rows["text.svs"].problems[0]
    assert "there is no file" in rows["x.ndpi"].problems[0]
    assert good.to_dict()["mpp"] == pytest.approx(0.5)


def test_pixels_that_are_not_square_count_with_their_mean_and_a_note(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", texture(300, 300), mpp=(0.5, 1.0))
    with open_slide(ref(path)) as slide:
        assert slide.mpp == pytest.approx(0.75)
        assert "not square (0.5 by 1 µm)" in slide.notes[0]


def test_a_configuration_that_contradicts_the_file_is_noted(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", texture(300, 300), mpp=0.25)
    with open_slide(ref(path, mpp=0.5)) as slide:
        assert slide.notes == ("the file states 0.25 µm/px, the configuration says 0.5 and counts",)
    with open_slide(ref(path, mpp=0.2501)) as slide:
        assert slide.notes == ()


def test_copies_of_one_slide_are_noted_in_the_listing(tmp_path: Path) -> None:
    for name, seed in (("a.tif", 1), ("b.tif", 2), ("copy-of-a.tif", 1)):
        write_slide(tmp_path / name, texture(300, 300, seed))
    raw = {"output": "o", "cohort": {"slides": "*.tif"}, "model": {"path": "m"}}
    first, second, copy = list_cohort(parse_config(raw, base=tmp_path))
    assert (first.notes, second.notes, copy.problems) == ((), (), ())
    assert copy.notes == (f"it looks like a copy of {first.slide_id}: list each slide once",)


def write_other(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, metadata=None, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", **options)
    return path


@pytest.mark.parametrize(
    ("pixels", "options", "line"),
    [
        (np.zeros((300, 300, 3), np.uint16), {"photometric": "rgb"}, "has pixels of 3 x uint16, not 8-bit RGB"),
        (np.zeros((300, 300), np.uint8), {"photometric": "minisblack"}, "has pixels of 1 x uint8, not 8-bit RGB"),
        (np.zeros((4, 300, 300), np.uint8), {"photometric": "minisblack"}, "not 8-bit RGB"),
    ],
    ids=["16 bits", "grey", "channels"],
)
def test_what_is_no_colour_picture_is_refused(
    tmp_path: Path, pixels: np.ndarray, options: dict[str, Any], line: str
) -> None:
    path = write_other(tmp_path / "a.tif", pixels, tile=(256, 256), **options)
    assert line in refusal(path, SlideUnreadable)


def test_a_slide_in_one_huge_piece_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_pipeline.slides.readers.LARGEST_PIECE", 100_000)
    path = write_other(tmp_path / "a.tif", texture(300, 300), photometric="rgb", rowsperstrip=300)
    assert "in one piece; convert it to a tiled pyramid" in refusal(path, SlideUnreadable)


@pytest.mark.testdata
def test_dicom_overviews_open_and_are_refused_as_too_coarse(testdata: Path) -> None:
    for name in ("camelyon_overview_jpeg.dcm", "camelyon_overview_j2k.dcm"):
        assert "28.97" in refusal(testdata / "slides" / name, SlideTooCoarse, needed_mpp=1.0)


@pytest.mark.testdata
def test_an_ome_tiff_that_openslide_refuses_is_read(testdata: Path) -> None:
    with open_slide(ref(testdata / "slides" / "instanseg_HE_example.ome.tif"), needed_mpp=1.0) as slide:
        assert slide.size == (1380, 1484)
        assert slide.mpp == pytest.approx(0.5, abs=1e-3)
