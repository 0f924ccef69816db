"""Synthetic slides: what is painted is what the truth says, whatever the size, and however it is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_pipeline.files import sha256_file
from wsi_pipeline.raster import fill
from wsi_pipeline.synthetic import Painter, Recipe, make_slide, read_truth
from wsi_pipeline.tiling import Bounds

SIZES = st.tuples(st.integers(16, 900), st.integers(16, 900))


def pixels(path: Path, level: int = 0) -> NDArray[np.uint8]:
    with tifffile.TiffFile(path) as file:
        return np.asarray(file.series[0].levels[level].asarray())


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        make_slide(tmp_path / name, width=700, height=611, seed=5, pen=True, dust=4)
    assert sha256_file(tmp_path / "a.tif") == sha256_file(tmp_path / "b.tif")


def test_another_seed_gives_another_slide() -> None:
    first, second = (Painter(Recipe(512, 512, seed)) for seed in (1, 2))
    assert not first.truth.tissue.equals(second.truth.tissue)
    whole = Bounds(0, 0, 512, 512)
    assert (first.read(whole) != second.read(whole)).any()


@settings(max_examples=12, deadline=None)
@given(size=SIZES, seed=st.integers(0, 99), data=st.data())
def test_a_rectangle_looks_the_same_however_the_slide_is_cut(
    size: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    width, height = size
    painter = Painter(Recipe(width, height, seed, pen=True, dust=3))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(x + 1, width)), data.draw(st.integers(y + 1, height))
    whole = painter.read(Bounds(0, 0, width, height))
    part = painter.read(Bounds(x, y, right, bottom))
    # Bilinear sums in another order may fall on the other side of a rounding.
    assert np.abs(whole[y:bottom, x:right].astype(int) - part).max() <= 1


@settings(max_examples=15, deadline=None)
@given(size=SIZES, seed=st.integers(0, 999), tissue=st.floats(0.05, 0.9), tumour=st.floats(0.05, 0.9))
def test_truth_is_valid_lies_in_the_slide_and_has_the_asked_shares(
    size: tuple[int, int], seed: int, tissue: float, tumour: float
) -> None:
    width, height = size
    truth = Painter(Recipe(width, height, seed, tissue_share=tissue, tumour_share=tumour)).truth
    frame = shapely.box(0, 0, width, height)
    for region in (truth.tissue, truth.tumour):
        assert region.is_valid
        assert region.is_empty or frame.covers(region)
    assert truth.tumour.difference(truth.tissue.buffer(0.02)).area < 1
    if min(size) > 300:
        assert truth.tissue.area / frame.area == pytest.approx(tissue, abs=0.08)
        assert truth.tumour.area / truth.tissue.area == pytest.approx(tumour, abs=0.12)


def test_tissue_is_coloured_and_glass_is_not() -> None:
    painter = Painter(Recipe(1024, 900, seed=3))
    image = painter.read(Bounds(0, 0, 1024, 900)).astype(int)
    saturation = image.max(axis=2) - image.min(axis=2)
    tissue = painter.truth.mask("tissue", 1.0)
    disagree = (saturation > 20) != tissue
    edge = shapely.length(painter.truth.tissue)
    # Only along the soft edge, a few px wide.
    assert disagree.sum() < 6 * edge + 50


def test_tumour_is_darker_than_stroma() -> None:
    painter = Painter(Recipe(1024, 1024, seed=4))
    image = painter.read(Bounds(0, 0, 1024, 1024)).mean(axis=2)
    tissue, tumour = painter.truth.mask("tissue", 1.0), painter.truth.mask("tumour", 1.0)
    assert image[tumour].mean() < image[tissue & ~tumour].mean() - 15


def test_pen_is_drawn_on_glass_only() -> None:
    with_pen, without = (Painter(Recipe(800, 800, seed=6, pen=pen)) for pen in (True, False))
    whole = Bounds(0, 0, 800, 800)
    changed = (with_pen.read(whole).astype(int) - without.read(whole)).any(axis=2)
    inside = shapely.get_parts(without.truth.tissue.buffer(-8))
    assert changed.sum() > 2000
    assert not (changed & fill(inside, whole)).any()


def test_an_empty_slide_is_glass_and_its_truth_is_empty(tmp_path: Path) -> None:
    truth = make_slide(tmp_path / "glass.tif", width=400, height=300, tissue_share=0)
    assert truth.tissue.is_empty
    assert truth.tumour.is_empty
    assert truth.objects() == []
    assert pixels(tmp_path / "glass.tif").min() > 225


def test_a_slide_of_nothing_but_tumour_is_full(tmp_path: Path) -> None:
    truth = make_slide(tmp_path / "full.tif", width=400, height=300, tissue_share=1, tumour_share=1)
    assert truth.tumour.area == pytest.approx(400 * 300, rel=1e-3)


@pytest.mark.parametrize(("stated", "expected"), [("true", 0.25), (0.005, 0.005), (None, None)])
def test_the_file_states_its_mpp_or_what_it_is_told_to(
    tmp_path: Path, stated: float | Literal["true"] | None, expected: float | None
) -> None:
    make_slide(tmp_path / "s.tif", width=2100, height=1100, mpp=0.25, stated_mpp=stated)
    with tifffile.TiffFile(tmp_path / "s.tif") as file:
        for level in file.series[0].levels:
            page = level.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            tags = page.tags
            if expected is None:
                assert tags["ResolutionUnit"].value == 1
            else:
                top, bottom = tags["XResolution"].value
                assert tags["ResolutionUnit"].value == 3
                assert 1e4 / (top / bottom) == pytest.approx(expected * 2100 / level.shape[1], rel=1e-4)


def test_what_is_saved_of_the_truth_is_read_again(tmp_path: Path) -> None:
    truth = Painter(Recipe(900, 700, seed=8)).truth
    truth.save(tmp_path / "truth.geojson", slide_id="s")
    again = read_truth(tmp_path / "truth.geojson", size=truth.size, mpp=truth.mpp)
    for before, after in ((truth.tissue, again.tissue), (truth.tumour, again.tumour)):
        assert before.symmetric_difference(after).area < 0.01 * before.length


def test_objects_of_the_truth_are_single_polygons_largest_first_with_stable_uuids() -> None:
    truth = Painter(Recipe(1500, 1500, seed=2)).truth
    objects = truth.objects(slide_id="x")
    areas = [o.geometry.area for o in objects if o.geometry is not None]
    assert areas == sorted(areas, reverse=True)
    assert all(o.geometry is not None and o.geometry.geom_type == "Polygon" for o in objects)
    assert [o.uuid for o in truth.objects(slide_id="x")] == [o.uuid for o in objects]
    assert {o.uuid for o in truth.objects(slide_id="y")}.isdisjoint({o.uuid for o in objects})


def test_a_mask_agrees_with_the_polygons_area() -> None:
    truth = Painter(Recipe(1111, 777, seed=9)).truth
    mask = truth.mask("tissue", 4.0)
    assert mask.shape == (195, 278)
    assert mask.sum() * 16 == pytest.approx(truth.tissue.area, rel=0.02)
