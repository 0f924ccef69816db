"""Event logs that are to go: what they were worth is kept first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from wsi_pipeline.collect.events import read_logs
from wsi_pipeline.collect.kept import keep
from wsi_pipeline.collect.times import ImageTime, times_of
from wsi_pipeline.config import Review
from wsi_pipeline.handout import Plan
from wsi_pipeline.measures import Session
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import EVENTS


@dataclass(frozen=True, slots=True)
class Going:
    """Logs of one batch that are to be deleted, and the times and days that stay."""

    logs: tuple[Path, ...]
    times: tuple[ImageTime, ...]
    days: Mapping[str, date]


def going(run: RunDir, plans: Sequence[Plan], review: Review, chosen: Callable[[Path, Session], bool]) -> list[Going]:
    """The logs of which every session is `chosen`, by batch; a log without a readable session stays."""
    found = []
    taken: set[Path] = set()
    for plan in plans:
        folder = (run.root / plan.project).parent / EVENTS
        sessions, _ = read_logs(folder, plan.project)
        by_log: dict[str, list[Session]] = {}
        for session in sessions:
            by_log.setdefault(session.log, []).append(session)
        names = {log for log, own in by_log.items() if all(chosen(folder / log, session) for session in own)}
        ours = [session for session in sessions if session.log in names]
        if ours:
            times, _ = times_of(ours, plan, review)
            # Several batches may share a project: its logs are deleted once.
            logs = tuple(folder / log for log in sorted(names) if folder / log not in taken)
            taken.update(logs)
            found.append(Going(logs, tuple(times), _days(plan, ours)))
    return found


def _days(plan: Plan, sessions: Sequence[Session]) -> dict[str, date]:
    slides = {str(slide.entry_id): slide.slide_id for slide in plan.slides}
    days: dict[str, date] = {}
    for session in sessions:
        for event in session.events:
            slide_id = slides.get(event.image)
            if slide_id is not None and event.type.is_action and session.rater == plan.rater:
                day = datetime.fromtimestamp(event.t / 1000, tz=UTC).date()
                days[slide_id] = max(day, days.get(slide_id, day))
    return days


def let_go(run: RunDir, batches: Sequence[Going], rename: Mapping[str, str] | None = None) -> int:
    """Keep times and days (with raters renamed), then delete the logs; returns how many."""
    renamed = rename or {}
    for batch in batches:
        keep(run, [replace(t, rater=renamed.get(t.rater, t.rater)) for t in batch.times], batch.days)
        for log in batch.logs:
            log.unlink()
    return sum(len(batch.logs) for batch in batches)
