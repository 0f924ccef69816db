"""Active time from event logs: which seconds a rater spent on which image. Pure arithmetic on events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise, zip_longest

RULE = "timeline-1"
"""Name and version of the rule below; stands beside every time that it made."""

CAPS_S = (60.0, 100.0, 300.0)
"""Cut-offs that are always shown beside each other, in seconds."""


class EventType(StrEnum):
    """What a rater did, or what QuPath noticed of it."""

    OPEN = "open"
    EDIT = "edit"
    CLASS = "class"
    DELETE = "delete"
    SAVE = "save"
    FOCUS = "focus"
    BLUR = "blur"
    HEARTBEAT = "heartbeat"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `t` in seconds (UTC), `image` the project entry's id, `seq` its number in its session."""

    t: float
    type: EventType
    image: str
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """The events of one start of QuPath, in the order in which they were written."""

    rater: str
    events: tuple[Event, ...]
    name: str = ""


@dataclass(slots=True)
class ActiveTime:
    """Seconds on one image, for each cut-off; `visits` counts how often it came to the front."""

    seconds: dict[float, float] = field(default_factory=dict)
    visits: int = 0


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something in a log that is not as it should be, and how it was treated."""

    session: str
    image: str
    kind: str
    treatment: str


def active_times(
    sessions: Iterable[Session], caps_s: Sequence[float] = CAPS_S
) -> tuple[dict[str, ActiveTime], list[Anomaly]]:
    """Active time per image of one rater, by the rule `timeline-1`.

    All sessions of the rater make one timeline, ordered by time. An open or any own action brings its image to the
    front, a close of that image takes it away. The gap between two neighbouring events is credited to the image in
    front, capped at the cut-off. A gap counts nothing when no image is in front, when it begins with QuPath losing
    the focus (blur), or when it is longer than the cut-off and ends with an open: nobody was there. A visit that
    nobody closed counts to its last event.

    Every kind of event occurs with and without pre-annotations, so that the rule sees both arms alike.

    Parameters
    ----------
    sessions
        Of one rater.
    caps_s
        Cut-offs in seconds.

    Returns
    -------
    By image id the active time, and what was odd in the logs.
    """
    anomalies: list[Anomaly] = []
    timeline = _timeline(sessions, anomalies)
    times: dict[str, ActiveTime] = {}
    front: str | None = None
    for (event, _), following in zip_longest(timeline, timeline[1:]):
        if event.type is EventType.CLOSE:
            front = None if front == event.image else front
        elif front != event.image:
            front = event.image
            times.setdefault(front, ActiveTime(dict.fromkeys(caps_s, 0.0))).visits += 1
        if front is None or following is None or event.type is EventType.BLUR:
            continue
        gap = following[0].t - event.t
        for cap in caps_s:
            if gap <= cap or following[0].type is not EventType.OPEN:
                times[front].seconds[cap] += min(gap, cap)
    return times, anomalies


def _timeline(sessions: Iterable[Session], anomalies: list[Anomaly]) -> list[tuple[Event, str]]:
    """All events by time; a clock that jumped back is held still until it has caught up."""
    merged: list[tuple[Event, str]] = []
    spans: list[tuple[float, float, str]] = []
    for session in sessions:
        latest = float("-inf")
        front: str | None = None
        for event in session.events:
            if event.t < latest:
                anomalies.append(
                    Anomaly(
                        session.name, event.image, "the clock jumped back", f"{latest - event.t:.0f} s counted nothing"
                    )
                )
            latest = max(latest, event.t)
            merged.append((Event(latest, event.type, event.image, event.seq), session.name))
            front = None if event.type is EventType.CLOSE else event.image
        if front is not None:
            anomalies.append(Anomaly(session.name, front, "never closed", "counted to its last event"))
        if session.events:
            spans.append((session.events[0].t, latest, session.name))
    spans.sort()
    for (_, end, _), (start, _, name) in pairwise(spans):
        if start < end:
            anomalies.append(Anomaly(name, "", "two sessions at the same time", "one timeline: no second counts twice"))
    # Python's sort is stable: events of one session at the same time stay in their order.
    return sorted(merged, key=lambda item: item[0].t)
