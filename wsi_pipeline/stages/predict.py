"""From slides to regions: tissue, inference, polygons, review tiles and a picture of each slide."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort import Cohort, SlideRef, load_cohort
from wsi_pipeline.config import Config
from wsi_pipeline.errors import ConfigError, SlideError, StoreError
from wsi_pipeline.files import remove_partials
from wsi_pipeline.inference import Engine, EngineSettings, SlideJob, SlideResult
from wsi_pipeline.models import ModelCard, load_card
from wsi_pipeline.progress import LogProgress, Progress
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.lock import exclusive
from wsi_pipeline.stages.slide import PreparedSlide, finish_slide, is_done, prepare_slide
from wsi_pipeline.stages.state import RunRecord, SlideRecord, public_config, read_run, run_id_of, versions

logger = logging.getLogger(__name__)

# run.json of a large cohort is megabytes: not after each slide.
SAVE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: counts of slides by state, and why those that failed did."""

    done: int
    failed: int
    queued: int
    reasons: dict[str, str]


def predict_cohort(
    config: Config,
    *,
    limit: int | None = None,
    only: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Predict every slide of the cohort that is not done yet.

    A slide that fails is recorded in run.json with its reason; the others go on. A killed call is resumed
    by calling again and gives the same bytes.

    Parameters
    ----------
    limit
        At most that many of the slides that are left.
    only
        Slide ids; others are left as they are.

    Raises
    ------
    ConfigError
        No slide at all, an unknown id in `only`, or a model without the classes that `model.classes` names.
    ModelError, RunLocked, StoreError
        The model cannot be used, another process works here, or the output cannot be written.
    """
    progress = progress or LogProgress()
    run = RunDir(config.output)
    model_path = model_path_of(config)
    card = load_card(model_path)
    _check_classes(config, card)
    cohort = load_cohort(config)
    if not cohort.slides and not cohort.problems:
        raise ConfigError("the cohort is empty: `cohort.slides` matches nothing")
    with exclusive(run.lock):
        ledger = Ledger.start(run, config, card, cohort)
        todo = chosen(cohort, only)
        _predict(config, run, model_path, card, ledger, todo, limit, progress)
        return ledger.outcome()


def model_path_of(config: Config) -> str:
    """The model's path, absolute unless it names a built-in one."""
    path = config.model.path
    return path if path.startswith("baseline:") else str(config.resolve(path))


def _check_classes(config: Config, card: ModelCard) -> None:
    wanted = config.model.classes
    found = [spec.name for spec in card.foreground]
    if wanted is not None and list(wanted) != found:
        raise ConfigError(
            f"model.classes: the configuration wants {', '.join(wanted)}, the card of {card.name} has "
            f"{', '.join(found)}; take another model, or correct `model.classes`"
        )


def chosen(cohort: Cohort, only: Sequence[str] | None) -> list[SlideRef]:
    if only is None:
        return list(cohort.slides)
    known = {ref.slide_id: ref for ref in cohort.slides}
    unknown = [slide_id for slide_id in only if slide_id not in known]
    if unknown:
        raise ConfigError(f"--slides {unknown[0]}: there is no such slide; `wsi-pipeline slides` lists the ids")
    return [known[slide_id] for slide_id in only]


class Ledger:
    """run.json while a call works on it."""

    def __init__(self, run: RunDir, record: RunRecord) -> None:
        self._run = run
        self.record = record
        self._saved = 0.0

    @classmethod
    def start(cls, run: RunDir, config: Config, card: ModelCard, cohort: Cohort) -> Ledger:
        """Open the run's record, or begin one; slides that another recipe did are queued again."""
        model = {"id": card.model_id, "sha256": card.sha256, "name": card.name}
        run_id = run_id_of(config, {**model, "card": card.dump()})
        before = read_run(run.run_json) if run.run_json.exists() else None
        same = before is not None and before.run_id == run_id
        if before is not None and not same:
            logger.warning("model or settings changed since the last call: predictions are made anew")
        known = before.slides if before is not None and same else {}
        slides = {}
        for ref in cohort.slides:
            fresh = SlideRecord(
                state="queued", uri=ref.uri, name=ref.name, patient=ref.patient, site=ref.site, scanner=ref.scanner
            )
            old = known.get(ref.slide_id)
            slides[ref.slide_id] = old if old is not None and old.state == "done" and old.uri == ref.uri else fresh
        for problem in cohort.problems:
            slides.setdefault(
                problem.slide,
                SlideRecord(state="failed", uri=problem.slide, name=Path(problem.slide).name, reason=_why(problem)),
            )
            logger.error("%s", problem)
        classes = [{"name": spec.name, "color": list(spec.color)} for spec in card.foreground]
        ledger = cls(
            run,
            RunRecord(
                run_id=run_id,
                config=public_config(config),
                versions=versions(),
                model={**model, "mpp": card.mpp, "classes": classes, "temperature": card.temperature},
                runtime=before.runtime if before is not None and same else {},
                slides=slides,
            ),
        )
        ledger.save()
        return ledger

    def set_runtime(self, runtime: dict[str, Any]) -> None:
        self.record = self.record.model_copy(update={"runtime": runtime})
        self.save()

    def update(self, slide_id: str, **changes: Any) -> None:
        old = self.record.slides[slide_id]
        # In place: a copy of the whole dict for each of 10,000 slides would be quadratic.
        self.record.slides[slide_id] = old.model_copy(update=changes)
        if time.monotonic() - self._saved >= SAVE_EVERY_S:
            self.save()

    def fail(self, slide_id: str, error: SlideError | StoreError) -> None:
        logger.error("%s", error)
        self.update(slide_id, state="failed", reason=_why(error))

    def save(self) -> None:
        self.record.write(self._run.run_json)
        self._saved = time.monotonic()

    def outcome(self) -> Outcome:
        states = [record.state for record in self.record.slides.values()]
        reasons = {k: r.reason or "" for k, r in self.record.slides.items() if r.state == "failed"}
        return Outcome(states.count("done"), states.count("failed"), states.count("queued"), reasons)


def _why(error: SlideError | StoreError) -> str:
    return f"{error.cause}; {error.remedy}" if isinstance(error, SlideError) else str(error)
