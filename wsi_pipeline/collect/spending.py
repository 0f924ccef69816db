"""What a run took beside its raters: machines, room on disk, and people who settle what raters did differently."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.times import ImageTime
from wsi_pipeline.config import Costs
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json
from wsi_pipeline.inference.access import files_of, is_url, told
from wsi_pipeline.inference.places import map_place
from wsi_pipeline.measures.ledger import UNTOLD, Basis, Told
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.spent import PREDICT, TRAIN, read_spent
from wsi_pipeline.states import ImageState, Source

_GB = 1e9


@dataclass(frozen=True, slots=True)
class Beside:
    """Counts for the ledger, each with how it is known or why there is none.

    Attributes
    ----------
    compute_s, gpu_s
        Seconds of machines and of accelerators; None where none was noted.
    storage_gb_months
        What the slides' folders and maps hold, times the months that they are kept.
    adjudicator_s
        Active time of those who settle disagreements.
    predicted
        Slides that are predicted, among which computing and storage are shared.
    """

    compute_s: float | None = None
    gpu_s: float | None = None
    storage_gb_months: float | None = None
    adjudicator_s: float | None = None
    predicted: int | None = None
    compute: Told = UNTOLD
    storage: Told = UNTOLD
    adjudicator: Told = UNTOLD


def beside_of(
    run: RunDir,
    costs: Costs,
    images: Sequence[CollectedImage],
    settled: Sequence[ImageTime],
    adjudicators: Collection[str],
) -> Beside:
    """Everything that the ledger counts beside the readers' time.

    Parameters
    ----------
    images
        Of all batches.
    settled
        Times of those who read nothing: adjudication.
    adjudicators
        Whom the configuration names.
    """
    record = _record(run)
    slides = record.get("slides") or {}
    done = [slide_id for slide_id, slide in slides.items() if slide.get("state") == "done"]
    compute_s, gpu_s, compute = computing(run, done)
    maps = ((record.get("config") or {}).get("inference") or {}).get("maps")
    storage, stored = storing(run, costs, done, maps)
    adjudicator_s, adjudicator = adjudicating(images, settled, adjudicators)
    return Beside(compute_s, gpu_s, storage, adjudicator_s, len(done) or None, compute, stored, adjudicator)


def _record(run: RunDir) -> dict[str, Any]:
    try:
        value = read_json(run.run_json) if run.run_json.is_file() else {}
    except StoreError:
        return {}
    return value if isinstance(value, dict) else {}


def computing(run: RunDir, done: Sequence[str]) -> tuple[float | None, float | None, Told]:
    """Seconds of machines and of accelerators that predicting and training took, as the run noted them."""
    spent = read_spent(run.compute_log)
    if not spent:
        return None, None, Told(why="no hours of computing were noted: an older version predicted, or another machine")
    noted = {item.slide_id for item in spent if item.stage == PREDICT} & set(done)
    trained = [item for item in spent if item.stage == TRAIN]
    seconds = sum(item.paid_s for item in spent if item.stage == PREDICT)
    parts = [f"predicting took {_duration(seconds)} on {_counted(len(noted), 'slide')}"]
    if trained:
        parts.append(f"{_counted(len(trained), 'training')} {_duration(sum(item.paid_s for item in trained))}")
    if len(noted) < len(done):
        parts.append(f"of {_counted(len(done) - len(noted), 'slide')} more nothing was noted")
    machines = [item.paid_s for item in spent if not item.on_gpu]
    gpus = [item.paid_s for item in spent if item.on_gpu]
    if gpus:
        parts.append(f"{_duration(sum(gpus))} of it on a GPU")
    return (
        sum(machines) if machines else None,
        sum(gpus) if gpus else None,
        Told(Basis.MEASURED, "; ".join(parts)),
    )


def storing(run: RunDir, costs: Costs, done: Sequence[str], maps: str | None) -> tuple[float | None, Told]:
    """GB · months of the slides' folders and maps; nothing is looked at where the configuration has no price for it."""
    missing = [key for key in ("storage_per_gb_month", "storage_months") if getattr(costs, key) is None]
    if missing or costs.storage_months is None:
        names = " and ".join(f"`costs.{key}`" for key in missing)
        return None, Told(why=f"{names} {'is' if len(missing) == 1 else 'are'} not given")
    if not done:
        return None, Told(why="no slide is predicted")
    try:
        size = sum(folder_bytes(run.slide(slide_id).root) for slide_id in done)
        if maps is not None:
            size += sum(_map_bytes(map_place(run, slide_id, maps)) for slide_id in done)
    except (OSError, StoreError) as error:
        return None, Told(why=f"the maps cannot be looked at: {' '.join(str(error).split())}")
    gb, months = size / _GB, costs.storage_months
    room = f"{gb:.3g} GB" if gb >= 1 else f"{1000 * gb:.3g} MB"
    why = f"{room} of {_counted(len(done), 'slide')} as they are now, kept for {months:g} months"
    return gb * months, Told(Basis.MODELLED, why)


def folder_bytes(folder: Path) -> int:
    """Sum of the sizes of all files below a folder; 0 where there is none."""
    total, waiting = 0, [folder] if folder.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _map_bytes(place: Path | str) -> int:
    if not is_url(place):
        return folder_bytes(Path(place))
    with told(place, "read"):
        files, folder = files_of(str(place))
        return int(files.du(folder)) if files.exists(folder) else 0


def adjudicating(
    images: Sequence[CollectedImage], settled: Sequence[ImageTime], adjudicators: Collection[str]
) -> tuple[float | None, Told]:
    """Active seconds of adjudicators: on images of their own batches, and, by their own logs, in others' projects."""
    if settled:
        basis = Basis.SIMULATED if any(time.source == Source.SIMULATED for time in settled) else Basis.MEASURED
        return sum(time.active_s for time in settled), Told(basis, f"active time in {_counted(len(settled), 'image')}")
    if adjudicators:
        return None, Told(why="no time of an adjudicator was found")
    decided = sum(image.state in {ImageState.ADJUDICATED, ImageState.LOCKED} for image in images)
    if not decided:
        return None, Told(why="no image was adjudicated")
    told_of = f"{_counted(decided, 'image')} {'is' if decided == 1 else 'are'} adjudicated"
    return None, Told(why=f"{told_of}, but `review.adjudicators` names nobody whose time it was")


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
