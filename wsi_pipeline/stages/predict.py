"""From slides to regions: tissue, inference, polygons, review tiles and a picture of each slide."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort import Cohort, SlideRef, load_cohort
from wsi_pipeline.config import Config
from wsi_pipeline.errors import ConfigError, SlideError, StoreError
from wsi_pipeline.files import remove_partials
from wsi_pipeline.inference import Engine, EngineSettings, SlideJob, SlideResult
from wsi_pipeline.inference.places import map_place
from wsi_pipeline.keys import without_paths
from wsi_pipeline.models import ModelCard, RuntimeChoice, is_named, load_card
from wsi_pipeline.models.gauge import Gauge, open_gauge
from wsi_pipeline.progress import LogProgress, Progress
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.spent import PREDICT, Meter
from wsi_pipeline.stages.lease import leased
from wsi_pipeline.stages.lock import exclusive
from wsi_pipeline.stages.moved import refuse_moved
from wsi_pipeline.stages.own_folder import refuse_foreign
from wsi_pipeline.stages.queue import write_queue
from wsi_pipeline.stages.slide import (
    PreparedSlide,
    forget_other_maps,
    forget_summary,
    is_done,
    prepare_slide,
)
from wsi_pipeline.stages.state import RunRecord, SlideRecord, public_config, read_run, recorded_uri, run_id_of, versions
from wsi_pipeline.stages.tracing import Tracing

logger = logging.getLogger(__name__)

# run.json of a large cohort is megabytes: not after each slide.
SAVE_EVERY_S = 5.0
# Slides whose polygons wait for the one thread that draws them.
MOST_FINISHING = 2


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
        No slide at all, slides that were moved, an unknown id in `only`, a model without the classes that
        `model.classes` names, or an output that holds something else.
    ModelError, RunLocked, StoreError
        The model cannot be used, another process works here or on its maps, or the output cannot be written.
    """
    progress = progress or LogProgress()
    run = RunDir(config.output)
    refuse_foreign(run)
    model_path = model_path_of(config)
    card = load_card(model_path)
    check_classes(config, card)
    cohort = load_cohort(config)
    if not cohort.slides and not cohort.problems:
        raise ConfigError("the cohort is empty: `cohort.slides` matches nothing")
    with exclusive(run.lock), _maps_of_its_own(config):
        refuse_moved(run, config, cohort)
        remove_partials(run.root, deep=False)
        ledger = Ledger.start(run, config, card, cohort)
        todo = chosen(cohort, only)
        _predict(config, run, model_path, ledger, todo, limit, progress)
        write_queue(run, [slide_id for slide_id in ledger.record.slides if ledger.is_done(slide_id)])
        return ledger.outcome()


def _maps_of_its_own(config: Config) -> AbstractContextManager[None]:
    maps = config.inference.maps
    return nullcontext() if maps is None else leased(maps, config.output)


def model_path_of(config: Config) -> str:
    """The model's path, absolute unless it names a built-in one or a function."""
    path = config.model.path
    return path if is_named(path) else str(config.resolve(path))


def check_classes(config: Config, card: ModelCard) -> None:
    """Raise `ConfigError` unless the model has just the classes that `model.classes` names, in whatever order."""
    wanted = config.model.classes
    found = [spec.name for spec in card.foreground]
    if wanted is not None and set(wanted) != set(found):
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
    return [known[slide_id] for slide_id in dict.fromkeys(only)]


