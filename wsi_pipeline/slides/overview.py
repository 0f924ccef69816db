"""A picture of the whole slide: tissue outlined, regions in the colours of their classes; scale bar and key below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.files import atomic
from wsi_pipeline.objects import RGB, Kind, PathObject
from wsi_pipeline.raster import fill
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.tissue import TissueMask
from wsi_pipeline.tiling import Bounds

SIDE = 1600
TISSUE_COLOR: RGB = (0, 120, 90)
TILE_COLOR: RGB = (240, 160, 0)
UNKNOWN_COLOR: RGB = (90, 90, 90)
INK: RGB = (30, 30, 30)
PAPER: RGB = (255, 255, 255)
# How much of a region's colour lies over the tissue.
TINT = 0.3
# Lines are drawn this many times larger and made small: smooth at any angle.
FINE = 2
# Widths in px of the picture; the pale line below makes outlines visible on dark tissue.
OUTLINE = 2.0
CASING = 4.0
FOOT = 46


def write_overview(
    path: Path, slide: Slide, tissue: TissueMask, objects: Sequence[PathObject], colors: Mapping[str, RGB]
) -> None:
    """Draw the picture and write it as PNG: the slide with its longer side at most 1600 px, and a foot below.

    Parameters
    ----------
    objects
        In level-0 px; annotations are filled and outlined, tiles framed, everything else is left out.
    colors
        Colour by class name.
    """
    image = draw_overview(slide.thumbnail(SIDE), max(slide.size), slide.mpp, tissue, objects, colors)
    with atomic(path) as file:
        # The picture of a texture: more effort makes it a twentieth smaller and takes five times as long.
        image.save(file, "PNG", compress_level=2)


def draw_overview(
    thumbnail: NDArray[np.uint8],
    longer_side: int,
    mpp: float,
    tissue: TissueMask,
    objects: Sequence[PathObject],
    colors: Mapping[str, RGB],
) -> Image.Image:
    """As `write_overview`, on a thumbnail of a slide whose longer side has `longer_side` level-0 px."""
    height, width = thumbnail.shape[:2]
    scale = longer_side / max(height, width)
    regions = [item for item in objects if item.kind is Kind.ANNOTATION and _has_area(item)]
    tiles = [item for item in objects if item.kind is Kind.TILE and _has_area(item)]

    tinted = thumbnail.copy()
    lines = Image.new("RGBA", (width * FINE, height * FINE), (255, 255, 255, 0))
    drawing = ImageDraw.Draw(lines)
    _tissue_lines(lines, tissue)
    for item in regions:
        color = color_of(item, colors)
        _tint(tinted, item.geometry, scale, color)
        _outline(drawing, item.geometry, scale, color)
    for item in tiles:
        _frame(drawing, item.geometry, scale)
    picture = Image.fromarray(tinted)
    small = lines.reduce(FINE)
    picture.paste(small, (0, 0), small)

    whole = Image.new("RGB", (width, height + FOOT), PAPER)
    whole.paste(picture, (0, 0))
    drawing = ImageDraw.Draw(whole)
    left = _scale_bar(drawing, width, height, mpp * scale)
    _key(drawing, _entries(regions, tiles, tissue, colors), left, width, height)
    return whole


def color_of(item: PathObject, colors: Mapping[str, RGB]) -> RGB:
    """The colour of an object: that of its class, else its own, else grey."""
    return colors.get(item.path_class or "", item.color or UNKNOWN_COLOR)


def _has_area(item: PathObject) -> bool:
    return item.geometry is not None and item.geometry.area > 0


def _tint(image: NDArray[np.uint8], geometry: BaseGeometry | None, scale: float, color: RGB) -> None:
    """Mix the colour into the pixels whose centre is inside; holes stay as they are."""
    if geometry is None:
        return
    x, y, right, bottom = (float(v) / scale for v in geometry.bounds)
    around = Bounds(int(x) - 1, int(y) - 1, int(right) + 2, int(bottom) + 2)
    box = around.within(Bounds(0, 0, image.shape[1], image.shape[0]))
    if not box.width or not box.height:
        return
    part = image[box.y : box.bottom, box.x : box.right]
    inside = fill(geometry, box, scale)
    part[inside] = np.rint(part[inside] * (1 - TINT) + np.array(color) * TINT).astype(np.uint8)


def _outline(drawing: ImageDraw.ImageDraw, geometry: BaseGeometry | None, scale: float, color: RGB) -> None:
    for polygon in shapely.get_parts(geometry):
        if isinstance(polygon, shapely.Polygon):
            for ring in (polygon.exterior, *polygon.interiors):
                points = [(x * FINE / scale, y * FINE / scale) for x, y, *_ in ring.coords]
                _line(drawing, points, color)


def _frame(drawing: ImageDraw.ImageDraw, geometry: BaseGeometry | None, scale: float) -> None:
    if geometry is not None:
        x, y, right, bottom = (float(v) * FINE / scale for v in geometry.bounds)
        _line(drawing, [(x, y), (right, y), (right, bottom), (x, bottom), (x, y)], TILE_COLOR)


def _line(drawing: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], color: RGB) -> None:
    drawing.line(points, fill=(*PAPER, 150), width=round(CASING * FINE), joint="curve")
    drawing.line(points, fill=(*color, 255), width=round(OUTLINE * FINE), joint="curve")


def _tissue_lines(lines: Image.Image, tissue: TissueMask) -> None:
    """The border of the mask, smoothed: its own pixels are larger than the picture's."""
    mask = Image.fromarray(tissue.mask.astype(np.uint8) * 255).resize(lines.size, Image.Resampling.BICUBIC)
    inside = np.asarray(mask) > 127
    border = np.zeros_like(inside)
    reach = round(OUTLINE * FINE / 2)
    for axis in (0, 1):
        rolled = np.moveaxis(border, axis, 0)
        values = np.moveaxis(inside, axis, 0)
        for step in range(1, reach + 1):
            changes = values[step:] != values[:-step]
            rolled[step:] |= changes
            rolled[:-step] |= changes
    lines.paste((*TISSUE_COLOR, 255), (0, 0, *lines.size), Image.fromarray(border))


