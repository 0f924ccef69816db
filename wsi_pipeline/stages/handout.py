"""From predicted slides to the QuPath project of the batch."""

from __future__ import annotations

import logging

import numpy as np
from PIL import Image

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import Config
from wsi_pipeline.errors import ConfigError, WsiError
from wsi_pipeline.files import read_json
from wsi_pipeline.handout import HandoutResult, HandoutSlide, hand_out
from wsi_pipeline.objects import PathClass
from wsi_pipeline.progress import LogProgress, Progress
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.regions import read_tiles, tile_objects
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.slides import TissueMask, open_slide
from wsi_pipeline.stages.lock import exclusive
from wsi_pipeline.stages.state import RunRecord, SlideRecord, located, read_run

logger = logging.getLogger(__name__)


def hand_out_run(config: Config, *, progress: Progress | None = None) -> HandoutResult:
    """Hand out every slide that is done.

    Raises
    ------
    StoreError, ProjectError
        There is no run, or the project cannot be written.
    ConfigError
        No slide is done yet.
    """
    progress = progress or LogProgress()
    run = RunDir(config.output)
    with exclusive(run.lock):
        record = read_run(run.run_json)
        done = {slide_id: slide for slide_id, slide in record.slides.items() if slide.state == "done"}
        if not done:
            raise ConfigError(f"no slide in {run.root} is predicted yet; run `wsi-pipeline predict` first")
        problems: list[str] = []
        slides = []
        progress.begin("handout", len(done))
        for slide_id, slide in done.items():
            try:
                slides.append(
                    _ready(run, record, slide_id, slide.model_copy(update={"uri": located(config, slide_id, slide)}))
                )
            except WsiError as error:
                problems.append(str(error))
            except (OSError, ValueError, KeyError) as error:
                problems.append(f"{slide_id}: its results cannot be read ({error}); run `wsi-pipeline predict` again")
            progress.finish(slide_id, "read")
        classes = [PathClass(c["name"], tuple(c["color"])) for c in record.model["classes"]]
        result = hand_out(run, config.handout, classes, slides, purpose=config.privacy.purpose)
        progress.end()
    result.problems[:0] = problems
    return result


def _ready(run: RunDir, record: RunRecord, slide_id: str, slide: SlideRecord) -> HandoutSlide:
    folder = run.slide(slide_id)
    summary = read_json(folder.summary)
    ref = SlideRef(slide_id, slide.uri, slide.name, mpp=slide.mpp if slide.mpp_source == "config" else None)
    with open_slide(ref) as opened:
        levels, crop, size = opened.levels, opened.crop, opened.size
    regions = read_geojson(folder.regions)
    tiles = tile_objects(read_tiles(folder.tiles), run_id=record.run_id)
    with Image.open(folder.thumbnail) as image:
        thumbnail = np.asarray(image.convert("RGB"))
    return HandoutSlide(
        slide_id=slide_id,
        name=slide.name if _is_unique(record, slide.name) else f"{slide.name} ({slide_id})",
        uri=slide.uri,
        size=size,
        mpp=slide.mpp or summary["mpp"],
        mpp_source=slide.mpp_source or "file",
        levels=levels,
        crop=crop,
        patient=slide.patient,
        run_id=record.run_id,
        objects=[*regions, *tiles],
        thumbnail=thumbnail,
        flags=summary["flags"],
        tissue=TissueMask.load(folder.tissue),
    )


def _is_unique(record: RunRecord, name: str) -> bool:
    return sum(slide.name == name for slide in record.slides.values()) == 1
