"""Collecting the corrections of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsi_pipeline.collect import CollectResult, collect
from wsi_pipeline.config import Config
from wsi_pipeline.errors import ModelError
from wsi_pipeline.learning.calibrate import read_calibration
from wsi_pipeline.models import is_named, load_card
from wsi_pipeline.models.machine import available_cores
from wsi_pipeline.privacy import expire_events
from wsi_pipeline.progress import Progress
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.lock import exclusive
from wsi_pipeline.stages.predict import model_path_of
from wsi_pipeline.stages.queue import write_queue
from wsi_pipeline.stages.state import read_run


def collect_run(config: Config, *, workers: int | None = None, progress: Progress | None = None) -> CollectResult:
    """Read every project of the run and write `review/`; see `wsi_pipeline.collect.collect`.

    Parameters
    ----------
    workers
        Processes at most; as many as there are cores unless told.
    """
    run = RunDir(config.output)
    with exclusive(run.lock):
        result = collect(
            run,
            config.review,
            config.costs,
            calibration=calibration_of(config),
            workers=workers or available_cores(),
            progress=progress,
        )
        # What was judged is no longer to be looked at.
        write_queue(
            run, [slide_id for slide_id, slide in read_run(run.run_json).slides.items() if slide.state == "done"]
        )
        if config.privacy.keep_events_days is not None:
            expire_events(run, config.review, config.privacy.keep_events_days)
        return result


def calibration_of(config: Config) -> dict[str, Any] | None:
    """What lies beside the configured model's card about its calibration; None without."""
    path = model_path_of(config)
    if is_named(path):
        return None
    try:
        # Corrections can be collected where the model is not.
        card = load_card(path)
    except ModelError:
        return None
    folder = Path(path)
    return read_calibration(folder.parent if folder.is_file() else folder, card)
