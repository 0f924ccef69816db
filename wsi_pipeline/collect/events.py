"""Event logs of a project: one file per start of QuPath, read leniently, because a crash may end it anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from wsi_pipeline.measures import Event, EventType, Session
from wsi_pipeline.states import Source

SCHEMA_VERSION = 1


def read_logs(folder: Path, project: str) -> tuple[list[Session], list[str]]:
    """All logs of an events folder, and what was odd in them, in plain words.

    A log whose clock jumps back becomes two sessions, so that no time runs backwards.

    Parameters
    ----------
    project
        Name that tells images of the same entry id in other projects apart.
    """
    sessions: list[Session] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        sessions += _read_log(path, project, problems)
    return sessions, problems


def _read_log(path: Path, project: str, problems: list[str]) -> list[Session]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        problems.append(f"events/{path.name}: cannot be read ({error.strerror or error})")
        return []
    records = _records(path, lines, problems)
    header = records[0] if records else {}
    if header.get("type") != "header":
        problems.append(f"events/{path.name}: has no header; its events are left out")
        return []
    if not isinstance(header.get("schema"), int) or header["schema"] > SCHEMA_VERSION:
        problems.append(f"events/{path.name}: has schema {header.get('schema')}; update wsi-pipeline to read it")
        return []
    events = [event for record in records[1:] if (event := _event(record)) is not None]
    if len(events) < len(records) - 1:
        problems.append(f"events/{path.name}: {len(records) - 1 - len(events)} lines are no events; they are left out")
    events = _each_once(path, events, problems)
    problems.extend(f"events/{path.name}: {text}" for text in _unclosed(events))
    source = Source.SIMULATED if header.get("source") == Source.SIMULATED else Source.MEASURED
    rater = str(header.get("rater") or "unknown")
    parts = _between_jumps(path, events, problems)
    host = str(header.get("host") or "")
    return [Session(project, rater, tuple(part), source, path.name, host) for part in parts]


def _each_once(path: Path, events: list[Event], problems: list[str]) -> list[Event]:
    """The events without those that are there twice; what the numbers say is missing is listed."""
    once = {event.seq: event for event in reversed(events)}
    if len(once) < len(events):
        problems.append(f"events/{path.name}: {len(events) - len(once)} lines are there twice; each is counted once")
    missing = max(once) - min(once) + 1 - len(once) if once else 0
    if missing:
        problems.append(f"events/{path.name}: {missing} numbers are missing between its events; lines were lost")
    return list(reversed(once.values()))


def _between_jumps(path: Path, events: list[Event], problems: list[str]) -> list[list[Event]]:
    parts: list[list[Event]] = []
    for event in events:
        if parts and event.t < parts[-1][-1].t:
            back = (parts[-1][-1].t - event.t) / 1000
            problems.append(
                f"events/{path.name}: the clock jumped back by {back:.0f} s; what follows is a visit of its own"
            )
            parts.append([event])
        elif parts:
            parts[-1].append(event)
        else:
            parts = [[event]]
    return parts


def _unclosed(events: list[Event]) -> list[str]:
    """The image that was in front when the log ended, if any."""
    front: str | None = None
    for event in events:
        if event.type is EventType.CLOSE:
            front = None if front == event.image else front
        elif event.type.is_action:
            front = event.image
    return [] if front is None else [f"image {front} was never closed; it counts to its last action"]


def _records(path: Path, lines: list[bytes], problems: list[str]) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            where = "its last line, which a crash cut off," if number == len(lines) else f"line {number}"
            problems.append(f"events/{path.name}: {where} is left out")
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def _event(record: dict[str, Any]) -> Event | None:
    try:
        item = record.get("object")
        return Event(
            seq=int(record["seq"]),
            t=int(record["t"]),
            type=EventType(record["type"]),
            image=str(record["image"]),
            object=None if item is None else str(item),
        )
    except (KeyError, TypeError, ValueError):
        return None