def _scale_bar(drawing: ImageDraw.ImageDraw, width: int, height: int, mpp: float) -> int:
    """A bar of a round length, about a sixth of the picture, `mpp` µm per pixel; returns where it ends."""
    length_um = _round_length(width * mpp / 6)
    pixels = length_um / mpp
    left, middle = 14, height + FOOT // 2
    # Of a slide of a few pixels it is shorter than one.
    drawing.rectangle((left, middle - 3, left + max(0, pixels - 1), middle + 2), fill=INK)
    # In mm throughout: the font that comes with Pillow has no µ.
    label = f"{length_um / 1000:g} mm"
    font = ImageFont.load_default(size=18)
    drawing.text((left + pixels + 8, middle), label, fill=INK, font=font, anchor="lm")
    return round(left + pixels + 8 + drawing.textlength(label, font=font) + 34)


def _entries(
    regions: Iterable[PathObject], tiles: Sequence[PathObject], tissue: TissueMask, colors: Mapping[str, RGB]
) -> list[tuple[str, RGB, bool]]:
    """Name, colour, and whether it is filled, of all that is drawn: classes in the order of `colors`."""
    drawn = {item.path_class or "no class": color_of(item, colors) for item in regions}
    order = [*colors, *sorted(drawn)]
    entries = [(name, drawn[name], True) for name in dict.fromkeys(order) if name in drawn]
    if tissue.mask.any():
        entries.append(("tissue", TISSUE_COLOR, False))
    if tiles:
        entries.append(("look here", TILE_COLOR, False))
    return entries


def _key(
    drawing: ImageDraw.ImageDraw, entries: Iterable[tuple[str, RGB, bool]], left: int, width: int, height: int
) -> None:
    """Names beside their colours, as many as fit."""
    font = ImageFont.load_default(size=18)
    middle, side = height + FOOT // 2, 16
    for name, color, filled in entries:
        end = left + side + 8 + round(drawing.textlength(name, font=font))
        if end > width - 8:
            drawing.text((left, middle), "...", fill=INK, font=font, anchor="lm")
            return
        pale = _mixed(color) if filled else PAPER
        drawing.rectangle(
            (left, middle - side // 2, left + side - 1, middle + side // 2 - 1), fill=pale, outline=color, width=2
        )
        drawing.text((left + side + 8, middle), name, fill=INK, font=font, anchor="lm")
        left = end + 26


def _mixed(color: RGB) -> RGB:
    red, green, blue = (round(255 * (1 - TINT) + part * TINT) for part in color)
    return red, green, blue


def _round_length(um: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `um`."""
    power = 10.0 ** np.floor(np.log10(um))
    return float(max(step * power for step in (1, 2, 5) if step * power <= um))
