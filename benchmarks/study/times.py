"""Seconds per expert and image under each rule, and everything in the logs that is not as it should be.

`pairs` takes each start of an image with the next end of that image, whatever happens between and elsewhere. The
`timeline` rules are the ones of `wsi_pipeline.measures.time`: one timeline per expert and arm of all own starts, ends
and actions; each gap goes to the image in front before it, at most N seconds of it; a gap longer than N that ends with
a start counts nothing. Both see the expert's own events only. An action is the creation or the last change of an
object by the expert, also of one that was deleted later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.study.layout import ARMS, Study, Work, time_text
from wsi_pipeline.measures.time import Event, EventType, Session, active_times
from wsi_pipeline.measures.time_sources.exact import LogLine

CAPS_S = (60, 100, 300)
RULES = ("pairs", *(f"timeline_cap{cap}" for cap in CAPS_S))
LONG_GAP_S = 300
OUTSIDE = "action outside any visit"
UNREAD = "unreadable line"
LATE = "action after the last log line"

Seconds = dict[str, float]
# Image, kind, when (microseconds), treatment.
Row = tuple[str, str, float | None, str]


@dataclass(frozen=True, slots=True)
class Visit:
    """From a start of an image to the next end of it, in microseconds."""

    image: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Visits:
    """Complete visits by time, starts that no end follows before the next start, and ends without a start."""

    complete: list[Visit]
    unclosed: list[LogLine]
    unopened: list[LogLine]


def visits_of(work: Work) -> Visits:
    """The expert's own visits, image by image."""
    found = Visits([], [], [])
    open_: dict[str, LogLine] = {}
    for line in work.own_log:
        if line.start:
            if line.image in open_:
                found.unclosed.append(open_[line.image])
            open_[line.image] = line
        elif line.image in open_:
            found.complete.append(Visit(line.image, open_.pop(line.image).t, line.t))
        else:
            found.unopened.append(line)
    found.unclosed.extend(open_.values())
    found.complete.sort(key=lambda visit: (visit.start, visit.end))
    found.unclosed.sort(key=lambda line: line.t)
    return found


def pair_seconds(work: Work) -> Seconds:
    """Sum of complete visits per image, without a cap; an image without a complete visit is absent."""
    total: dict[str, int] = defaultdict(int)
    for visit in visits_of(work).complete:
        total[visit.image] += visit.end - visit.start
    return {image: us / 1e6 for image, us in sorted(total.items())}


def timeline_events(work: Work) -> list[Event]:
    """Own actions and log lines by time, `t` in microseconds; within one microsecond actions come first."""
    points = [(t, 0, image, EventType.EDIT) for t, image in work.own_actions]
    for place, line in enumerate(work.own_log, start=1):
        points.append((line.t, place, line.image, EventType.OPEN if line.start else EventType.CLOSE))
    return [Event(seq, t, kind, image) for seq, (t, _, image, kind) in enumerate(sorted(points))]


def timeline_seconds(work: Work, cap_s: float) -> Seconds:
    """Seconds of every image that came to the front, at least 0.0."""
    events = timeline_events(work)
    # The rule is written for milliseconds; the logs have microseconds, so everything is a thousand times as long.
    found = active_times([Session(work.arm, work.expert, tuple(events))], 1000.0 * cap_s)
    fronted = {event.image for event in events if event.type is not EventType.CLOSE}
    return {key.image: time.seconds / 1000.0 for key, time in found.items() if key.image in fronted}


def seconds_of(work: Work) -> dict[str, Seconds]:
    """Seconds per rule and image."""
    return {"pairs": pair_seconds(work)} | {f"timeline_cap{cap}": timeline_seconds(work, cap) for cap in CAPS_S}


def all_seconds(study: Study) -> dict[str, dict[str, dict[str, Seconds]]]:
    """`seconds[rule][arm][expert][image]`."""
    result: dict[str, dict[str, dict[str, Seconds]]] = {rule: {arm: {} for arm in ARMS} for rule in RULES}
    for arm, works in study.work.items():
        for expert in (e for e in study.experts if e in works):
            for rule, seconds in seconds_of(works[expert]).items():
                result[rule][arm][expert] = seconds
    return result


