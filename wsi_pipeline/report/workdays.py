"""On which days the slides were worked on: from the event logs, and from what was kept of logs that are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from wsi_pipeline.collect.events import read_logs
from wsi_pipeline.collect.kept import kept_days
from wsi_pipeline.report.reading import mapping, text
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import EVENTS


@dataclass(frozen=True, slots=True)
class Workdays:
    """Days in UTC: the first and the last of all logs, and the last own action on each slide and in each reading.

    A reading is told by its slide, batch and rater.
    """

    span: tuple[str, ...]
    last_touched: Mapping[str, date]
    readings: Mapping[tuple[str, str, str], date]


def workdays(run: RunDir, plans: Mapping[str, Mapping[str, Any]]) -> Workdays:
    """Read the logs of every project that was handed out; the rater of the batch counts, others do not."""
    found = dict(kept_days(run))
    every = set(found.values())
    readings: dict[tuple[str, str, str], date] = {}
    logs: dict[str, list[Any]] = {}
    for plan in plans.values():
        project = text(plan.get("project"))
        if project is None:
            continue
        if project not in logs:
            logs[project] = read_logs((run.root / project).parent / EVENTS, project)[0]
        slides = plan.get("slides")
        listed = map(mapping, slides if isinstance(slides, list) else ())
        entries = {str(slide.get("entry_id")): str(slide.get("slide_id")) for slide in listed}
        for session in logs[project]:
            if session.rater != text(plan.get("rater")):
                continue
            for event in session.events:
                day = datetime.fromtimestamp(event.t / 1000, tz=UTC).date()
                every.add(day)
                slide_id = entries.get(event.image)
                if slide_id is not None and event.type.is_action:
                    found[slide_id] = max(day, found.get(slide_id, day))
                    key = (slide_id, text(plan.get("batch")) or "", session.rater)
                    readings[key] = max(day, readings.get(key, day))
    span = (min(every), max(every)) if every else ()
    return Workdays(tuple(dict.fromkeys(day.isoformat() for day in span)), found, readings)


def batch_days(run: RunDir, plans: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], date]:
    """When each batch was handed out, by its name and rater: the latest day of its slides (see `handed_out_days`)."""
    days = {}
    for folder, plan in plans.items():
        own = handed_out_days(run, {folder: plan}).values()
        if own:
            days[text(plan.get("batch")) or folder, text(plan.get("rater")) or ""] = max(own)
    return days


def handed_out_days(run: RunDir, plans: Mapping[str, Mapping[str, Any]]) -> dict[str, date]:
    """When each slide was handed out: as the plan says, else by the date of its snapshot, which is never written anew.

    The first handout counts: from then on the slide has been waiting.
    """
    days: dict[str, date] = {}
    for batch, plan in plans.items():
        stated = _date(plan.get("handed_out"))
        slides = plan.get("slides")
        for slide in map(mapping, slides if isinstance(slides, list) else ()):
            path = run.handout / batch / (text(slide.get("snapshot")) or "")
            day = stated or _date(slide.get("handed_out"))
            if day is None and path.is_file():
                day = datetime.fromtimestamp(path.stat().st_mtime, tz=UTC).date()
            slide_id = text(slide.get("slide_id"))
            if day is not None and slide_id is not None:
                days[slide_id] = min(day, days.get(slide_id, day))
    return days


def _date(value: object) -> date | None:
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError:
        return None
