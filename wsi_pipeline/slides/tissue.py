"""Where there is tissue: a mask at low resolution that pen, ink, dust, edges and pale stains do not mislead.

Pixels are judged one by one in `wsi_pipeline.slides.stains`; here they become pieces. Solid pieces are stained pixels,
closed over the gaps of loose tissue. Webs (fat above all) are faint pixels that lie close together over 200 µm,
where a single one would be dust. Small pieces go, small holes are filled, and a margin is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.config import Tissue
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import atomic
from wsi_pipeline.slides.filters import mean_of_bytes
from wsi_pipeline.slides.pieces import Mask
from wsi_pipeline.slides.shapes import closed, grown, opened, small_holes, without_small
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.stains import Judged, judge
from wsi_pipeline.tiling import Bounds, working_size

CLOSING_UM = 56.0
# A fat cell is 50 to 100 µm wide: webs are looked for over a few of them, and closed over more than one.
WEB_UM = 200.0
WEB_SHARE = 0.12
WEB_CLOSING_UM = 100.0

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
    judged = judge(image, mpp, pens=settings.pens)
    ink = judged.pen
    solid = opened(judged.stained, 1)
    web = _close_together(judged, mpp)
    found = closed(solid, _pixels(CLOSING_UM, mpp))
    found |= closed(solid | (judged.faint & web), _pixels(WEB_CLOSING_UM, mpp)) & web
    found &= ~ink
    found = without_small(found, settings.min_area_um2 / mpp**2)
    found |= small_holes(found, settings.max_hole_um2 / mpp**2) & ~ink
    return grown(found, round(settings.margin_um / mpp)) & ~ink


def _close_together(judged: Judged, mpp: float) -> Mask:
    """Where enough of the surroundings show stain to be a web; the picture goes on as its mirror image."""
    shown = (judged.faint | judged.stained).view(np.uint8) * np.uint8(255)
    return np.asarray(mean_of_bytes(shown, _pixels(WEB_UM / 2, mpp)) >= 255 * WEB_SHARE)


def _pixels(um: float, mpp: float) -> int:
    return max(1, round(um / mpp))
