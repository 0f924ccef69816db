"""Text exports of EXACT: a log of visits and the annotations with their times.

A line that starts with `[` is a log line, `[image|user|time|1]` for a start and `2` for an end. Any other line that is
not blank is an object: `image|class|{box}|created by|created|changed by|changed|uuid|deleted|width|height`. Times are
the server's, without a zone; they are read as if UTC, which is right for differences, and kept as microseconds, so that
no digit is lost. Boxes are in level-0 pixels of their image with the origin at its corner.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from wsi_pipeline.measures.time import Event, EventType, Session, TimeSource

Box = tuple[float, float, float, float]

_EPOCH = datetime(1970, 1, 1)
_OBJECT = re.compile(r"(?P<image>.*?)\|(?P<class>[^|]*)\|(?P<box>\{[^}]*\})?[^|{}]*\|(?P<rest>.*)")
_NUMBER = re.compile(r'"?([xy])\d*"?\s*:\s*"?(-?\d+\.?\d*(?:[eE][-+]?\d+)?)')
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class LogLine:
    """A start or an end of a visit; `t` in microseconds, `line` its number in the file, from 1."""

    image: str
    user: str
    t: int
    start: bool
    line: int


@dataclass(frozen=True, slots=True)
class Item:
    """A box that somebody drew; `label` is None without class, `box` None where the object has no coordinates."""

    image: str
    label: str | None
    box: Box | None
    created_by: str
    created: int
    changed_by: str
    changed: int
    uuid: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Export:
    """One export: log lines in order of time, objects, and the numbers of lines that are neither."""

    log: tuple[LogLine, ...]
    items: tuple[Item, ...]
    unread: tuple[int, ...] = ()

    def users(self) -> set[str]:
        """Who opened an image."""
        return {line.user for line in self.log}


def read_export(text: str) -> Export:
    """Read an export; an object that is there twice counts as it was changed last."""
    log: list[LogLine] = []
    found: dict[str, Item] = {}
    unread: list[int] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if not (line := raw.strip()):
            continue
        try:
            entry = read_line(line, number)
        except ValueError:
            unread.append(number)
            continue
        if isinstance(entry, LogLine):
            log.append(entry)
        elif entry.uuid not in found or found[entry.uuid].changed <= entry.changed:
            found[entry.uuid] = entry
    return Export(tuple(in_order(log)), tuple(found.values()), tuple(unread))


def in_order(log: Iterable[LogLine]) -> list[LogLine]:
    """By time. EXACT lists the newest first: lines of one moment happened in the opposite order of the file."""
    return sorted(log, key=lambda line: (line.t, -line.line))


def session_of(export: Export, user: str, *, project: str, rater: str, log: str = "") -> Session:
    """What one user did: starts, ends, creations and last changes, of objects deleted later too; never an importer's.

    Parameters
    ----------
    user
        Name in the export, upper and lower case alike.
    rater
        Name of the same person here.
    """
    found = [
        (line.t, 1, EventType.OPEN if line.start else EventType.CLOSE, line.image, None)
        for line in export.log
        if _same(line.user, user)
    ]
    # An action of the moment in which its image is closed was made before it closed.
    found += [(t, 0, EventType.EDIT, item.image, item.uuid) for t, item in _own(export, user)]  # type: ignore[misc]
    found.sort(key=lambda entry: entry[:2])
    events = tuple(Event(i, t / 1000, kind, image, uuid) for i, (t, _, kind, image, uuid) in enumerate(found))
    return Session(project, rater, events, log=log, time_source=TimeSource.EXACT)


def _own(export: Export, user: str) -> Iterator[tuple[int, Item]]:
    for item in export.items:
        if _same(item.created_by, user):
            yield item.created, item
        if _same(item.changed_by, user) and item.changed != item.created:
            yield item.changed, item


def _same(name: str, user: str) -> bool:
    return name.casefold() == user.strip().casefold()


def read_line(text: str, number: int) -> LogLine | Item:
    """One line that is not blank; raises `ValueError` with the reason when it is neither a log line nor an object."""
    return _log_line(text, number) if text.startswith("[") else _item(text)


def _log_line(text: str, number: int) -> LogLine:
    image, user, time, kind = text.removeprefix("[").removesuffix("]").rsplit("|", 3)
    if kind not in {"1", "2"}:
        raise ValueError(f"{kind!r} is neither 1, a start, nor 2, an end")
    return LogLine(image, user.strip(), microseconds(time), kind == "1", number)


def _item(text: str) -> Item:
    match = _OBJECT.fullmatch(text)
    if match is None:
        raise ValueError("an object has the fields image, class and box")
    fields = match["rest"].split("|")
    if len(fields) < 6:
        raise ValueError(f"{len(fields)} fields behind the box instead of at least 6")
    created_by, created, changed_by, changed, uuid, deleted = fields[:6]
    gone = _FLAGS.get(deleted.strip().lower())
    if gone is None:
        raise ValueError(f"the deleted flag is {deleted!r}")
    return Item(
        match["image"],
        match["class"].strip() or None,
        _box(match["box"] or ""),
        created_by.strip(),
        microseconds(created),
        changed_by.strip(),
        microseconds(changed),
        uuid,
        gone,
    )


def _box(text: str) -> Box | None:
    """The bounds of all corners, whatever their order and number."""
    found = [(axis, float(value)) for axis, value in _NUMBER.findall(text)]
    xs, ys = ([value for axis, value in found if axis == wanted] for wanted in "xy")
    return (min(xs), min(ys), max(xs), max(ys)) if xs and ys else None


def microseconds(text: str) -> int:
    """A naive time as microseconds since 1970; a time with an offset is taken to UTC."""
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - _EPOCH) // timedelta(microseconds=1)