def anomalies_of(study: Study) -> list[dict[str, Any]]:
    """Rows of arm, expert, image, kind, at and treatment, in the order of the experts and of time."""
    rows = [_row("truth", "", ("", UNREAD, None, f"left out: {text}")) for text in study.unread]
    suggested = {item.uuid for item in study.suggestions}
    for arm in ARMS:
        for expert in study.experts:
            work = study.work[arm].get(expert)
            if work is None:
                found: list[Row] = [
                    ("", "missing round file", None, f"the expert has no answers and no times in `{arm}`")
                ]
            else:
                found = [*_of_log(work), *_of_visits(work), *_of_times(work), *_of_images(study, work)]
                found += _of_others(work, suggested)
            found.sort(key=lambda row: (row[2] is None, row[2] or 0, row[:2]))
            rows += [_row(arm, expert, row) for row in found]
    return rows


def _row(arm: str, expert: str, row: Row) -> dict[str, Any]:
    image, kind, at, treatment = row
    when = None if at is None else time_text(round(at))
    return {"arm": arm, "expert": expert, "image": image, "kind": kind, "at": when, "treatment": treatment}


def _of_log(work: Work) -> Iterator[Row]:
    """What is wrong with single lines."""
    for text in work.export.unread:
        yield "", UNREAD, None, f"left out: {text}"
    if work.guessed:
        yield "", "user guessed", None, f"no user Participant_{work.expert}; the log's most frequent user, {work.user}"
    last: dict[str, int] = {}
    for line in work.export.log:
        if line.user.casefold() != work.user.casefold():
            yield line.image, "other user", line.t, f"line of {line.user}; left out of every rule"
            continue
        if line.t > last.get(line.image, line.t):
            yield line.image, "not newest first", line.t, "the clock or the file jumped; sorted by time"
        last[line.image] = line.t


def _of_others(work: Work, suggested: set[str]) -> Iterator[Row]:
    """Objects made by somebody else that are no suggestions."""
    for item in work.export.items:
        if item.uuid not in suggested and item.created_by.casefold() != work.user.casefold():
            treatment = f"object of {item.created_by}; counted among the answers, not in any time"
            yield item.image, "other user", item.created, treatment


def _of_visits(work: Work) -> Iterator[Row]:
    """Visits that nobody closed, ends without start, reopened images, overlapping visits."""
    visits = visits_of(work)
    for line in visits.unclosed:
        yield line.image, "never closed", line.t, "pairs: dropped; timeline: counts until the next event, capped"
    for line in visits.unopened:
        yield line.image, "end without start", line.t, "pairs: dropped; timeline: an event of the expert"
    seen: set[str] = set()
    for line in (line for line in work.own_log if line.start):
        if line.image in seen:
            yield line.image, "reopened", line.t, "every complete visit is added"
        seen.add(line.image)
    for place, later in enumerate(visits.complete):
        for earlier in visits.complete[:place]:
            if later.start < earlier.end and later.image != earlier.image:
                treatment = f"with {earlier.image}; pairs: both count in full; timeline: one image is in front"
                yield later.image, "overlapping visits", later.start, treatment


def _of_times(work: Work) -> Iterator[Row]:
    """Long gaps while an image is in front, and actions while their image is not open."""
    front: str | None = None
    events = timeline_events(work)
    for before, event in pairwise(events):
        front = before.image if before.type is not EventType.CLOSE else None if before.image == front else front
        gap = (event.t - before.t) / 1e6
        if front is not None and gap > LONG_GAP_S:
            counted = "nothing, since it ends with a start" if event.type is EventType.OPEN else "the cap"
            yield front, "long gap", before.t, f"{gap:.0f} s; pairs: in full if inside a visit; timeline: {counted}"
    open_: set[str] = set()
    last_line = max((line.t for line in work.own_log), default=None)
    listed: set[tuple[str, str]] = set()
    for event in events:
        if event.type is not EventType.EDIT:
            (open_.add if event.type is EventType.OPEN else open_.discard)(event.image)
            listed.discard((event.image, OUTSIDE))
            continue
        late = last_line is None or event.t > last_line
        kind = LATE if late else OUTSIDE
        if (late or event.image not in open_) and (event.image, kind) not in listed:
            listed.add((event.image, kind))
            treatment = "the first of these here; pairs: not seen; timeline: brings its image to the front"
            yield event.image, kind, event.t, treatment


def _of_images(study: Study, work: Work) -> Iterator[Row]:
    """Images never opened, and opened ones that a rule gives no time."""
    opened = work.opened
    for image in study.images:
        if image not in opened:
            yield image, "never opened", None, "left out of this expert's answers"
    for rule, seconds in seconds_of(work).items():
        for image in sorted(opened):
            if image not in seconds:
                yield image, "no complete visit", None, f"{rule}: absent, and dropped from the saving"
            elif seconds[image] == 0:
                yield image, "zero time", None, f"{rule}: dropped from the saving"
