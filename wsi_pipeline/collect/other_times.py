"""Times of a batch from other programs' files: the view tracker's recordings, and what lies in the folder `times`.

`times` lies beside the project's events. A file there is known by what is in it: a CSV of the TimeStamp extension, a
text export of EXACT, or a CSV of self-reported times. None of them is added to another: of each slide the best source
counts, in the order of `TimeSource`, and the event log always comes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from wsi_pipeline.collect.times import ImageTime, reported, rows_of
from wsi_pipeline.config import Review
from wsi_pipeline.handout import HandedOutSlide, Plan
from wsi_pipeline.measures import Session
from wsi_pipeline.measures.time import TimeSource
from wsi_pipeline.measures.time_sources import (
    is_timestamps,
    read_export,
    read_recording,
    read_reports,
    read_timestamps,
    session_of,
)
from wsi_pipeline.measures.time_sources.table import columns_and_rows
from wsi_pipeline.rundir import RunDir

TIMES = "times"
_ORDER = {str(source): place for place, source in enumerate(TimeSource)}


def other_times(run: RunDir, plan: Plan, review: Review) -> tuple[list[ImageTime], list[str]]:
    """Times from all sources but the event logs, one row for each slide and source, and what was odd in them."""
    folder = (run.root / plan.project).parent
    slides = _by_name(plan)
    problems: list[str] = []
    sessions: defaultdict[TimeSource, list[Session]] = defaultdict(list)
    rows: list[ImageTime] = []
    for session in _recordings(folder, plan, problems):
        sessions[TimeSource.VIEW_TRACKER].append(session)
    for path in sorted(p for p in (folder / TIMES).rglob("*") if p.is_file()):
        text = _text(path, folder, problems)
        name = path.relative_to(folder).as_posix()
        if text is None:
            continue
        if path.suffix.casefold() == ".txt":
            for session in _export(text, name, plan, problems):
                sessions[TimeSource.EXACT].append(session)
        elif is_timestamps(columns_and_rows(text)[0]):
            found, odd = read_timestamps(
                text, project=plan.project, rater=plan.rater, image=_named_after(path, slides), log=name
            )
            problems += odd
            sessions[TimeSource.TIMESTAMPS] += found
        else:
            rows += _reports(text, name, plan, slides, problems)
    for own in sessions.values():
        rows += rows_of(_with_entries(own, slides, problems), plan, review)
    return rows, problems


def best(first: Iterable[ImageTime], others: Iterable[ImageTime]) -> list[ImageTime]:
    """`first`, and of each slide that it lacks the row of the best source among the others."""
    chosen = {(t.slide_id, t.batch, t.rater): t for t in first}
    rest: dict[tuple[str, str, str], ImageTime] = {}
    for time in others:
        key = time.slide_id, time.batch, time.rater
        known = rest.get(key)
        if key not in chosen and (known is None or _ORDER[time.time_source] < _ORDER[known.time_source]):
            rest[key] = time
    chosen |= rest
    return [chosen[key] for key in sorted(chosen)]


def _by_name(plan: Plan) -> dict[str, HandedOutSlide]:
    """Slides by each name that a file may give them, in lower case."""
    found: dict[str, HandedOutSlide] = {}
    for slide in plan.slides:
        for name in (slide.tag, slide.slide_id, slide.name, PurePath(slide.name).stem):
            found.setdefault(name.casefold(), slide)
    return found


def _text(path: Path, folder: Path, problems: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path.relative_to(folder).as_posix()}: cannot be read as UTF-8 text ({error})")
        return None


def _recordings(folder: Path, plan: Plan, problems: list[str]) -> Iterable[Session]:
    for slide in plan.slides:
        for path in sorted((folder / "data" / str(slide.entry_id) / "recordings").glob("*.tsv")):
            text = _text(path, folder, problems)
            if text is None:
                continue
            session, odd = read_recording(
                text,
                project=plan.project,
                rater=plan.rater,
                image=str(slide.entry_id),
                log=path.relative_to(folder).as_posix(),
            )
            problems += odd
            if session is not None:
                yield session


def _export(text: str, name: str, plan: Plan, problems: list[str]) -> Iterable[Session]:
    export = read_export(text)
    if export.unread:
        problems.append(f"{name}: {len(export.unread)} lines are of no export of EXACT; they are left out")
    session = session_of(export, plan.rater, project=plan.project, rater=plan.rater, log=name)
    if not session.events:
        problems.append(f"{name}: holds nothing that {plan.rater} did; it is left out")
        return
    if others := {user for user in export.users() if user.casefold() != plan.rater.casefold()}:
        problems.append(f"{name}: visits of {len(others)} other users are left out")
    yield session


def _named_after(path: Path, slides: Mapping[str, HandedOutSlide]) -> str | None:
    """The slide that a file, or its folder, is named after."""
    stem = path.stem.removesuffix("_event")
    return next((name for name in (stem, path.parent.name) if name.casefold() in slides), None)


def _reports(
    text: str, name: str, plan: Plan, slides: Mapping[str, HandedOutSlide], problems: list[str]
) -> Iterable[ImageTime]:
    reports, odd = read_reports(text, name)
    problems += odd
    totals: dict[str, ImageTime] = {}
    for report in reports:
        slide = slides.get(report.slide.casefold())
        if report.rater != plan.rater:
            problems.append(f"{name}: {report.rater} is no rater of this batch; the time is left out")
        elif slide is None:
            problems.append(f"{name}: {report.slide} is no slide of this batch; the time is left out")
        elif report.arm not in {None, slide.arm}:
            problems.append(f"{name}: {report.slide} was handed out in arm {slide.arm}, not {report.arm}; left out")
        else:
            before = totals.get(slide.slide_id)
            seconds = report.seconds + (before.active_s if before else 0.0)
            entries = report.rows + (before.visits if before else 0)
            totals[slide.slide_id] = reported(plan, slide, seconds, entries)
    return totals.values()


def _with_entries(
    sessions: Sequence[Session], slides: Mapping[str, HandedOutSlide], problems: list[str]
) -> list[Session]:
    """The sessions with entry ids in the place of names; events of other images are kept, since time passes in them."""
    found = []
    for session in sessions:
        if session.time_source is TimeSource.VIEW_TRACKER:
            found.append(session)
            continue
        names = {event.image for event in session.events}
        ids = {name: str(slides[name.casefold()].entry_id) for name in names if name.casefold() in slides}
        if not ids:
            problems.append(f"{session.log}: names no slide of this batch; it is left out")
        # A name that is no slide's must not pass for an entry id.
        events = (replace(e, image=ids.get(e.image, f"not handed out: {e.image}")) for e in session.events)
        found.append(replace(session, events=tuple(events)))
    return found
