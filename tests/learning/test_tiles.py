from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box

from tests.learning.made import CLASSES, MPP, VIOLET, annotation, write_slide
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import SlideNotFound, SlideTooCoarse
from wsi_pipeline.learning.labels import UNKNOWN, AnnotatedSlide
from wsi_pipeline.learning.samples import Tile
from wsi_pipeline.learning.tiles import tiles_of


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> AnnotatedSlide:
    path = tmp_path_factory.mktemp("slides") / "a.tif"
    disc = write_slide(path)
    return AnnotatedSlide(SlideRef("a", str(path), "a.tif", patient="p"), (annotation("Tumor", disc),))


def tiles(slide: AnnotatedSlide, **changes: object) -> list[Tile]:
    settings = {"mpp": 2 * MPP, "classes": CLASSES, "side": 64, **changes}
    return tiles_of([slide], **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("mpp", [MPP, 2 * MPP, 3.3 * MPP])
def test_labels_lie_where_the_pixels_are(slide: AnnotatedSlide, mpp: float) -> None:
    found = tiles(slide, mpp=mpp, per_slide=500)
    images, labels = np.stack([tile.image for tile in found]), np.stack([tile.labels for tile in found])
    violet = np.abs(images.astype(int) - VIOLET).sum(axis=-1) < 100
    assert labels.sum() > 1000 / mpp**2
    # The outline is a pixel wide where colours mix: a shift by half a pixel would show in ten times as many.
    wrong = int((violet != (labels == 1)).sum())
    assert wrong < 0.012 * labels.sum() / mpp


def test_tiles_lie_on_tissue_and_hold_what_is_known_of_them(slide: AnnotatedSlide) -> None:
    found = tiles(slide, per_slide=500)
    assert all(tile.image.shape == (64, 64, 3) and tile.labels.shape == (64, 64) for tile in found)
    assert {(tile.slide_id, tile.group) for tile in found} == {("a", "p")}
    # 500 px at the model's resolution are 8 x 8 squares, of which the outer ones are mostly glass.
    assert 36 <= len(found) <= 64


def test_at_most_so_many_tiles_half_of_them_with_the_class(slide: AnnotatedSlide) -> None:
    found = tiles(slide, per_slide=10)
    assert len(found) == 10
    assert sum(bool((tile.labels == 1).any()) for tile in found) == 5


def test_where_one_half_is_short_the_other_fills_up(slide: AnnotatedSlide) -> None:
    everywhere = AnnotatedSlide(slide.ref, (annotation("Tumor", box(0, 0, 1000, 1000)),))
    nowhere = AnnotatedSlide(slide.ref, ())
    for annotated in (everywhere, nowhere):
        assert len(tiles(annotated, per_slide=10)) == 10


def test_the_same_seed_takes_the_same_tiles(slide: AnnotatedSlide) -> None:
    def taken(seed: int) -> list[bytes]:
        return [tile.labels.tobytes() for tile in tiles(slide, per_slide=12, seed=seed)]

    assert taken(1) == taken(1)
    assert taken(1) != taken(2)


def test_what_nobody_has_reviewed_is_not_taken(slide: AnnotatedSlide) -> None:
    half = AnnotatedSlide(slide.ref, slide.objects, reviewed=box(0, 0, 500, 1000))
    found = tiles(half, per_slide=500)
    assert 0 < len(found) < len(tiles(slide, per_slide=500))
    assert all((tile.labels != UNKNOWN).any() for tile in found)
    assert tiles(AnnotatedSlide(slide.ref, slide.objects, reviewed=box(-50, -50, -10, -10))) == []


def test_a_missing_or_too_coarse_slide_is_named(slide: AnnotatedSlide, tmp_path: Path) -> None:
    gone = AnnotatedSlide(SlideRef("gone", str(tmp_path / "gone.tif"), "gone.tif"), ())
    with pytest.raises(SlideNotFound, match="gone"):
        tiles(gone)
    with pytest.raises(SlideTooCoarse, match="a: is too coarse"):
        tiles(slide, mpp=0.2)