def _predict(
    config: Config,
    run: RunDir,
    model_path: str,
    ledger: Ledger,
    refs: Sequence[SlideRef],
    limit: int | None,
    progress: Progress,
) -> None:
    todo = [ref for ref in refs if not ledger.is_done(ref.slide_id)]
    if len(refs) > len(todo):
        logger.info("%d slides are done already", len(refs) - len(todo))
    todo = todo[:limit]
    if not todo:
        return
    settings = _as_before(EngineSettings.of(config), ledger.record.runtime)
    meter = Meter(run.compute_log, PREDICT)
    with Engine(model_path, settings) as engine, ThreadPoolExecutor(1, thread_name_prefix="regions") as pool:
        ledger.set_runtime(engine.runtime)
        gauge = open_gauge(engine.card, model_path, runtime=engine.runtime.runtime, device=engine.runtime.device)
        device, units = engine.runtime.device, engine.units
        progress.begin("predict", len(todo))
        work = _Work(config, run, engine.card, gauge, ledger, progress, pool)
        try:
            for result in engine.predict(work.jobs(todo), progress.advance, work.tracing):
                work.take(result)
                units = engine.units
                meter.lap(device=device, units=units, here=engine.in_process, slide_id=result.slide_id)
            work.settle(0)
        finally:
            work.tracing.stop()
            # Not asked for anew: the cluster may be what went wrong.
            meter.lap(device=device, units=units, here=engine.in_process)
            ledger.save()
            progress.end()


def _as_before(settings: EngineSettings, runtime: Mapping[str, Any]) -> EngineSettings:
    """How the run was begun: a resumed one goes on in the same way, for the sake of the same bytes."""
    if not runtime:
        return settings
    chosen = {name: runtime[name] for name in ("device", "runtime", "precision")}
    # Left out of run.json where it is one.
    return replace(settings, **chosen, batch=runtime.get("batch", 1))


