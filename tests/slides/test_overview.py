"""The overview picture: regions where they are, in their colours, with a scale bar that is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry.base import BaseGeometry

from tests.slides.make import write_slide
from tests.slides.test_reading import ref
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.slides import TissueMask, open_slide
from wsi_pipeline.slides.overview import FOOT, SIDE, TILE_COLOR, draw_overview, write_overview

RED = (200, 0, 0)


def annotation(geometry: BaseGeometry, kind: Kind = Kind.ANNOTATION) -> PathObject:
    return PathObject(uuid="u", kind=kind, geometry=geometry, path_class="Tumor")


def drawn(*objects: PathObject) -> np.ndarray:
    thumbnail = np.full((300, 400, 3), 240, np.uint8)
    tissue = TissueMask(np.zeros((30, 40), bool), 100.0)
    return np.asarray(draw_overview(thumbnail, 4000, 0.5, tissue, objects, {"Tumor": RED}))


def test_a_region_is_tinted_inside_and_outlined_and_its_hole_is_clear() -> None:
    ring = shapely.box(1000, 500, 3000, 2000).difference(shapely.box(1500, 1000, 2500, 1500))
    image = drawn(annotation(ring))
    assert tuple(image[50, 150]) == pytest.approx(RED, abs=3)
    assert image[70, 120, 1] < 200
    assert tuple(image[125, 200]) == (240, 240, 240)
    assert tuple(image[250, 350]) == (240, 240, 240)


def test_tiles_are_framed_and_other_objects_left_out() -> None:
    image = drawn(annotation(shapely.box(1000, 500, 2000, 1500), Kind.TILE))
    assert image[50, 150, 2] < 60
    assert tuple(image[100, 150]) == (240, 240, 240)
    assert (drawn(annotation(shapely.Point(2000, 1000))) == drawn()).all()


def test_overlapping_regions_do_not_cut_holes_into_each_other() -> None:
    ring = shapely.box(1000, 500, 3000, 2000).difference(shapely.box(1500, 1000, 2500, 1500))
    image = drawn(annotation(shapely.box(500, 200, 3500, 2500)), annotation(ring))
    once, twice = image[125, 200], image[70, 120]
    assert once[1] < 200, "the hole of the second shows the first"
    assert twice[1] < once[1]


@pytest.mark.parametrize("mpp", [0.25, 0.5, 3.3])
def test_the_scale_bar_has_the_length_that_it_names(mpp: float) -> None:
    thumbnail = np.full((300, 400, 3), 240, np.uint8)
    tissue = TissueMask(np.zeros((30, 40), bool), 100.0)
    image = np.asarray(draw_overview(thumbnail, 4000, mpp, tissue, (), {}))
    dark = image[300 + FOOT // 2, 14:].max(axis=1) < 60
    length = int(np.argmin(dark))
    um = length * 10 * mpp
    assert min(abs(um - named) for named in (50, 100, 200, 500, 1000, 2000, 5000)) < 10 * mpp
    assert 400 / 6 / 2.6 < length <= 400 / 6 + 1


def foot(*objects: PathObject, names: dict[str, tuple[int, int, int]]) -> np.ndarray:
    thumbnail = np.full((300, 900, 3), 240, np.uint8)
    tissue = TissueMask(np.zeros((30, 90), bool), 100.0)
    return np.asarray(draw_overview(thumbnail, 9000, 0.5, tissue, objects, names))[300:]


def test_the_key_names_what_is_drawn_and_nothing_else() -> None:
    names = {"Tumor": RED, "Stroma": (0, 0, 200)}
    region = annotation(shapely.box(0, 0, 500, 500))

    def has(image: np.ndarray, color: tuple[int, int, int]) -> bool:
        return bool((image == color).all(axis=2).any())

    assert not has(foot(names=names), RED)
    assert has(foot(region, names=names), RED)
    assert not has(foot(region, names=names), (0, 0, 200))
    assert not has(foot(region, names=names), TILE_COLOR)
    assert has(foot(region, annotation(shapely.box(0, 0, 9, 9), Kind.TILE), names=names), TILE_COLOR)


def test_a_key_of_many_classes_ends_before_the_picture_does() -> None:
    objects = [replace(annotation(shapely.box(0, 0, 90, 90)), path_class=f"a long name {n}") for n in range(30)]
    image = foot(*objects, names={})
    assert image.shape == (FOOT, 900, 3)
    assert (image[:, -3:] == 255).all()


def test_tissue_is_outlined() -> None:
    mask = np.zeros((30, 40), bool)
    mask[10:20, 10:30] = True
    thumbnail = np.full((300, 400, 3), 240, np.uint8)
    image = np.asarray(draw_overview(thumbnail, 4000, 0.5, TissueMask(mask, 100.0), (), {}))
    assert image[150, 100, 0] < 20
    assert tuple(image[150, 200]) == (240, 240, 240)


def test_the_picture_is_bounded_and_the_same_each_time(tmp_path: Path) -> None:
    pixels = np.full((1000, 2500, 3), 230, np.uint8)
    tissue = TissueMask(np.ones((10, 25), bool), 100.0)
    with open_slide(ref(write_slide(tmp_path / "a.tif", pixels))) as slide:
        for name in ("a.png", "b.png"):
            write_overview(tmp_path / name, slide, tissue, [annotation(shapely.box(0, 0, 500, 500))], {"Tumor": RED})
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (SIDE, SIDE * 1000 // 2500 + FOOT)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
