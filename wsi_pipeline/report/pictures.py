"""Pictures inside the page: thumbnails and crops as data URIs of bounded size."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import SlideError
from wsi_pipeline.report.facts import Slide as SlideFacts
from wsi_pipeline.report.outlines import Frame
from wsi_pipeline.rundir import SlideDir
from wsi_pipeline.slides import Slide, open_slide
from wsi_pipeline.tiling import Bounds

logger = logging.getLogger(__name__)

# How much of a tile's side is shown around it, so that one sees where it lies.
CONTEXT = 0.25


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG as a data URI, and the part of the slide that it shows; `note` says what is special about it."""

    uri: str
    frame: Frame
    note: str | None = None


def thumbnail(slide: SlideFacts, folder: SlideDir, *, side: int, quality: int) -> Picture | None:
    """The whole slide, at most `side` pixels wide or high; None where the run kept no picture of it.

    The plain thumbnail is preferred; the overview, which has regions drawn into it, stands in for it.
    """
    if not slide.width or not slide.height:
        return None
    for path, note in ((folder.thumbnail, None), (folder.overview, "Drawn over the overview: no thumbnail was kept.")):
        image = _open(path)
        if image is not None:
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
            frame = Frame(0, 0, slide.width, slide.height, image.width / slide.width)
            return Picture(_jpeg(image, quality), frame, note)
    return None


@dataclass(frozen=True, slots=True)
class Tile:
    """A review tile: x, y, width, height in level-0 px."""

    x: int
    y: int
    width: int
    height: int

    @property
    def surroundings(self) -> Frame:
        """The tile with some context, without a scale as yet."""
        margin = CONTEXT * max(self.width, self.height)
        return Frame(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin, 1)


def crops(
    slide: SlideFacts, folder: SlideDir, tiles: Sequence[Tile], *, side: int, quality: int
) -> list[Picture | None]:
    """A picture of each tile and its surroundings: from the slide itself, else enlarged from the thumbnail.

    The slide is opened once. Where it cannot be reached, or a part cannot be decoded, the note says so.
    """
    with _opened(slide) as opened:
        return [_crop(slide, folder, opened, tile, side, quality) for tile in tiles]


@contextmanager
def _opened(slide: SlideFacts) -> Iterator[Slide | None]:
    if slide.uri is None:
        yield None
        return
    mpp = slide.mpp if slide.mpp_source == "config" else None
    try:
        opened = open_slide(SlideRef(slide_id=slide.slide_id, uri=slide.uri, name=slide.name, mpp=mpp))
    except (SlideError, OSError, ValueError) as error:
        # The page says so beside each crop; two hundred warnings would hide others.
        logger.info("crops of %s come from its thumbnail: %s", slide.slide_id, error)
        yield None
        return
    with opened:
        yield opened


def _crop(
    slide: SlideFacts, folder: SlideDir, opened: Slide | None, tile: Tile, side: int, quality: int
) -> Picture | None:
    around = tile.surroundings
    scale = side / max(around.width, around.height)
    if opened is not None and opened.size == (slide.width, slide.height):
        try:
            pixels = _read(opened, around, scale)
        except (SlideError, OSError, ValueError) as error:
            logger.warning("a crop of %s comes from its thumbnail: %s", slide.slide_id, error)
        else:
            image = Image.fromarray(pixels)
            return Picture(_jpeg(image, quality), Frame(around.x, around.y, around.width, around.height, scale))
    return _enlarged(slide, folder, around, scale, quality)


def _read(opened: Slide, around: Frame, scale: float) -> NDArray[np.uint8]:
    downsample = max(1.0, 1 / scale)
    corner = round(around.x / downsample), round(around.y / downsample)
    size = round(around.width / downsample), round(around.height / downsample)
    pixels = opened.read(Bounds(*corner, corner[0] + size[0], corner[1] + size[1]), downsample)
    if pixels.shape[:2] == (round(around.height * scale), round(around.width * scale)):
        return pixels
    image = Image.fromarray(pixels)
    size = round(around.width * scale), round(around.height * scale)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def _enlarged(slide: SlideFacts, folder: SlideDir, around: Frame, scale: float, quality: int) -> Picture | None:
    image = _open(folder.thumbnail)
    if image is None or not slide.width:
        return None
    ratio = image.width / slide.width
    box = (
        around.x * ratio,
        around.y * ratio,
        (around.x + around.width) * ratio,
        (around.y + around.height) * ratio,
    )
    size = max(1, round(around.width * scale)), max(1, round(around.height * scale))
    canvas = Image.new("RGB", (image.width + 2, image.height + 2), (255, 255, 255))
    canvas.paste(image, (1, 1))
    # Beyond the slide's edge there is white, as when the slide itself is read.
    enlarged = canvas.transform(
        size, Image.Transform.EXTENT, tuple(v + 1 for v in box), Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)
    )
    note = "Enlarged from the thumbnail: the slide could not be read."
    return Picture(_jpeg(enlarged, quality), Frame(around.x, around.y, around.width, around.height, scale), note)


def _open(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        return None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        logger.warning("left out of the report: %s cannot be read as a picture: %s", path.name, error)
        return None


def _jpeg(image: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
