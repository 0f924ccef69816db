"""Active time against logs that were worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.measures import Event, EventType, ImageKey, Session, active_times, rule_text
from wsi_pipeline.measures.time import region_times, seconds_by_cutoff
from wsi_pipeline.states import Source

MINUTE = 60
# A day in May, 08:00 UTC.
MORNING = 1_778_659_200_000


def session(*lines: tuple[float, str, str], rater: str = "anna", project: str = "p", log: str = "a") -> Session:
    """Lines are (seconds since the morning, type, image)."""
    events = tuple(
        Event(seq, MORNING + round(1000 * at), EventType(kind), image)
        for seq, (at, kind, image) in enumerate(lines, start=1)
    )
    return Session(project, rater, events, log=log)


def seconds(*sessions: Session, idle_s: float = 300) -> dict[str, float]:
    return {key.image: time.seconds for key, time in active_times(sessions, idle_s).items()}


def test_pauses_up_to_the_cap_are_credited_to_the_image_in_front() -> None:
    log = session((0, "open", "1"), (40, "edit", "1"), (250, "save", "1"), (260, "close", "1"))
    assert seconds(log) == {"1": 40 + 210 + 10}


def test_a_longer_pause_counts_as_the_cap() -> None:
    log = session((0, "open", "1"), (1000, "edit", "1"), (1010, "close", "1"))
    assert seconds(log) == {"1": 300 + 10}
    assert seconds(log, idle_s=100) == {"1": 100 + 10}
    assert seconds(log, idle_s=60) == {"1": 60 + 10}


def test_a_pause_of_exactly_the_cap_counts_in_full_whatever_ends_it() -> None:
    assert seconds(session((0, "open", "1"), (300, "open", "2"), (300, "close", "2"))) == {"1": 300, "2": 0}


def test_a_longer_pause_that_ends_with_an_opening_counts_nothing() -> None:
    log = session((0, "open", "1"), (20, "edit", "1"), (2000, "open", "2"), (2030, "close", "2"))
    assert seconds(log) == {"1": 20, "2": 30}


def test_nothing_is_credited_while_no_image_is_in_front() -> None:
    log = session((0, "open", "1"), (10, "close", "1"), (200, "open", "2"), (250, "close", "2"))
    assert seconds(log) == {"1": 10, "2": 50}


def test_an_action_brings_its_image_to_the_front() -> None:
    # Two viewers side by side: the other image was opened last, work goes on in the first.
    log = session((0, "open", "1"), (10, "open", "2"), (15, "edit", "1"), (45, "close", "2"), (75, "close", "1"))
    assert seconds(log) == {"1": 10 + 30 + 30, "2": 5}
    times = active_times([log], 300)
    assert times[ImageKey("p", "anna", "1")].visits == 2


def test_signs_of_life_of_a_window_are_no_work() -> None:
    lines = [(30.0 * i, "heartbeat", "1") for i in range(1, 40)]
    log = session((0, "open", "1"), *lines, (1199, "blur", "1"), (1200, "close", "1"))
    assert seconds(log) == {"1": 300}


def test_a_visit_that_nobody_closed_ends_with_its_last_action() -> None:
    crashed = session((0, "open", "1"), (60, "edit", "1"), log="a")
    again = session((90, "open", "1"), (100, "close", "1"), log="b")
    assert seconds(crashed, again) == {"1": 60 + 10}


def test_the_end_of_one_log_does_not_take_away_what_another_has_in_front() -> None:
    first = session((0, "open", "1"), (50, "edit", "1"), log="a")
    second = session((20, "open", "2"), (100, "close", "2"), log="b")
    # 0 to 20 on 1, 20 to 50 on 2; then 1 is in front for a moment, its log ends, and 2 is never brought back.
    assert seconds(first, second) == {"1": 20, "2": 30}


def test_no_second_of_one_rater_is_counted_twice() -> None:
    one = session((0, "open", "1"), (100, "edit", "1"), (200, "close", "1"), log="a")
    two = session((50, "open", "2"), (150, "edit", "2"), (250, "close", "2"), log="b")
    # 1 to 50, 2 to 100, 1 to 150, then 2 is in front to the end.
    assert seconds(one, two) == {"1": 50 + 50, "2": 50 + 50 + 50}


def test_two_raters_each_have_their_own_timeline() -> None:
    anna = session((0, "open", "1"), (100, "close", "1"))
    ben = session((50, "open", "1"), (80, "close", "1"), rater="ben")
    times = active_times([anna, ben], 300)
    assert {key.rater: time.seconds for key, time in times.items()} == {"anna": 100, "ben": 30}


def test_the_same_entry_in_another_project_is_another_image() -> None:
    times = active_times([session((0, "open", "1"), (9, "close", "1")), session(project="q")], 300)
    assert list(times) == [ImageKey("p", "anna", "1")]


def test_first_and_last_action_and_the_source_are_kept() -> None:
    log = session((5, "open", "1"), (9, "heartbeat", "1"), (8, "edit", "1"))
    simulated = Session("p", "anna", log.events, Source.SIMULATED, "a")
    (time,) = active_times([simulated], 300).values()
    assert (time.first, time.last) == (MORNING + 5000, MORNING + 8000)
    assert time.sources == {Source.SIMULATED}


def test_no_log_is_no_time() -> None:
    assert active_times([], 300) == {}
    assert active_times([session()], 300) == {}


def test_other_cutoffs_stand_beside() -> None:
    log = session((0, "open", "1"), (80, "edit", "1"), (280, "close", "1"))
    assert seconds_by_cutoff([log], (60, 100, 300)) == {60: 120, 100: 180, 300: 280}


def test_the_rule_names_itself_its_version_and_its_cap() -> None:
    assert rule_text(300) == "timeline, version 1: one timeline per rater, pauses capped at 300 s"


steps = st.lists(
    st.tuples(
        st.floats(0, 900), st.sampled_from(["open", "edit", "save", "close", "heartbeat"]), st.sampled_from("123")
    ),
    max_size=40,
)


@given(steps=steps, low=st.floats(1, 300), more=st.floats(0, 300))
@settings(deadline=None)
def test_a_higher_cap_never_gives_less_and_never_more_than_the_clock(
    steps: list[tuple[float, str, str]], low: float, more: float
) -> None:
    at, lines = 0.0, []
    for pause, kind, image in steps:
        at += pause
        lines.append((at, kind, image))
    log = session(*lines)
    few, many = sum(seconds(log, idle_s=low).values()), sum(seconds(log, idle_s=low + more).values())
    assert few <= many + 1e-6
    assert many <= at + 1e-2
    assert few <= low * max(0, len(lines) - 1) + 1e-6


@given(steps=steps, cut=st.integers(0, 40))
@settings(deadline=None)
def test_the_order_in_which_logs_are_read_does_not_matter(steps: list[tuple[float, str, str]], cut: int) -> None:
    at, lines = 0.0, []
    for pause, kind, image in steps:
        at += pause + 0.01
        lines.append((at, kind, image))
    parts = [session(*lines[:cut], log="a"), session(*lines[cut:], log="b")]
    assert seconds(*parts) == pytest.approx(seconds(*reversed(parts)))


def touched(*lines: tuple[float, str, str, str | None], rater: str = "anna") -> Session:
    """As `session`, with the object of each line."""
    events = tuple(
        Event(seq, MORNING + round(1000 * at), EventType(kind), image, item)
        for seq, (at, kind, image, item) in enumerate(lines, start=1)
    )
    return Session("p", rater, events)


def regions(*sessions: Session, idle_s: float = 300) -> dict[str, dict[str | None, tuple[float, int]]]:
    return {
        key.image: {item: (time.seconds, time.actions) for item, time in own.items()}
        for key, own in region_times(sessions, idle_s).items()
    }


def test_the_pause_before_an_action_is_its_objects() -> None:
    log = touched(
        (0, "open", "1", None), (20, "edit", "1", "a"), (50, "edit", "1", "b"), (55, "edit", "1", "a"),
        (70, "class", "1", "c"), (80, "save", "1", None), (100, "close", "1", None),
    )  # fmt: skip
    assert regions(log) == {"1": {"a": (25, 2), "b": (30, 1), "c": (15, 1), None: (30, 0)}}


def test_an_action_elsewhere_says_nothing_of_the_objects_of_the_image_that_was_in_front() -> None:
    log = touched((0, "open", "1", None), (10, "edit", "2", "x"), (25, "edit", "2", "y"), (30, "close", "2", None))
    assert regions(log) == {"1": {None: (10, 0)}, "2": {"x": (0, 1), "y": (15, 1), None: (5, 0)}}


def test_a_long_pause_before_an_action_is_capped_for_its_object_too() -> None:
    log = touched((0, "open", "1", None), (1000, "edit", "1", "a"), (1010, "close", "1", None))
    assert regions(log) == {"1": {"a": (300, 1), None: (10, 0)}}
    assert regions(log, idle_s=60) == {"1": {"a": (60, 1), None: (10, 0)}}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2000),
            st.sampled_from(["open", "edit", "class", "delete", "save", "close", "heartbeat"]),
            st.sampled_from("12"),
            st.sampled_from([None, "a", "b"]),
            st.sampled_from(["anna", "ben"]),
        ),
        max_size=25,
    ),
    st.sampled_from([30, 300]),
)
@settings(deadline=None, max_examples=80)
def test_the_regions_of_an_image_add_up_to_its_time(
    lines: list[tuple[int, str, str, str | None, str]], idle_s: float
) -> None:
    own = [
        touched(*(line[:4] for line in sorted(lines, key=lambda line: line[0]) if line[4] == rater), rater=rater)
        for rater in ("anna", "ben")
    ]
    whole = {key: time.seconds for key, time in active_times(own, idle_s).items()}
    shared = {key: sum(t.seconds for t in parts.values()) for key, parts in region_times(own, idle_s).items()}
    assert {key: s for key, s in shared.items() if s} == pytest.approx({key: s for key, s in whole.items() if s})