class _Work:
    """Slides on their way: prepared just before the engine wants them, finished while it goes on."""

    def __init__(
        self,
        config: Config,
        run: RunDir,
        card: ModelCard,
        gauge: Gauge | None,
        ledger: Ledger,
        progress: Progress,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._config = config
        self._run = run
        self._card = card
        self._gauge = gauge
        self._ledger = ledger
        self._progress = progress
        self._pool = pool
        self._prepared: dict[str, PreparedSlide] = {}
        self.tracing = Tracing(config, card, pool)
        self._finishing: deque[tuple[SlideResult, Future[dict[str, Any]]]] = deque()

    def jobs(self, refs: Iterable[SlideRef]) -> Iterator[SlideJob]:
        """Open each slide and find its tissue; one that cannot be used is recorded and left out."""
        for ref in refs:
            folder = self._run.slide(ref.slide_id)
            try:
                forget_summary(folder)
                remove_partials(folder.root)
                prepared = prepare_slide(ref, self._config, self._card, self._ledger.record.run_id, folder)
                place = map_place(self._run, ref.slide_id, self._config.inference.maps)
                forget_other_maps(place, prepared, self._card, EngineSettings.of(self._config).passes)
            except (SlideError, StoreError) as error:
                self._failed(ref.slide_id, error)
                continue
            self._ledger.update(
                ref.slide_id,
                width=prepared.size[0],
                height=prepared.size[1],
                mpp=prepared.mpp,
                mpp_source=prepared.mpp_source,
                reader=prepared.reader,
            )
            self._prepared[ref.slide_id] = prepared
            self.tracing.begin(ref.slide_id, prepared.mpp)
            yield prepared.job(place)

    def take(self, result: SlideResult) -> None:
        """A slide whose map is there (or is not): its regions are finished while the engine goes on."""
        prepared = self._prepared.pop(result.slide_id)
        for block, cause in sorted(result.causes.items())[:5]:
            logger.error("%s: block row %d, column %d: %s", result.slide_id, *block, cause)
        if result.error is not None or result.store is None:
            self.tracing.drop(result.slide_id)
            error = result.error or StoreError(f"{result.slide_id}: the prediction store cannot be opened")
            self._failed(result.slide_id, error)
            return
        # What only a finished slide needs is loaded while the model runs, not before.
        from wsi_pipeline.stages.finish import finish_slide

        tracer = self.tracing.take(result.slide_id, result.store)
        run_id, folder = self._ledger.record.run_id, self._run.slide(result.slide_id)
        job = self._pool.submit(
            finish_slide, prepared, result.store, tracer, self._config, self._card, run_id, folder, self._gauge
        )
        self._finishing.append((result, job))
        self.settle(MOST_FINISHING)

    def settle(self, left: int) -> None:
        """Wait until at most `left` slides are being finished."""
        while len(self._finishing) > left:
            result, job = self._finishing.popleft()
            slide_id = result.slide_id
            try:
                summary = job.result()
            except (SlideError, StoreError) as error:
                self._failed(slide_id, error)
                continue
            failed = summary["blocks"]["failed"]
            if failed:
                total = sum(summary["blocks"].values())
                reason = (
                    f"{failed} of {total} blocks could not be predicted ({_first(result)}see log/); mend the file, or "
                    "the store that it lies on, and run again"
                )
                self._ledger.update(slide_id, state="failed", reason=reason)
            else:
                self._ledger.update(slide_id, state="done", reason=None)
            self._progress.finish(slide_id, _note(summary))

    def _failed(self, slide_id: str, error: SlideError | StoreError) -> None:
        self._ledger.fail(slide_id, error)
        self._progress.finish(slide_id, "failed")


def _first(result: SlideResult) -> str:
    """Why the first of the blocks failed, without what to do."""
    for (row, column), cause in sorted(result.causes.items())[:1]:
        return f"row {row}, column {column}: {without_paths(cause).rsplit('; ', 1)[0]}; "
    return ""


def _note(summary: Mapping[str, Any]) -> str:
    flags = "".join(f"; {flag}" for flag in summary["flags"])
    return f"{summary['regions']} regions on {summary['tissue_mm2']:.2f} mm² of tissue{flags}"


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
                state="queued",
                uri=recorded_uri(config, ref),
                name=ref.name,
                patient=ref.patient,
                site=ref.site,
                scanner=ref.scanner,
                tissue=ref.tissue,
            )
            old = known.get(ref.slide_id)
            if (
                old is not None
                and _stays(old, ref, recorded_uri(config, ref))
                and is_done(run.slide(ref.slide_id), ref, config, run_id)
            ):
                fresh = old.model_copy(
                    update={name: getattr(ref, name) for name in ("patient", "site", "scanner", "tissue")}
                )
            slides[ref.slide_id] = fresh
        for problem in cohort.problems:
            key, number = problem.slide, 1
            while key in slides:
                number += 1
                key = f"{problem.slide} ({number})"
            # What was known of a slide stays true of it when its file is gone.
            old = known.get(key) or SlideRecord(state="failed", uri=problem.slide, name=Path(problem.slide).name)
            slides[key] = old.model_copy(update={"state": "failed", "reason": _why(problem)})
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
                handout=None if before is None else before.handout,
            ),
        )
        ledger.save()
        return ledger

    def set_runtime(self, choice: RuntimeChoice) -> None:
        """Keep what was chosen, without what was measured: that differs from call to call."""
        runtime: dict[str, Any] = {"device": choice.device, "runtime": choice.runtime, "precision": choice.precision}
        if choice.batch > 1:
            runtime["batch"] = choice.batch
        self.record = self.record.model_copy(update={"runtime": runtime})
        self.save()

    def is_done(self, slide_id: str) -> bool:
        return self.record.slides[slide_id].state == "done"

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


def _stays(old: SlideRecord, ref: SlideRef, uri: str) -> bool:
    """Whether the record of a slide still speaks of the same file, and of an mpp from the same place.

    A run that was killed may have finished a slide and not have said so: such a slide is looked at again.
    """
    return old.state == "done" and old.uri == uri and (old.mpp_source == "config") == (ref.mpp is not None)


def _why(error: SlideError | StoreError) -> str:
    return f"{error.cause}; {error.remedy}" if isinstance(error, SlideError) else str(error)
