"""How far a run is: read from its files, without touching any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wsi_pipeline.errors import WsiError
from wsi_pipeline.files import read_json
from wsi_pipeline.qupath import open_project
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.state import read_run
from wsi_pipeline.states import META_SLIDE, META_STATE


@dataclass(frozen=True, slots=True)
class SlideStatus:
    """One line of the status table. `review` is the state in the QuPath project, None before the handout."""

    slide_id: str
    prediction: str
    regions: int | None
    tissue_mm2: float | None
    flags: tuple[str, ...]
    review: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """One project: whose it is, and by state the images in it."""

    batch: str
    rater: str | None
    images: dict[str, int]


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The whole table, and what could not be read.

    A slide that several people read is one slide and several images.
    """

    run_id: str
    model: str
    slides: tuple[SlideStatus, ...]
    batches: tuple[BatchStatus, ...]
    problems: tuple[str, ...]

    @property
    def predictions(self) -> Counter[str]:
        return Counter(slide.prediction for slide in self.slides)

    @property
    def images(self) -> Counter[str]:
        """Images in the projects by their state."""
        total: Counter[str] = Counter()
        for batch in self.batches:
            total.update(batch.images)
        return total


def status_of(run: RunDir) -> RunStatus:
    """Read run.json, the slides' summaries and the projects' image states.

    Raises
    ------
    StoreError
        There is no run, or run.json is damaged.
    """
    record = read_run(run.run_json)
    problems: list[str] = []
    batches, states = _reviews(run, problems)
    reviews = {slide_id: _together(found) for slide_id, found in states.items()}
    slides = []
    for slide_id, slide in record.slides.items():
        summary = _summary(run, slide_id)
        slides.append(
            SlideStatus(
                slide_id=slide_id,
                prediction=slide.state,
                regions=summary.get("regions"),
                tissue_mm2=summary.get("tissue_mm2"),
                flags=tuple(summary.get("flags", ())),
                review=reviews.get(slide_id),
                reason=slide.reason,
            )
        )
    return RunStatus(record.run_id, str(record.model.get("id", "")), tuple(slides), tuple(batches), tuple(problems))


def _summary(run: RunDir, slide_id: str) -> dict[str, Any]:
    path = run.slide(slide_id).summary
    value = read_json(path) if path.exists() else {}
    return value if isinstance(value, dict) else {}


def _reviews(run: RunDir, problems: list[str]) -> tuple[list[BatchStatus], dict[str, list[str]]]:
    """What each project says, and by slide the states of its images."""
    batches: list[BatchStatus] = []
    states: dict[str, list[str]] = {}
    for plan in sorted(run.handout.glob("*/plan.json")):
        found: Counter[str] = Counter()
        try:
            value = read_json(plan)
            ids = {slide.get("case") or slide["slide_id"]: slide["slide_id"] for slide in value["slides"]}
            project = open_project(run.root / value["project"], backend="native", read_only=True)
            for image in project.images():
                tag = image.metadata.get(META_SLIDE)
                if tag is not None:
                    state = image.metadata.get(META_STATE, "todo")
                    found[state] += 1
                    states.setdefault(ids.get(tag, tag), []).append(state)
        except (WsiError, KeyError) as error:
            problems.append(f"{plan.parent.name}: {error}")
            continue
        batches.append(BatchStatus(plan.parent.name, value.get("rater"), dict(found)))
    return batches, states


def _together(states: Sequence[str]) -> str:
    """The state of a slide; where several images of it differ, how many have which."""
    counts = Counter(states)
    if len(counts) == 1:
        return states[0]
    return ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
