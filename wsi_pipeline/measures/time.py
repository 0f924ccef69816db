"""Active time from what raters did, by one rule that is stated and numbered.

Rule `timeline`, version 1. Each rater has one timeline of all of the rater's own actions in all logs: an image opened
or closed, an object made, changed, classified or deleted, a save. The time between two actions that follow each other
is credited to the image that was in front, at most `idle_s` of it; a longer pause that ends with an opening counts
nothing, since whoever opens an image comes from elsewhere. An action brings its image to the front, a close takes it
away, and so does the end of its log: a visit that nobody closed ends with the last action in it.

A recording without a date (see `Session.absolute`) is a timeline of its own: nobody knows what it overlaps.

Heartbeats and changes of focus are no actions. They say that a window was in front, not that anybody looked at it, and
QuPath's own dialogs take the focus away; with them no pause would ever be longer than half a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from wsi_pipeline.states import Source

RULE = "timeline"
RULE_VERSION = 1
# Shown beside the configured cut-off, so that a reader sees how much depends on it.
OTHER_CUTOFFS_S = (60.0, 100.0, 300.0)


class TimeSource(StrEnum):
    """What a time was read from, the best first: where two tell the time of one image, the first of them counts."""

    EVENTS = "events"
    TIMESTAMPS = "timestamps"
    VIEW_TRACKER = "view_tracker"
    EXACT = "exact"
    SELF_REPORT = "self_report"
    MODEL = "model"
    SIMULATED = "simulated"

    @property
    def is_seen(self) -> bool:
        """Whether a program saw the work. Only then may the time be part of a saving, or be what a model learns."""
        return self not in {TimeSource.SELF_REPORT, TimeSource.MODEL}


class EventType(StrEnum):
    """What an event says; `view` is a move of the view, mouse or tool, which only recordings of the view hold."""

    OPEN = "open"
    CLOSE = "close"
    EDIT = "edit"
    CLASS = "class"
    DELETE = "delete"
    SAVE = "save"
    VIEW = "view"
    FOCUS = "focus"
    BLUR = "blur"
    HEARTBEAT = "heartbeat"

    @property
    def is_action(self) -> bool:
        """Whether a person did it; the others are signs of life of a window."""
        return self not in {EventType.FOCUS, EventType.BLUR, EventType.HEARTBEAT}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an event log.

    `t` is in milliseconds since 1970 (UTC), with fractions where the clock is finer; `image` is the project's entry id
    as text, `object` a uuid.
    """

    seq: int
    t: float
    type: EventType
    image: str
    object: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """The events of one rater in one project between two moments without a jump of the clock.

    `project` tells images of the same entry id apart; `log` names the file, `host` the machine where it is known.
    `absolute` is false where times count from the start of a recording or of a day.
    """

    project: str
    rater: str
    events: tuple[Event, ...]
    source: Source = Source.MEASURED
    log: str = ""
    host: str = ""
    time_source: TimeSource = TimeSource.EVENTS
    absolute: bool = True


@dataclass(slots=True)
class ActiveTime:
    """Time of one rater on one image: seconds, how often it came to the front, sources, first and last action (ms)."""

    seconds: float = 0.0
    visits: int = 0
    sources: set[Source] = field(default_factory=set)
    first: float | None = None
    last: float | None = None


@dataclass(frozen=True, slots=True, order=True)
class ImageKey:
    """An image and who worked on it."""

    project: str
    rater: str
    image: str


@dataclass(frozen=True, slots=True)
class _Point:
    """One action on a rater's timeline; `ends` marks the last one of its session."""

    event: Event
    session: int
    ends: bool


def active_times(sessions: Sequence[Session], idle_s: float, *, drop_long: bool = False) -> dict[ImageKey, ActiveTime]:
    """Active time per image and rater by the rule above.

    Parameters
    ----------
    sessions
        In any order; sessions of one rater may overlap, and no second is counted twice for one rater.
    idle_s
        The longest pause that is credited in full, in seconds.
    drop_long
        Whether a longer pause counts nothing, instead of `idle_s`.
    """
    result: dict[ImageKey, ActiveTime] = {}
    for timeline in _timelines(sessions):
        _walk(timeline, 1000.0 * idle_s, drop_long, result)
    return dict(sorted(result.items()))


@dataclass(slots=True)
class RegionTime:
    """Time that ended with something done to one object: seconds, and how often something was done to it."""

    seconds: float = 0.0
    actions: int = 0


