"""Rules of active time as objects: each states its events, what a long pause and an unclosed visit are worth.

A rule that is to compare two arms must see the same kinds of event in both. Edits alone do not: whoever accepts a
suggestion leaves none, so that the assisted arm would look faster than it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.measures.time import RULE_VERSION, EventType, ImageKey, Session, active_times

EDITS = frozenset({EventType.EDIT, EventType.CLASS, EventType.DELETE})
VISITS = frozenset({EventType.OPEN, EventType.CLOSE})
VIEWS = frozenset({EventType.VIEW})
ACTIONS = VISITS | EDITS | {EventType.SAVE}
# Above this share of pairs without time, a saving is shown with a flag.
MISSING_FLAG = 0.05


@dataclass(frozen=True, slots=True)
class TimeRule:
    """One way to turn events into seconds, with what it assumes.

    `events` are the kinds it looks at, `long_pause` and `unclosed` say in words what those are worth.
    """

    name: str
    version: int
    events: frozenset[EventType]
    long_pause: str
    unclosed: str
    seconds: Callable[[Sequence[Session]], dict[ImageKey, float]]

    def __str__(self) -> str:
        kinds = ", ".join(sorted(self.events))
        return f"{self.name}, version {self.version}: {kinds}; {self.long_pause}; {self.unclosed}"


def _capped(
    kinds: Collection[EventType], cap_s: float, *, drop_long: bool = False
) -> Callable[[Sequence[Session]], dict[ImageKey, float]]:
    """Seconds by `active_times` of these kinds of event alone."""

    def seconds(sessions: Sequence[Session]) -> dict[ImageKey, float]:
        return {
            key: time.seconds for key, time in active_times(_only(sessions, kinds), cap_s, drop_long=drop_long).items()
        }

    return seconds


def timeline(cap_s: float) -> TimeRule:
    """The rule of `measures.time` with its cut-off."""
    return TimeRule(
        name=f"timeline_cap{cap_s:g}",
        version=RULE_VERSION,
        events=ACTIONS,
        long_pause=f"a pause over {cap_s:g} s is capped, and counts nothing when an opening ends it",
        unclosed="an unclosed visit counts to the last action in its log or to the next elsewhere",
        seconds=_capped(ACTIONS, cap_s),
    )


def timeline_drop(cutoff_s: float) -> TimeRule:
    """The same timeline, with long pauses left out: whoever is away for so long did not work at all."""
    return TimeRule(
        name=f"timeline_drop{cutoff_s:g}",
        version=1,
        events=ACTIONS,
        long_pause=f"a pause over {cutoff_s:g} s is dropped, whatever ends it",
        unclosed="an unclosed visit counts to the last action in its log or to the next elsewhere",
        seconds=_capped(ACTIONS, cutoff_s, drop_long=True),
    )


def views(cap_s: float) -> TimeRule:
    """Recordings of the view: from the first move to the last, each recording for itself where it has no date."""
    return TimeRule(
        name=f"views_cap{cap_s:g}",
        version=1,
        events=VIEWS,
        long_pause=f"a pause over {cap_s:g} s is capped",
        unclosed="a recording that nobody stopped counts to its last move",
        seconds=_capped(VIEWS, cap_s),
    )


def pairs() -> TimeRule:
    """Openings and closings of one image in pairs, as they stand."""
    return TimeRule(
        name="pairs",
        version=1,
        events=VISITS,
        long_pause="no pause is capped or dropped",
        unclosed="an unclosed visit and a closing without opening count nothing",
        seconds=_paired,
    )


def edits(cap_s: float) -> TimeRule:
    """Edits alone, for what left nothing else. It describes manual work and is refused for savings."""
    return TimeRule(
        name=f"edits_cap{cap_s:g}",
        version=1,
        events=EDITS,
        long_pause=f"a pause over {cap_s:g} s is capped",
        unclosed="a visit counts from its first edit to its last",
        seconds=_capped(EDITS, cap_s),
    )


def _only(sessions: Sequence[Session], kinds: Collection[EventType]) -> list[Session]:
    return [replace(s, events=tuple(e for e in s.events if e.type in kinds)) for s in sessions]


def _paired(sessions: Sequence[Session]) -> dict[ImageKey, float]:
    """Seconds from each opening to the next closing of its image; a second opening starts anew."""
    result: dict[ImageKey, float] = {}
    opened: dict[tuple[int, ImageKey], float] = {}
    for number, session in enumerate(sessions):
        for event in sorted(session.events, key=lambda e: (e.t, e.seq)):
            if not event.type.is_action:
                continue
            key = ImageKey(session.project, session.rater, event.image)
            result.setdefault(key, 0.0)
            if event.type is EventType.OPEN:
                opened[number, key] = event.t
            elif event.type is EventType.CLOSE and (number, key) in opened:
                result[key] += (event.t - opened.pop((number, key))) / 1000.0
    return dict(sorted(result.items()))


def check_for_saving(rule: TimeRule, kinds: Mapping[str, Collection[EventType]]) -> None:
    """Refuse a rule that does not see the same kinds of event in all arms.

    Parameters
    ----------
    kinds
        Per arm, the kinds of event in its logs.

    Raises
    ------
    ConfigError
        If the rule looks at edits alone, or one arm has openings, closings or moves of the view that another lacks.
        Edits and saves may be missing in an arm: they follow from what was done there, the others from how it was
        logged.
    """
    if rule.events <= EDITS:
        raise ConfigError(
            f"{rule.name}: sees edits alone, and accepting a suggestion leaves none; use a rule with openings"
        )
    seen = {arm: frozenset(found) & rule.events & (VISITS | VIEWS) for arm, found in kinds.items()}
    for arm, found in seen.items():
        missing = frozenset().union(*seen.values()) - found
        if missing:
            raise ConfigError(
                f"{rule.name}: arm {arm} has no events of kind {', '.join(sorted(missing))}, which another arm has; "
                "compare arms that were logged alike"
            )
    if not any(seen.values()):
        raise ConfigError(
            f"{rule.name}: no arm has openings, closings or moves of the view; edits alone give no saving"
        )


@dataclass(frozen=True, slots=True)
class PairCount:
    """How many pairs of manual and assisted time could be used."""

    usable: int
    without_time: int
    zero: int

    @property
    def dropped(self) -> int:
        return self.without_time + self.zero

    @property
    def flagged(self) -> bool:
        """Whether so many pairs fell out that a saving needs a warning."""
        total = self.usable + self.dropped
        return total > 0 and self.dropped / total > MISSING_FLAG


def count_pairs(times: Iterable[tuple[float | None, float | None]]) -> PairCount:
    """Sort pairs into usable ones, ones without time in an arm, and ones with zero seconds."""
    usable = without = zero = 0
    for first, second in times:
        if first is None or second is None:
            without += 1
        elif first <= 0 or second <= 0:
            zero += 1
        else:
            usable += 1
    return PairCount(usable, without, zero)
