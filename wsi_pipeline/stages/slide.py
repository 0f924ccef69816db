"""What happens to one slide before the model: tissue, thumbnail, and whether its results are there already."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import Config
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json, write_bytes
from wsi_pipeline.inference import PredictionStore, SlideJob
from wsi_pipeline.inference.access import remove_store, store_exists
from wsi_pipeline.inference.slide_work import map_info
from wsi_pipeline.models import ModelCard
from wsi_pipeline.models.ensemble import Passes
from wsi_pipeline.models.macenko import Stains
from wsi_pipeline.regions.tiles import RECIPE as TILES_RECIPE
from wsi_pipeline.rundir import SlideDir
from wsi_pipeline.slides import TissueMask, find_tissue, open_slide, working_downsample
from wsi_pipeline.stages.stains import stains_of
from wsi_pipeline.stages.state import digest

logger = logging.getLogger(__name__)

# QuPath shows thumbnails of about this size in its project pane; the report draws on them.
THUMBNAIL_PX = 1024


@dataclass(frozen=True, slots=True)
class PreparedSlide:
    """A slide that was opened and looked at once, at low resolution.

    `downsample` is level-0 px to a pixel of the working level.
    """

    ref: SlideRef
    size: tuple[int, int]
    mpp: float
    mpp_source: str
    reader: str
    downsample: float
    tissue: TissueMask
    key: str
    stains: Stains | None = None

    def job(self, store: Path | str) -> SlideJob:
        """What the engine is asked for; `store` is where its maps lie."""
        return SlideJob(
            ref=self.ref,
            store=store,
            size=self.size,
            mpp=self.mpp,
            downsample=self.downsample,
            tissue=self.tissue,
            stains=self.stains,
        )


def prepare_slide(ref: SlideRef, config: Config, card: ModelCard, run_id: str, folder: SlideDir) -> PreparedSlide:
    """Open the slide, find its tissue, and leave tissue mask and thumbnail in its folder.

    Raises
    ------
    SlideError
        It cannot be opened, states no plausible mpp, or is too coarse for the model.
    StoreError
        The folder cannot be written.
    """
    mpp = config.inference.mpp or card.mpp
    with open_slide(ref, needed_mpp=mpp) as slide:
        tissue = find_tissue(slide, config.tissue)
        thumbnail = slide.thumbnail(THUMBNAIL_PX)
        prepared = PreparedSlide(
            ref=ref,
            size=slide.size,
            mpp=slide.mpp,
            mpp_source=slide.mpp_source,
            reader=slide.reader,
            downsample=working_downsample(slide, mpp),
            tissue=tissue,
            key=slide_key(run_id, ref.slide_id, slide.size, slide.mpp),
            stains=stains_of(slide, tissue) if card.preprocessing == "macenko" else None,
        )
    tissue.save(folder.tissue)
    _write_jpeg(folder, thumbnail)
    return prepared


def slide_key(run_id: str, slide_id: str, size: tuple[int, int], mpp: float) -> str:
    """What a slide's results depend on, as 16 hex digits: recipe, id, size and resolution."""
    return digest({"run": run_id, "slide": slide_id, "size": list(size), "mpp": mpp})


def tiles_key(config: Config) -> str:
    """What the review tiles depend on beside the recipe; they may change without a new run id."""
    names = ("tile_um", "max_tiles", "audit_tiles")
    return digest({"recipe": TILES_RECIPE, **{name: getattr(config.review, name) for name in names}})


def is_done(folder: SlideDir, ref: SlideRef, config: Config, run_id: str) -> bool:
    """Whether the slide's results are there, whole, and made by this recipe at the mpp that is stated now."""
    files = (folder.summary, folder.regions, folder.tiles, folder.overview, folder.thumbnail, folder.tissue)
    if not all(file.exists() for file in files):
        return False
    try:
        summary = read_json(folder.summary)
        same = summary["run_id"] == run_id and ref.mpp in (None, summary["mpp"])
        same = same and summary["tiles_key"] == tiles_key(config)
        return bool(same and not summary["blocks"]["failed"])
    except (StoreError, KeyError, TypeError):
        return False


def forget_summary(folder: SlideDir) -> None:
    """From here on the slide counts as not done, until `finish_slide` has written everything anew."""
    folder.summary.unlink(missing_ok=True)


def forget_other_maps(
    place: Path | str, prepared: PreparedSlide, card: ModelCard, passes: Passes | None = None
) -> None:
    """Remove the maps that another model, resolution or tissue mask left; they cannot be gone on with."""
    if not store_exists(place):
        return
    try:
        info = PredictionStore.open(place).info
        cells = prepared.tissue.cells(card.cell, prepared.downsample, prepared.size)
        wanted = map_info(prepared.job(place), card, info.block * card.output_downsample, cells, passes)
        same = not info.differences(wanted)
    except StoreError:
        same = False
    if not same:
        logger.warning("%s: maps of another model or other settings are made anew", prepared.ref.slide_id)
        remove_store(place)


def _write_jpeg(folder: SlideDir, pixels: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    write_bytes(folder.thumbnail, buffer.getvalue())
