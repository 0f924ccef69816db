"""The overview picture: regions where they are, in their colours, with a scale bar that is right."""

from __future__ import annotations

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
from wsi_pipeline.slides.overview import SIDE, draw_overview, write_overview

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


def test_the_scale_bar_has_the_length_that_it_names() -> None:
    image = drawn()
    row = image[300 - 18]
    dark = np.flatnonzero(row.max(axis=1) < 60)
    # 400 px are 2 mm: a bar of 0.2 mm (200 µm) is 40 px.
    assert len(dark) == pytest.approx(41, abs=1)


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
        assert max(image.size) == SIDE
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
