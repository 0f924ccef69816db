"""A picture of the whole slide: tissue outlined, regions in the colours of their classes, a scale bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from wsi_pipeline.files import atomic
from wsi_pipeline.objects import RGB, Kind, PathObject
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.tissue import TissueMask

SIDE = 1600
TISSUE_COLOR: RGB = (0, 120, 90)
TILE_COLOR: RGB = (240, 170, 0)
# How much of a region's colour lies over the tissue.
TINT = 0.28


def write_overview(
    path: Path, slide: Slide, tissue: TissueMask, objects: Sequence[PathObject], colors: Mapping[str, RGB]
) -> None:
    """Draw the picture and write it as PNG, its longer side at most 1600 px.

    Parameters
    ----------
    objects
        In level-0 px; annotations are filled and outlined, tiles framed, everything else is left out.
    colors
        Colour by class name.
    """
    image = draw_overview(slide.thumbnail(SIDE), max(slide.size), slide.mpp, tissue, objects, colors)
    with atomic(path) as file:
        image.save(file, "PNG")


def draw_overview(
    thumbnail: NDArray[np.uint8],
    longer_side: int,
    mpp: float,
    tissue: TissueMask,
    objects: Sequence[PathObject],
    colors: Mapping[str, RGB],
) -> Image.Image:
    """As `write_overview`, on a thumbnail of a slide whose longer side has `longer_side` level-0 px."""
    scale = longer_side / max(thumbnail.shape[:2])
    base = Image.fromarray(_with_tissue(thumbnail, tissue))
    picture = base.convert("RGBA")
    for item in objects:
        if item.geometry is None:
            continue
        color = colors.get(item.path_class or "", item.color or (90, 90, 90))
        if item.kind is Kind.ANNOTATION:
            for polygon in shapely.get_parts(item.geometry):
                if isinstance(polygon, shapely.Polygon):
                    _fill(picture, polygon, scale, color)
        elif item.kind is Kind.TILE:
            x, y, right, bottom = (float(v) / scale for v in item.geometry.bounds)
            ImageDraw.Draw(picture).rectangle((x, y, right, bottom), outline=(*TILE_COLOR, 255), width=2)
    picture = picture.convert("RGB")
    _scale_bar(picture, mpp * scale)
    return picture


def _with_tissue(thumbnail: NDArray[np.uint8], tissue: TissueMask) -> NDArray[np.uint8]:
    height, width = thumbnail.shape[:2]
    mask = np.asarray(Image.fromarray(tissue.mask).resize((width, height), Image.Resampling.NEAREST))
    edge = mask & ~ndimage.binary_erosion(mask, iterations=2)
    out = thumbnail.copy()
    out[edge] = TISSUE_COLOR
    return out


def _fill(picture: Image.Image, polygon: shapely.Polygon, scale: float, color: RGB) -> None:
    """Tint and outline one polygon, on a layer of its own size: its holes must not rub out what lies in them."""
    x, y, right, bottom = (v / scale for v in polygon.bounds)
    left, top = max(0, int(x) - 3), max(0, int(y) - 3)
    size = (min(int(right) + 4, picture.width) - left, min(int(bottom) + 4, picture.height) - top)
    if min(size) <= 0:
        return
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    drawing = ImageDraw.Draw(layer)
    rings = [
        [(px / scale - left, py / scale - top) for px, py, *_ in ring.coords]
        for ring in (polygon.exterior, *polygon.interiors)
    ]
    drawing.polygon(rings[0], fill=(*color, round(255 * TINT)))
    for hole in rings[1:]:
        drawing.polygon(hole, fill=(0, 0, 0, 0))
    for ring in rings:
        drawing.line(ring, fill=(*color, 255), width=2, joint="curve")
    picture.alpha_composite(layer, (left, top))


def _scale_bar(picture: Image.Image, mpp: float) -> None:
    """A bar of a round length, about a fifth of the picture, `mpp` µm per pixel of the picture."""
    length_um = _round_length(picture.width * mpp / 5)
    pixels = length_um / mpp
    # In mm throughout: the font that comes with Pillow has no µ.
    label = f"{length_um / 1000:g} mm"
    drawing = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(12, picture.width // 70))
    left, bottom = 16.0, picture.height - 16.0
    text = drawing.textbbox((0, 0), label, font=font)
    top = bottom - 10 - (text[3] - text[1]) - 10
    drawing.rectangle((left - 8, top - 4, left + max(pixels, text[2]) + 8, bottom + 6), fill=(255, 255, 255))
    drawing.rectangle((left, bottom - 5, left + pixels, bottom), fill=(20, 20, 20))
    drawing.text((left, top - text[1]), label, fill=(20, 20, 20), font=font)


def _round_length(um: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `um`."""
    power = 10.0 ** np.floor(np.log10(um))
    return float(max(step * power for step in (1, 2, 5) if step * power <= um))
