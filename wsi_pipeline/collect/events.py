"""Event logs of a project: one file per start of QuPath, read leniently, because a crash may end it anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from wsi_pipeline.measures import Event, EventType, Session
from wsi_pipeline.states import Source

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class EventLog:
    """One file: whose it is, whether it was simulated, and its events."""

    rater: str
    source: Source
    session: Session


def read_logs(folder: Path) -> tuple[list[EventLog], list[str]]:
    """All logs of an events folder, by file name, and what could not be read, in plain words."""
    logs: list[EventLog] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        log = _read_log(path, problems)
        if log is not None:
            logs.append(log)
    return logs, problems


def _read_log(path: Path, problems: list[str]) -> EventLog | None:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        problems.append(f"events/{path.name}: cannot be read ({error.strerror or error})")
        return None
    records = _records(path, lines, problems)
    header = records[0] if records else {}
    if header.get("type") != "header":
        problems.append(f"events/{path.name}: has no header; its events are left out")
        return None
    if not isinstance(header.get("schema"), int) or header["schema"] > SCHEMA_VERSION:
        problems.append(f"events/{path.name}: has schema {header.get('schema')}; update wsi-pipeline to read it")
        return None
    events = [event for record in records[1:] if (event := _event(record)) is not None]
    if len(events) < len(records) - 1:
        problems.append(f"events/{path.name}: {len(records) - 1 - len(events)} lines are no events; they are left out")
    source = Source.SIMULATED if header.get("source") == Source.SIMULATED else Source.MEASURED
    rater = str(header.get("rater") or "unknown")
    return EventLog(rater, source, Session(rater, tuple(events), path.name))


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
        return Event(
            t=float(record["t"]) / 1000,
            type=EventType(record["type"]),
            image=str(record["image"]),
            seq=int(record["seq"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
