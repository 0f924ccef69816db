"""Where there is tissue: a mask at low resolution that pen, ink, dust, edges and pale stains do not mislead.

Each pixel is judged in optical density, that is in how much light the slide takes away from the light of the glass
beside it. Tissue takes away colour (stained) or has texture (pale); pen is far more saturated in hues that no stain
has, or black and flat; edges and borders are grey and straight.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from wsi_pipeline.config import Tissue
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import atomic
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.tiling import Bounds, working_size

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

# In units of optical density; found on the overviews that are named in docs/tissue.md.
LEAST_DENSITY = 0.02
LEAST_COLOUR = 0.03
GREY_COLOUR = 0.22
STAIN_GREEN_TO_RED = 0.92
PEN_RED = 0.25
PEN_GREEN_TO_RED = 0.8
PEN_SPECK_UM2 = 4000.0
PEN_RIM_UM = 24.0
CLOSING_UM = 56.0

# The mask's longer side; a slide of 100,000 px at 0.25 µm/px has 3,125 px at 8 µm.
LARGEST_SIDE = 4096


@dataclass(frozen=True, slots=True)
class TissueMask:
    """Where tissue is.

    Attributes
    ----------
    mask
        bool (height, width), true on tissue; covers the whole slide from its top-left corner.
    downsample
        Level-0 px to a pixel of the mask.
    """

    mask: Mask
    downsample: float

    def cells(self, cell: int, downsample: float, size: tuple[int, int]) -> Mask:
        """Which cells of a grid hold tissue.

        Parameters
        ----------
        cell
            Side of a cell in pixels of the working level; the grid is anchored at the slide's corner.
        downsample
            Level-0 px to a pixel of the working level.
        size
            Width and height of the slide in level-0 px.

        Returns
        -------
        bool (rows, columns) of the cells that cover the working level.
        """
        width, height = working_size(size, downsample)
        rows, columns = -(-height // cell), -(-width // cell)
        y = self._edges(rows, cell * downsample, self.mask.shape[0])
        x = self._edges(columns, cell * downsample, self.mask.shape[1])
        sums = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1), np.int64)
        sums[1:, 1:] = self.mask.cumsum(0, dtype=np.int64).cumsum(1)
        (y0, y1), (x0, x1) = y, x
        inside = sums[y1][:, x1] - sums[y0][:, x1] - sums[y1][:, x0] + sums[y0][:, x0]
        return np.asarray(inside > 0)

    def _edges(self, count: int, side: float, length: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First and end mask pixel that each cell touches."""
        start = np.arange(count) * side / self.downsample
        first = np.clip(np.floor(start + 1e-9), 0, length).astype(np.intp)
        end = np.clip(np.ceil(start + side / self.downsample - 1e-9), 0, length).astype(np.intp)
        return first, end

    def share(self, bounds: Bounds) -> float:
        """Share of a level-0 rectangle that is tissue, 0 to 1."""
        d = self.downsample
        height, width = self.mask.shape
        box = Bounds(int(bounds.x / d), int(bounds.y / d), -int(-bounds.right // d), -int(-bounds.bottom // d))
        inside = box.within(Bounds(0, 0, width, height))
        part = self.mask[inside.y : inside.bottom, inside.x : inside.right]
        return float(part.mean()) if part.size else 0.0

    def area_um2(self, mpp: float) -> float:
        """Area of the tissue in µm², `mpp` µm per level-0 px."""
        return float(self.mask.sum()) * (self.downsample * mpp) ** 2

    def save(self, path: Path) -> None:
        """Write the mask as a PNG that says its own downsample."""
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("downsample", repr(self.downsample))
        with atomic(path) as file:
            Image.fromarray(self.mask.astype(np.uint8) * 255).convert("1").save(file, "PNG", pnginfo=info)

    @classmethod
    def load(cls, path: Path) -> TissueMask:
        """Read what `save` wrote."""
        try:
            with Image.open(path) as image:
                return cls(np.asarray(image.convert("L")) > 127, float(image.info["downsample"]))
        except (OSError, KeyError, ValueError) as error:
            raise StoreError(f"{path} is no tissue mask: {error}") from error


def find_tissue(slide: Slide, settings: Tissue) -> TissueMask:
    """Find the tissue of a slide.

    Parameters
    ----------
    settings
        Resolution of the mask in µm/px, smallest piece and largest hole in µm², margin in µm.

    Raises
    ------
    SlideError
        The slide cannot be read.
    """
    downsample = max(1.0, settings.mpp / slide.mpp, max(slide.size) / LARGEST_SIDE)
    image = slide.thumbnail(max(1, round(max(slide.size) / downsample)))
    downsample = max(slide.size) / max(image.shape[:2])
    return TissueMask(tissue_of(image, slide.mpp * downsample, settings), downsample)


def tissue_of(image: NDArray[np.uint8], mpp: float, settings: Tissue) -> Mask:
    """The tissue in a picture of `mpp` µm/px; see the module for how.

    Parameters
    ----------
    image
        uint8 (h, w, 3), RGB.

    Returns
    -------
    bool (h, w)
    """
    density = optical_density(image)
    marks = pen(density, mpp)
    found = stained(density) & ~marks
    found = _opened(found, 1)
    found = _closed(found, max(1, round(CLOSING_UM / mpp))) & ~marks
    pixel = mpp * mpp
    found = without_small(found, settings.min_area_um2 / pixel)
    found |= small_holes(found, settings.max_hole_um2 / pixel) & ~marks
    margin = round(settings.margin_um / mpp)
    if margin:
        found = _grown(found, margin) & ~marks
    return found


def optical_density(image: NDArray[np.uint8]) -> Floats:
    """Light taken away, -log10 of transmission relative to the glass of this picture, slightly smoothed.

    The glass is the median of the bright and colourless pixels; a picture without any (all tissue) is taken to
    have been scanned with white glass.

    Returns
    -------
    float32 (h, w, 3), about 0 on glass.
    """
    density = -np.log10((image.astype(np.float32) + 1) / 256)
    bright = (density.max(axis=2) < 0.16) & (np.ptp(density, axis=2) < 0.05)
    glass = np.median(density[bright], axis=0) if bright.mean() > 0.01 else np.zeros(3, np.float32)
    smooth = ndimage.gaussian_filter(density, (0.7, 0.7, 0))
    return np.asarray(smooth - glass.astype(np.float32), np.float32)


def stained(density: Floats) -> Mask:
    """Pixels with the colour of a stain.

    Haematoxylin, eosin and DAB all take more green than red light, or about as much; green and blue pens take
    red above all, and dirt, edges, folds of the cover glass and black marks take all colours alike.
    """
    red, green, blue = np.moveaxis(density, 2, 0)
    colour = density.max(axis=2) - density.min(axis=2)
    total = density.mean(axis=2)
    by_stain = green >= STAIN_GREEN_TO_RED * red
    not_grey = colour >= np.maximum(LEAST_COLOUR, GREY_COLOUR * total)
    # Green light is what stains take most, or blue with DAB; a mark of yellow or orange takes blue alone.
    not_yellow = green >= 0.35 * blue
    return np.asarray(by_stain & not_grey & not_yellow & (total > LEAST_DENSITY))


def pen(density: Floats, mpp: float) -> Mask:
    """Pixels of felt-tip pens: they take far more red than green light (green, blue) and are no specks."""
    red, green, _ = np.moveaxis(density, 2, 0)
    core = (red > PEN_RED) & (green < PEN_GREEN_TO_RED * red)
    core = without_small(core, PEN_SPECK_UM2 / mpp**2)
    if not core.any():
        return core
    weak = (red > PEN_RED / 3) & (green < STAIN_GREEN_TO_RED * red)
    halo = ndimage.binary_propagation(core, mask=core | weak)
    return _grown(np.asarray(halo), max(1, round(PEN_RIM_UM / mpp)))


def without_small(mask: Mask, pixels: float) -> Mask:
    """The mask without connected pieces (8 neighbours) of fewer than `pixels` pixels."""
    labels, count = ndimage.label(mask, np.ones((3, 3), bool))
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    keep = sizes >= pixels
    keep[0] = False
    return np.asarray(keep[labels])


def small_holes(mask: Mask, pixels: float) -> Mask:
    """Holes of the mask with at most `pixels` pixels; what reaches the picture's edge is no hole."""
    labels, count = ndimage.label(~mask)
    if count == 0:
        return np.zeros_like(mask)
    fill = np.bincount(labels.ravel()) <= pixels
    fill[0] = False
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        fill[edge] = False
    return np.asarray(fill[labels])


def _grown(mask: Mask, radius: int) -> Mask:
    """All pixels within `radius` pixels of the mask."""
    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask) <= radius)


def _opened(mask: Mask, radius: int) -> Mask:
    # What lies beyond the picture is taken to go on as at its edge.
    padded = np.pad(mask, radius, mode="edge")
    opened = ndimage.binary_opening(padded, iterations=radius)
    return np.asarray(opened[radius:-radius, radius:-radius])


def _closed(mask: Mask, radius: int) -> Mask:
    padded = np.pad(mask, radius + 1)
    grown = _grown(padded, radius)
    shrunk = ~_grown(~grown, radius)
    return np.asarray(shrunk[radius + 1 : -radius - 1, radius + 1 : -radius - 1] | mask)
