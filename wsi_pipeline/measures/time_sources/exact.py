"""Text exports of EXACT: a log of visits and the annotations with their times.

A line `[image|user|time|1]` is a start, with `2` an end. Any other line is an object: `image|class|{box}|created
by|created|changed by|changed|uuid|deleted|...`. Times are the server's, without a zone; they are read as if UTC, which
is right for differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from wsi_pipeline.measures.time import Event, EventType, Session, TimeSource

_LOG = re.compile(r"\[(.*)\|([^|]*)\|([^|]*)\|([12])\]")
_OBJECT = re.compile(r"(?P<image>.*?)\|(?P<label>[^|]*)\|(?:\{[^}]*\})?[^|{}]*\|(?P<rest>.*)")


@dataclass(frozen=True, slots=True)
class Visit:
    """A start or an end of a visit; `t` in seconds."""

    image: str
    user: str
    t: float
    opens: bool


@dataclass(frozen=True, slots=True)
class Annotation:
    """Who made and who last changed an object, and when (seconds)."""

    image: str
    uuid: str
    creator: str
    created: float
    modifier: str
    modified: float
    deleted: bool


@dataclass(frozen=True, slots=True)
class Export:
    """One export: log lines in order of time, objects, and the numbers of lines that are neither."""

    log: tuple[Visit, ...]
    annotations: tuple[Annotation, ...]
    unread: tuple[int, ...] = ()

    def users(self) -> set[str]:
        """Who opened an image."""
        return {visit.user for visit in self.log}


def read_export(text: str) -> Export:
    """Read an export; an object that is there twice counts as it was changed last."""
    log: list[Visit] = []
    found: dict[str, Annotation] = {}
    unread: list[int] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        line = raw.strip()
        if not line:
            continue
        try:
            entry = _visit(line) or _annotation(line)
        except ValueError:
            unread.append(number)
            continue
        if isinstance(entry, Visit):
            log.append(entry)
        elif entry.uuid not in found or found[entry.uuid].modified <= entry.modified:
            found[entry.uuid] = entry
    # EXACT lists the newest first: turned round, lines of one moment keep the order in which they happened.
    log.reverse()
    log.sort(key=lambda visit: visit.t)
    return Export(tuple(log), tuple(found.values()), tuple(unread))


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
        (visit.t, 1, EventType.OPEN if visit.opens else EventType.CLOSE, visit.image, None)
        for visit in export.log
        if _same(visit.user, user)
    ]
    # An action of the moment in which its image is closed was made before it closed.
    found += [(t, 0, EventType.EDIT, item.image, item.uuid) for t, item in _own(export, user)]  # type: ignore[misc]
    found.sort(key=lambda entry: entry[:2])
    events = tuple(Event(i, 1000 * t, kind, image, uuid) for i, (t, _, kind, image, uuid) in enumerate(found))
    return Session(project, rater, events, log=log, time_source=TimeSource.EXACT)


def _own(export: Export, user: str) -> Iterator[tuple[float, Annotation]]:
    for item in export.annotations:
        if _same(item.creator, user):
            yield item.created, item
        if _same(item.modifier, user) and item.modified != item.created:
            yield item.modified, item


def _same(name: str, user: str) -> bool:
    return name.strip().casefold() == user.strip().casefold()


def _visit(line: str) -> Visit | None:
    found = _LOG.fullmatch(line)
    return None if found is None else Visit(found[1], found[2].strip(), _seconds(found[3]), found[4] == "1")


def _annotation(line: str) -> Annotation:
    found = _OBJECT.fullmatch(line)
    if found is None:
        raise ValueError("no object")
    creator, created, modifier, modified, uuid, deleted, *_ = found["rest"].split("|")
    gone = deleted.strip().casefold() in {"true", "1"}
    return Annotation(
        found["image"], uuid, creator.strip(), _seconds(created), modifier.strip(), _seconds(modified), gone
    )


def _seconds(text: str) -> float:
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