def region_times(sessions: Sequence[Session], idle_s: float) -> dict[ImageKey, dict[str | None, RegionTime]]:
    """Active time per object of each image, by the same rule: what an image has is shared out, and adds up to it.

    The pause before an action on an object (made, changed, classified, deleted) is that object's, as it is the image's
    in front. What ends with an opening, a closing or a save is nobody's and stands under None: looking around, and
    all that was only accepted.

    Parameters
    ----------
    sessions, idle_s
        As for `active_times`.

    Returns
    -------
    By image, then by object uuid.
    """
    result: dict[ImageKey, dict[str | None, RegionTime]] = {}

    def share(front: ImageKey, event: Event, seconds: float, here: bool) -> None:
        own = result.setdefault(front, {})
        # An action elsewhere ends a pause in front of this image, and says nothing of this image's objects.
        own.setdefault(event.object if here else None, RegionTime()).seconds += seconds

    for timeline in _timelines(sessions):
        _walk(timeline, 1000.0 * idle_s, False, {}, share)
        for session in timeline:
            for event in session.events:
                if event.type.is_action and event.object is not None:
                    key = ImageKey(session.project, session.rater, event.image)
                    result.setdefault(key, {}).setdefault(event.object, RegionTime()).actions += 1
    return dict(sorted(result.items()))


def _timelines(sessions: Sequence[Session]) -> list[list[Session]]:
    """One for each rater, and one for each recording without a date; logs in an order that is theirs."""
    known: dict[tuple[str, int], list[Session]] = {}
    in_order = sorted(sessions, key=lambda s: (s.rater, s.project, s.log, s.events[0].seq if s.events else 0))
    for number, session in enumerate(in_order, start=1):
        known.setdefault((session.rater, 0 if session.absolute else number), []).append(session)
    return list(known.values())


def _walk(
    sessions: Sequence[Session],
    cap_ms: float,
    drop_long: bool,
    result: dict[ImageKey, ActiveTime],
    share: Callable[[ImageKey, Event, float, bool], None] | None = None,
) -> None:
    """Follow one rater's timeline and add what each pause is worth to the image in front.

    `share` is told of each pause as well: the image in front, the event that ends it, seconds, whether both are one.
    """
    front: tuple[int, ImageKey] | None = None
    before: Event | None = None
    for point in _timeline(sessions):
        event, session = point.event, sessions[point.session]
        key = ImageKey(session.project, session.rater, event.image)
        if front is not None and before is not None:
            seconds = _credit(event.t - before.t, event, cap_ms, drop_long) / 1000.0
            result[front[1]].seconds += seconds
            if share is not None:
                share(front[1], event, seconds, front[1] == key)
        time = result.setdefault(key, ActiveTime())
        time.sources.add(session.source)
        time.first = event.t if time.first is None else min(time.first, event.t)
        time.last = event.t if time.last is None else max(time.last, event.t)
        if event.type is EventType.CLOSE:
            front = None if front is not None and front[1] == key else front
        else:
            if front is None or front[1] != key:
                time.visits += 1
            front = (point.session, key)
        if point.ends and front is not None and front[0] == point.session:
            front = None
        before = event


def _credit(pause_ms: float, ends_with: Event, cap_ms: float, drop_long: bool) -> float:
    if pause_ms <= cap_ms:
        return max(0.0, pause_ms)
    return 0.0 if drop_long or ends_with.type is EventType.OPEN else cap_ms


def _timeline(sessions: Sequence[Session]) -> list[_Point]:
    """All actions in order of time; within one millisecond in the order of their logs."""
    points = []
    for number, session in enumerate(sessions):
        actions = [event for event in session.events if event.type.is_action]
        points += [_Point(event, number, event is actions[-1]) for event in actions]
    return sorted(points, key=lambda p: (p.event.t, p.session, p.event.seq))


def seconds_by_cutoff(sessions: Sequence[Session], cutoffs_s: Iterable[float]) -> Mapping[float, float]:
    """Active seconds of all raters and images together, for each cut-off."""
    return {cut: sum(t.seconds for t in active_times(sessions, cut).values()) for cut in cutoffs_s}


def rule_text(idle_s: float) -> str:
    """The rule in the words that stand beside every time."""
    return f"{RULE}, version {RULE_VERSION}: one timeline per rater, pauses capped at {idle_s:g} s"
