"""What each pixel of an overview is: stained, faintly stained, or pen; judged in optical density, strip by strip.

Optical density is the light that the slide takes away, counted from the glass beside it (Beer-Lambert: the amounts
of several dyes add up). Glass is told from tissue by being even: on eleven real overviews, H&E of several laboratories,
the standard deviation of density over 5 x 5 px was under 0.002 on half of the glass (but for one without clear glass)
and above 0.006 on 99 % of the tissue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.slides.filters import gaussian, mean
from wsi_pipeline.slides.pieces import Mask, Pieces
from wsi_pipeline.slides.readers import RGBImage
from wsi_pipeline.slides.shapes import grown, near, without_small

Floats = NDArray[np.float32]

# Rows that are judged together.
STRIP = 512
# The smoothing and the local deviation look this many rows further.
REACH = 8
SMOOTHING = 0.7

# In units of optical density.
FLAT = 0.006
LEAST_DENSITY = 0.02
LEAST_COLOUR = 0.03
FAINT_DENSITY = 0.006
FAINT_COLOUR = 0.012
GREY_COLOUR = 0.22
FAINT_GREY_COLOUR = 0.5
CLEAR = 0.012
STAIN_GREEN_TO_RED = 0.92
STAIN_GREEN_TO_BLUE = 0.35
PEN_RED = 0.25
PEN_GREEN_TO_RED = 0.8
# Glass is at most this dark and this coloured, and covers at least this share of a picture that shows any.
DARKEST_GLASS = 0.25
MOST_TINT = 0.12
LEAST_GLASS = 0.01
# A scanner fills what it skipped with pure white; the real glass beside it covers at least this share.
LEAST_BESIDE_FILL = 0.03

# Between the lines of a web there is clear glass within this width; under a shadow or a fringe of light there is none.
CLEAR_UM = 72.0

PEN_SPECK_UM2 = 4000.0
PEN_RIM_UM = 24.0
# Ink is even, a blue stain (Masson's trichrome) has the texture of the tissue: first quartile of local deviation
# over density, measured at 0.01 to 0.10 on pens and from 0.13 on in tissue.
PEN_EVENNESS = 0.12

_DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)


class Judged(NamedTuple):
    """Masks of one overview.

    `stained` has the colour of a stain; `faint` only a trace of it, but with texture (fat, oedema, mucus); `pen`
    is ink of a felt-tip pen with its rim.
    """

    stained: Mask
    faint: Mask
    pen: Mask


class Density(NamedTuple):
    """Density of some rows: each band and their mean, float32 (n, w)."""

    red: Floats
    green: Floats
    blue: Floats
    mean: Floats

    @classmethod
    def of(cls, image: RGBImage, glass: NDArray[np.float32] | None = None) -> Density:
        red, green, blue = (_DENSITY[image[..., band]] for band in range(3))
        if glass is not None:
            red, green, blue = red - glass[0], green - glass[1], blue - glass[2]
        return cls(red, green, blue, _mean(red, green, blue))

    @property
    def colour(self) -> Floats:
        """How far the bands lie apart; 0 for grey."""
        bands = self.red, self.green, self.blue
        most, least = np.maximum(*bands[:2]), np.minimum(*bands[:2])
        return np.asarray(np.maximum(most, bands[2]) - np.minimum(least, bands[2]), np.float32)

    def smoothed(self) -> Density:
        red, green, blue = (gaussian(band, SMOOTHING) for band in self[:3])
        return Density(red, green, blue, _mean(red, green, blue))

    def deviation(self) -> Floats:
        """Standard deviation of the mean over 5 x 5 px."""
        level = mean(self.mean, 2)
        # float32 leaves about 1e-7 of a mean square of up to 6: a deviation of 0.001 at most, on black.
        square = mean(self.mean * self.mean, 2)
        return np.asarray(np.sqrt(np.maximum(square - level * level, 0)), np.float32)


def _mean(red: Floats, green: Floats, blue: Floats) -> Floats:
    # Numpy's own mean over an axis of length 3 takes ten times as long.
    return np.asarray((red + green + blue) * np.float32(1 / 3), np.float32)


def judge(image: RGBImage, mpp: float, *, pens: bool = True) -> Judged:
    """Judge every pixel of an overview of `mpp` µm/px; see the module for how.

    Parameters
    ----------
    image
        uint8 (h, w, 3), RGB.
    pens
        Whether green and blue are taken for ink; else every colour is a stain.
    """
    glass = glass_density(image)
    masks = [np.zeros(image.shape[:2], bool) for _ in range(4)]
    evenness = np.zeros(image.shape[:2], np.uint8)
    clear = max(1, round(CLEAR_UM / mpp / 2))
    for rows, around, inner in _strips(len(image), clear + REACH):
        density = Density.of(image[around], glass)
        deviation = density.deviation()
        density = density.smoothed()
        strip = (*_stained(density, deviation, clear, pens), *_inked(density))
        for mask, part in zip(masks, strip, strict=True):
            mask[rows] = part[inner]
        evenness[rows] = np.minimum(deviation / np.maximum(density.red, 0.05) * 255, 255)[inner]
    stained, faint, core, weak = masks
    pen = _strokes(core, weak, evenness, mpp) if pens else np.zeros_like(core)
    return Judged(stained & ~pen, faint & ~pen, pen)


def glass_density(image: RGBImage) -> NDArray[np.float32]:
    """Density of the glass of this picture, float32 (3,): what all other densities are counted from.

    The brightest even colour that covers at least 1 % of the picture; pure white, with which scanners fill what
    they skipped, counts only when there is no other. A picture without even parts (all tissue) is taken to have been
    scanned on white glass.
    """
    colours = np.zeros(64**3, np.int64)
    fill = 0
    for _, around, inner in _strips(len(image), REACH):
        density = Density.of(image[around])
        even = (density.deviation() < FLAT) & (density.mean < DARKEST_GLASS) & (density.colour < MOST_TINT)
        found = image[around][inner][even[inner]]
        white = (found[:, 0] & found[:, 1] & found[:, 2]) == 255
        fill += int(white.sum())
        red, green, blue = (found[~white] >> 2).astype(np.int32).T
        colours += np.bincount(red << 12 | green << 6 | blue, minlength=64**3)
    pixels = image.shape[0] * image.shape[1]
    needed = LEAST_BESIDE_FILL if fill >= LEAST_GLASS * pixels else LEAST_GLASS
    return _brightest(colours.reshape(64, 64, 64), needed * pixels)


def _brightest(colours: NDArray[np.int64], needed: float) -> NDArray[np.float32]:
    """Median density of the brightest even pixels, `needed` of them; zeros when there are fewer."""
    index = np.flatnonzero(colours)
    counts = colours.ravel()[index]
    shades = _DENSITY[np.stack(np.unravel_index(index, colours.shape), axis=1) * 4 + 2]
    level = shades.mean(axis=1)
    order = np.argsort(level, kind="stable")
    until = np.searchsorted(counts[order].cumsum(), needed)
    if until >= len(order):
        return np.zeros(3, np.float32)
    # Light falls off to the sides of a slide: what is a little darker is the same glass.
    same = level <= level[order[until]] + 0.03
    return np.array([_weighted_median(shades[same, band], counts[same]) for band in range(3)], np.float32)


def _weighted_median(values: Floats, weights: NDArray[np.int64]) -> float:
    order = np.argsort(values, kind="stable")
    total = weights[order].cumsum()
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _strips(height: int, more: int) -> Iterator[tuple[slice, slice, slice]]:
    """Strips of rows: each strip's rows, those with `more` rows around it, and the strip's rows within these."""
    for top in range(0, height, STRIP):
        bottom = min(top + STRIP, height)
        first = max(0, top - more)
        yield slice(top, bottom), slice(first, min(height, bottom + more)), slice(top - first, bottom - first)


def _stained(density: Density, deviation: Floats, reach: int, pens: bool) -> tuple[Mask, Mask]:
    """Pixels with the colour of a stain; those with a trace of it, with texture, and clear glass within `reach` px.

    Haematoxylin, eosin and DAB all take more green than red light, or about as much; green and blue pens take
    red above all, and dirt, edges, folds of the cover glass and black marks take all colours alike. A mark of
    yellow or orange takes blue alone. Interference between glass and cover glass has pale colours too, but no
    clear glass in between.
    """
    red, green, blue, level = density
    colour = density.colour
    if pens:
        by_stain = (green >= STAIN_GREEN_TO_RED * red) & (green >= STAIN_GREEN_TO_BLUE * blue)
    else:
        by_stain = np.ones(green.shape, bool)
    strong = by_stain & (colour >= np.maximum(LEAST_COLOUR, GREY_COLOUR * level)) & (level > LEAST_DENSITY)
    faint = by_stain & (colour >= np.maximum(FAINT_COLOUR, FAINT_GREY_COLOUR * level)) & (level > FAINT_DENSITY)
    faint &= (deviation > FLAT) & near(level < CLEAR, reach)
    return strong, faint


def _inked(density: Density) -> tuple[Mask, Mask]:
    """Pixels with the colour of a green or blue felt-tip pen, dense and faded: far more red taken than green."""
    red, green = density.red, density.green
    core = (red > PEN_RED) & (green < PEN_GREEN_TO_RED * red)
    return core, core | ((red > PEN_RED / 3) & (green < STAIN_GREEN_TO_RED * red))


def _strokes(core: Mask, weak: Mask, evenness: NDArray[np.uint8], mpp: float) -> Mask:
    """The strokes among pixels of a pen's colour: no specks, even, with their faded parts and a rim."""
    strokes = without_small(core, PEN_SPECK_UM2 / mpp**2)
    pieces = Pieces.of(strokes, diagonal=True)
    if not len(pieces):
        return strokes
    by_piece = np.split(evenness[strokes][np.argsort(pieces.of_pixels, kind="stable")], np.cumsum(pieces.sizes)[:-1])
    strokes = pieces.drawn(np.array([np.percentile(values, 25) < 255 * PEN_EVENNESS for values in by_piece]))
    if not strokes.any():
        return strokes
    inked = strokes | weak
    with_faded = Pieces.of(inked, diagonal=False)
    reached = np.zeros(len(with_faded), bool)
    reached[with_faded.of_pixels[strokes[inked]]] = True
    return grown(with_faded.drawn(reached), max(1, round(PEN_RIM_UM / mpp)))
