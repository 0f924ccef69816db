"""Pictures in the page show the place that they say they show."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.report.build_run import SIZE, Recipe, build_run, write_tiff
from wsi_pipeline.report.facts import Slide
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.report.pictures import Picture, Tile, crops, thumbnail
from wsi_pipeline.rundir import RunDir, SlideDir

TILE = Tile(1024, 768, 512, 512)
GREEN = (20, 200, 40)


def pixels(picture: Picture | None) -> NDArray[np.uint8]:
    assert picture is not None
    head, data = picture.uri.split(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def greenness(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (image[..., 1] > 150) & (image[..., 0] < 110)


@pytest.fixture
def marked(folder: Path) -> tuple[Slide, SlideDir]:
    """A reachable slide whose tile `TILE` is green, in the slide and in the thumbnail."""
    run = build_run(folder, Recipe(slides=1, reachable=frozenset({0})))
    slide = load_run(run).slides[0]
    painted = np.full((SIZE[1], SIZE[0], 3), 230, np.uint8)
    painted[TILE.y : TILE.y + TILE.height, TILE.x : TILE.x + TILE.width] = GREEN
    assert slide.uri is not None
    write_tiff(Path(slide.uri), painted)
    place = run.slide(slide.slide_id)
    Image.fromarray(painted).resize((640, 448)).save(place.thumbnail, quality=95)
    return slide, place


@pytest.mark.parametrize("reachable", [True, False])
def test_a_crop_shows_its_tile_in_the_middle_from_the_slide_or_from_the_thumbnail(
    marked: tuple[Slide, SlideDir], reachable: bool
) -> None:
    slide, place = marked
    if not reachable:
        assert slide.uri is not None
        Path(slide.uri).unlink()
    (crop,) = crops(slide, place, [TILE], side=300, quality=90)
    green = greenness(pixels(crop))
    assert green.shape == (300, 300)
    expected = np.zeros((300, 300), bool)
    expected[50:250, 50:250] = True
    assert (green != expected).mean() < 0.03
    assert crop is not None
    assert (crop.note is None) == reachable


def test_beyond_the_edge_of_the_slide_a_crop_is_white(marked: tuple[Slide, SlideDir]) -> None:
    slide, place = marked
    (crop,) = crops(slide, place, [Tile(0, 0, 512, 512)], side=300, quality=90)
    image = pixels(crop)
    assert image[:40].mean() > 250
    assert image[:, :40].mean() > 250
    assert 220 < image[70:, 70:].mean() < 240


@pytest.mark.parametrize("content", [b"", b"not a slide", None])
def test_an_unreadable_slide_falls_back_to_the_thumbnail_and_says_so(
    marked: tuple[Slide, SlideDir], content: bytes | None
) -> None:
    slide, place = marked
    assert slide.uri is not None
    path = Path(slide.uri)
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    (crop,) = crops(slide, place, [TILE], side=120, quality=80)
    assert crop is not None
    assert crop.note == "Enlarged from the thumbnail: the slide could not be read."


def test_a_slide_that_was_exchanged_for_another_size_is_not_shown(marked: tuple[Slide, SlideDir]) -> None:
    slide, place = marked
    assert slide.uri is not None
    write_tiff(Path(slide.uri), np.full((512, 512, 3), 200, np.uint8))
    (crop,) = crops(slide, place, [TILE], side=120, quality=80)
    assert crop is not None
    assert crop.note is not None


def test_a_thumbnail_is_bounded_and_its_frame_is_the_whole_slide(marked: tuple[Slide, SlideDir]) -> None:
    slide, place = marked
    picture = thumbnail(slide, place, side=200, quality=70)
    assert picture is not None
    assert max(pixels(picture).shape) == 200
    assert (picture.frame.x, picture.frame.y, picture.frame.width, picture.frame.height) == (0, 0, *SIZE)
    assert picture.frame.scale == pytest.approx(200 / SIZE[0])


def test_the_overview_stands_in_for_a_missing_thumbnail(marked: tuple[Slide, SlideDir]) -> None:
    slide, place = marked
    place.thumbnail.unlink()
    picture = thumbnail(slide, place, side=200, quality=70)
    assert picture is not None
    assert picture.note is not None
    place.overview.write_bytes(b"damaged")
    assert thumbnail(slide, place, side=200, quality=70) is None


def test_a_slide_of_unknown_size_has_no_picture(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.root.joinpath("run.json").write_text('{"schema": 1, "slides": {"a": {"state": "failed"}}}')
    (slide,) = load_run(run).slides
    assert thumbnail(slide, run.slide("a"), side=100, quality=70) is None
