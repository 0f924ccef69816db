"""What is odd in logs of events, and what is done about it; and how much of the work the logs cover.

A jump forwards and a machine that slept look the same in a log: both are a pause of hours without a sign of life. So
the pause is listed, and the rule treats it as any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from wsi_pipeline.measures.time import Event, EventType, ImageKey, Session

# A log that runs has a heartbeat twice a minute; so long a silence is a clock that was set or a machine that slept.
JUMP_S = 12 * 3600.0


class Oddity(StrEnum):
    """What can be odd."""

    OVERLAPPING = "overlapping"
    CLOCK_BACK = "clock_back"
    CLOCK_FORWARD = "clock_forward"
    NEVER_CLOSED = "never_closed"
    SHARED_MACHINE = "shared_machine"
    FOREIGN_RATER = "foreign_rater"

    @property
    def treatment(self) -> str:
        """What the default rule does."""
        return _TREATMENT[self]


_TREATMENT = {
    Oddity.OVERLAPPING: "the image of the latest opening or action counts; no second counts twice",
    Oddity.CLOCK_BACK: "what follows is a visit of its own; nothing is credited for the jump",
    Oddity.CLOCK_FORWARD: "capped as any pause; counts nothing if an opening ends it",
    Oddity.NEVER_CLOSED: "counts to the last action in its log, or to the next action elsewhere",
    Oddity.SHARED_MACHINE: "each log counts for the rater whom it names",
    Oddity.FOREIGN_RATER: "left out: the log is of no rater of this batch",
}


@dataclass(frozen=True, slots=True, order=True)
class Anomaly:
    """One odd thing; `t` in ms since 1970, `seconds` is how long a jump or an overlap lasted where that is known."""

    kind: Oddity
    rater: str
    log: str
    image: str | None = None
    t: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """Visits of one rater to one image, and in how many of them the log holds more than their opening and closing."""

    visits: int = 0
    with_events: int = 0

    @property
    def share(self) -> float | None:
        return self.with_events / self.visits if self.visits else None


def anomalies(sessions: Sequence[Session], raters: Collection[str]) -> list[Anomaly]:
    """Everything odd in the logs of one project.

    Parameters
    ----------
    sessions
        All logs; those of one file in the order of the file.
    raters
        Who is expected.
    """
    found = [*_jumps(sessions), *_shared(sessions)]
    for session in sessions:
        if session.rater not in raters and session.events:
            found.append(Anomaly(Oddity.FOREIGN_RATER, session.rater, session.log, t=session.events[0].t))
        found += _within(session)
    found += _across([s for s in sessions if s.absolute and s.rater in raters])
    return sorted(set(found), key=lambda a: (a.kind, a.rater, a.log, a.t or 0.0, a.image or ""))


def _jumps(sessions: Sequence[Session]) -> Iterator[Anomaly]:
    last: dict[str, Event] = {}
    for session in sessions:
        if not session.events:
            continue
        before = last.get(session.log)
        if before is not None and session.events[0].t < before.t:
            first = session.events[0]
            yield Anomaly(
                Oddity.CLOCK_BACK, session.rater, session.log, first.image, first.t, (before.t - first.t) / 1000
            )
        for one, other in pairwise(session.events):
            if other.t - one.t > 1000 * JUMP_S:
                seconds = (other.t - one.t) / 1000
                yield Anomaly(Oddity.CLOCK_FORWARD, session.rater, session.log, one.image, one.t, seconds)
        last[session.log] = session.events[-1]


def _within(session: Session) -> Iterator[Anomaly]:
    """Visits to two images at once in one log, and visits that nobody closed."""
    opened: dict[str, float] = {}
    for event in session.events:
        if event.type is EventType.CLOSE:
            opened.pop(event.image, None)
        elif event.type is EventType.OPEN:
            if event.image in opened:
                yield Anomaly(Oddity.NEVER_CLOSED, session.rater, session.log, event.image, opened.pop(event.image))
            if opened:
                yield Anomaly(Oddity.OVERLAPPING, session.rater, session.log, event.image, event.t)
            opened[event.image] = event.t
    for image, t in opened.items():
        yield Anomaly(Oddity.NEVER_CLOSED, session.rater, session.log, image, t)


def _across(sessions: Sequence[Session]) -> Iterator[Anomaly]:
    """Logs of one rater that run at the same time: two windows, or two machines."""
    by_rater: dict[str, list[Session]] = {}
    for session in sessions:
        if session.events:
            by_rater.setdefault(session.rater, []).append(session)
    for rater, own in by_rater.items():
        own.sort(key=lambda s: s.events[0].t)
        latest = own[0]
        for session in own[1:]:
            first, end = session.events[0], latest.events[-1].t
            if session.log != latest.log and first.t < end:
                seconds = (min(end, session.events[-1].t) - first.t) / 1000
                yield Anomaly(Oddity.OVERLAPPING, rater, session.log, first.image, first.t, seconds)
            if session.events[-1].t > end:
                latest = session


def _shared(sessions: Sequence[Session]) -> Iterator[Anomaly]:
    raters: dict[str, set[str]] = {}
    for session in sessions:
        if session.host:
            raters.setdefault(session.host, set()).add(session.rater)
    for session in sessions:
        if len(raters.get(session.host, ())) > 1:
            t = session.events[0].t if session.events else None
            yield Anomaly(Oddity.SHARED_MACHINE, session.rater, session.log, t=t)


def coverage(sessions: Sequence[Session]) -> dict[ImageKey, Coverage]:
    """How many visits each rater paid to each image, and in how many the log holds anything but opening and closing.

    A visit begins with an opening, or with an action in an image that is not open, and ends with a closing, another
    opening of the same image, or the end of its log. A visit without events says that the logger missed it, or that
    somebody opened an image by mistake.
    """
    counts: dict[ImageKey, tuple[int, int]] = {}
    for session in sessions:
        held: dict[str, bool] = {}
        for event in session.events:
            key = ImageKey(session.project, session.rater, event.image)
            if event.type is EventType.CLOSE:
                held.pop(event.image, None)
                continue
            visits, full = counts.get(key, (0, 0))
            begins = event.type is EventType.OPEN or (event.type.is_action and event.image not in held)
            if begins:
                visits, held[event.image] = visits + 1, False
            if event.type is not EventType.OPEN and held.get(event.image) is False:
                full, held[event.image] = full + 1, True
            counts[key] = visits, full
    return {key: Coverage(*count) for key, count in sorted(counts.items())}
