"""Slides are read and compared in this process, or in several when there are many; the result is the same."""

from __future__ import annotations

import logging
import math
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_pipeline.collect.images import Alarm, CollectedImage, collect_image
from wsi_pipeline.collect.times import logs_of
from wsi_pipeline.errors import WsiError
from wsi_pipeline.handout import HandedOutSlide, Plan
from wsi_pipeline.qupath import open_project, write_geojson
from wsi_pipeline.rundir import RunDir

logger = logging.getLogger(__name__)

# A process takes a second or two to start: with fewer slides for each it would not be worth it.
SLIDES_PER_WORKER = 16
# Slides that a process takes at once; it opens the project and reads the event logs anew for each such piece.
PIECE = 25
# Pieces waiting for each worker, so that none is idle and results do not pile up.
AHEAD = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """Slides of one batch; all that a process must be told.

    `shared` are slides that were handed out several times: each of their images has a file of its own.
    """

    root: Path
    plan: Plan
    slides: tuple[HandedOutSlide, ...]
    shared: frozenset[str]
    tolerance_um: float


def collect_images(
    run: RunDir, plans: Sequence[Plan], shared: frozenset[str], tolerance_um: float, workers: int = 1
) -> Iterator[CollectedImage | Alarm]:
    """All images in the order of the plans, each with its annotations written to `review/corrected/`.

    Parameters
    ----------
    workers
        Processes at most; with few slides it is done in this one.
    """
    total = sum(len(plan.slides) for plan in plans)
    workers = min(workers, total // SLIDES_PER_WORKER)
    size = total if workers < 2 else min(PIECE, math.ceil(total / (AHEAD * workers)))
    pieces = (
        Piece(run.root, plan, plan.slides[first : first + size], shared, tolerance_um)
        for plan in plans
        for first in range(0, len(plan.slides), size)
    )
    if workers < 2:
        for piece in pieces:
            yield from _of_piece(piece)
    else:
        yield from _in_processes(pieces, workers)


def _in_processes(pieces: Iterable[Piece], workers: int) -> Iterator[CollectedImage | Alarm]:
    # Spawned: a fork would take over locks that threads of this process hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_alone)
    waiting: deque[tuple[Piece, Future[list[CollectedImage | Alarm]] | None]] = deque()
    try:
        for piece in pieces:
            waiting.append((piece, _submitted(pool, piece)))
            if len(waiting) > AHEAD * workers:
                yield from _result(*waiting.popleft())
        while waiting:
            yield from _result(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_alone() -> None:
    """Ctrl-C goes to every process of a terminal; the first one alone decides what happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _submitted(pool: ProcessPoolExecutor, piece: Piece) -> Future[list[CollectedImage | Alarm]] | None:
    try:
        return pool.submit(_listed, piece)
    except BrokenProcessPool:
        return None


def _result(piece: Piece, future: Future[list[CollectedImage | Alarm]] | None) -> Iterator[CollectedImage | Alarm]:
    """What a process found; read in this one where the process was ended from outside."""
    try:
        found = None if future is None else future.result()
    except BrokenProcessPool:
        found = None
    if found is None:
        logger.warning("a process ended early; %d slides of it are read again in this one", len(piece.slides))
        yield from _of_piece(piece)
        return
    for item in found:
        # The plan came back as a copy for each piece.
        yield item if isinstance(item, Alarm) else replace(item, plan=piece.plan)


def _listed(piece: Piece) -> list[CollectedImage | Alarm]:
    return list(_of_piece(piece))


def _of_piece(piece: Piece) -> Iterator[CollectedImage | Alarm]:
    run = RunDir(piece.root)
    try:
        project = open_project(piece.root / piece.plan.project, read_only=True)
    except WsiError as error:
        yield from (Alarm(slide.slide_id, f"its project cannot be opened: {error}") for slide in piece.slides)
        return
    sessions, _ = logs_of(run, piece.plan)
    colors = {c.name: c.color for c in project.path_classes if c.color is not None}
    for slide in piece.slides:
        item = collect_image(run, piece.plan, slide, project, sessions, piece.tolerance_um)
        if isinstance(item, Alarm):
            yield item
            continue
        try:
            write_geojson(corrected_path(run, item, piece.shared), item.annotations, colors)
        except WsiError as error:
            yield Alarm(slide.slide_id, f"its annotations cannot be kept: {error}")
            continue
        # On disk now; a thousand slides of them would not fit into memory.
        yield replace(item, annotations=(), work=item.work if slide.slide_id in piece.shared else None)


def corrected_path(run: RunDir, item: CollectedImage, shared: frozenset[str]) -> Path:
    """Where the annotations of an image are kept: a slide that was handed out several times has a file for each."""
    folder = run.review / "corrected"
    return (folder / item.plan.folder if item.slide.slide_id in shared else folder) / f"{item.slide.slide_id}.geojson"
