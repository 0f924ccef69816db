"""Event files of the TimeStamp extension for QuPath (`*_event.csv`, or its export as CSV).

Three layouts are known, told apart by their columns:

- Timestamp, Event Type, Details, View_X, ... : clicks, moves, tools, annotations; times of day without a date;
- the same with Session_ID in front and Event_Type for Event Type;
- Session_ID, Sequence, Timestamp, Recorded_At_UTC, Elapsed_ms, Event_Type, ... and, in later versions, Image_ID,
  Image_Name and Image_Source.

Only files with Image_Name say which image was in front; all events of another file belong to the one image that it is
named after. Each event is a person's move, so that each is read as `view`: the kinds differ between versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time

from wsi_pipeline.measures.time import Event, EventType, Session, TimeSource
from wsi_pipeline.measures.time_sources.table import columns_and_rows

_DAY_MS = 86_400_000.0


def is_timestamps(header: Sequence[str]) -> bool:
    """Whether a CSV's column names are those of the extension."""
    names = {name.strip().casefold().replace(" ", "_") for name in header}
    return {"timestamp", "event_type", "view_x", "downsample"} <= names


def read_timestamps(
    text: str, *, project: str, rater: str, image: str | None, log: str
) -> tuple[list[Session], list[str]]:
    """The sessions of one file, and what was odd in it.

    Parameters
    ----------
    rater
        Whose file it is: the extension does not write a name.
    image
        The image of events that name none; where it is None, they are left out.
    """
    names, rows = columns_and_rows(text)
    if not is_timestamps(names):
        return [], [f"{log}: is no event file of the TimeStamp extension; it is left out"]
    by_session: dict[tuple[str, bool], list[Event]] = {}
    unread = nameless = 0
    for number, row in enumerate(rows, start=1):
        try:
            t, dated = _moment(row)
            seq = int(row.get("sequence") or number)
        except (ValueError, OverflowError):
            unread += 1
            continue
        name = row.get("image_name", "").strip() or image
        if name is None:
            nameless += 1
            continue
        by_session.setdefault((row.get("session_id", ""), dated), []).append(Event(seq, t, EventType.VIEW, name))
    problems = []
    if unread:
        problems.append(f"{log}: {unread} lines are no events; they are left out")
    if nameless:
        problems.append(f"{log}: {nameless} events name no image; name the file after the slide")
    sessions: list[Session] = []
    for (_, dated), events in by_session.items():
        parts = [events] if dated else _past_midnight(events)
        base = Session(project, rater, (), log=log, time_source=TimeSource.TIMESTAMPS, absolute=dated)
        for part in parts:
            sessions += _forward(base, part, problems)
    return sessions, problems


def _moment(row: dict[str, str]) -> tuple[float, bool]:
    """Milliseconds, and whether they count from 1970 (else from the midnight before, on the machine's own clock)."""
    utc = row.get("recorded_at_utc", "").strip()
    if utc:
        moment = datetime.fromisoformat(utc)
        return 1000.0 * (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), True
    local = row["timestamp"].strip()
    if "T" in local or "-" in local:
        # The machine's own time without its zone: right within the file, of no use beside another.
        return 1000.0 * datetime.fromisoformat(local).replace(tzinfo=UTC).timestamp(), False
    clock = time.fromisoformat(local)
    return 1000.0 * (3600 * clock.hour + 60 * clock.minute + clock.second) + clock.microsecond / 1000.0, False


def _past_midnight(events: list[Event]) -> list[list[Event]]:
    """Times of day made to run on: a step back by more than half a day is the next day."""
    days = 0.0
    found: list[Event] = []
    last: float | None = None
    for event in events:
        if last is not None and event.t < last - _DAY_MS / 2:
            days += 1
        last = event.t
        found.append(replace(event, t=event.t + days * _DAY_MS))
    return [found]


def _forward(base: Session, events: list[Event], problems: list[str]) -> list[Session]:
    """The events as sessions in which no time runs backwards."""
    parts: list[list[Event]] = []
    for event in events:
        if parts and event.t >= parts[-1][-1].t:
            parts[-1].append(event)
            continue
        if parts:
            back = (parts[-1][-1].t - event.t) / 1000
            problems.append(f"{base.log}: the clock jumped back by {back:.0f} s; what follows is a visit of its own")
        parts.append([event])
    return [replace(base, events=tuple(part)) for part in parts]
