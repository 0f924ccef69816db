"""Odd logs are named for what they are, and usual ones for nothing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.measures.test_time import MORNING, session
from wsi_pipeline.measures import ImageKey, Session
from wsi_pipeline.measures.time_anomalies import JUMP_S, Anomaly, Coverage, Oddity, anomalies, coverage

USUAL = session((0, "open", "1"), (9, "edit", "1"), (20, "close", "1"), (30, "open", "2"), (40, "close", "2"))


def found(*sessions: Session, raters: tuple[str, ...] = ("anna",)) -> list[tuple[str, str | None, float | None]]:
    """Kind, image and seconds of each anomaly."""
    return [(str(a.kind), a.image, a.seconds) for a in anomalies(sessions, raters)]


def test_usual_logs_have_nothing_odd() -> None:
    later = replace(session((100, "open", "1"), (110, "close", "1")), log="b")
    assert found(USUAL, later) == []
    assert found() == []
    assert found(session()) == []


def test_two_images_that_are_open_at_once_overlap() -> None:
    log = session((0, "open", "1"), (5, "open", "2"), (9, "close", "1"), (20, "close", "2"))
    assert found(log) == [("overlapping", "2", None)]
    assert anomalies([log], ["anna"])[0].t == MORNING + 5000


def test_two_logs_of_one_rater_at_the_same_time_overlap() -> None:
    other = session((15, "open", "3"), (25, "close", "3"), log="b")
    assert found(USUAL, other) == [("overlapping", "3", 10)]
    assert found(other, USUAL) == [("overlapping", "3", 10)]
    ben = replace(other, rater="ben")
    assert found(USUAL, ben, raters=("anna", "ben")) == []
    # Nobody knows when a recording without a date was made.
    assert found(USUAL, replace(other, absolute=False)) == []


def test_jumps_of_the_clock_in_both_directions() -> None:
    # The reader parts a log where time runs backwards.
    before, after = session((100, "open", "1"), (200, "close", "1")), session((50, "open", "1"), (60, "close", "1"))
    assert found(before, after) == [("clock_back", "1", 150)]
    asleep = session((0, "open", "1"), (JUMP_S, "edit", "1"), (2 * JUMP_S + 1, "close", "1"))
    assert found(asleep) == [("clock_forward", "1", JUMP_S + 1)]


def test_visits_that_nobody_closed() -> None:
    crashed = session((0, "open", "1"), (5, "edit", "1"))
    again = session((0, "open", "1"), (5, "edit", "1"), (9, "open", "1"), (12, "close", "1"))
    assert found(crashed) == [("never_closed", "1", None)]
    assert found(again) == [("never_closed", "1", None)]


def test_several_raters_on_one_machine_and_raters_of_no_batch() -> None:
    anna = replace(USUAL, host="1a2b")
    ben = replace(session((100, "open", "1"), (110, "close", "1"), rater="ben", log="b"), host="1a2b")
    assert [(a.kind, a.rater) for a in anomalies([anna, ben], ["anna", "ben"])] == [
        (Oddity.SHARED_MACHINE, "anna"),
        (Oddity.SHARED_MACHINE, "ben"),
    ]
    assert found(anna, replace(ben, host="other"), raters=("anna", "ben")) == []
    # Without a name of the machine nothing is claimed.
    assert found(USUAL, replace(ben, host=""), raters=("anna", "ben")) == []
    assert Anomaly(Oddity.FOREIGN_RATER, "ben", "b", t=MORNING + 100_000) in anomalies([anna, ben], ["anna"])


def test_each_oddity_says_what_is_done() -> None:
    assert all(kind.treatment for kind in Oddity)


def test_coverage_is_the_share_of_visits_with_events() -> None:
    log = session(
        (0, "open", "1"), (5, "edit", "1"), (9, "close", "1"),
        (10, "open", "1"), (12, "close", "1"),
        (20, "open", "2"), (30, "heartbeat", "2"), (31, "edit", "2"),
        (40, "save", "3"),
    )  # fmt: skip
    known = {key.image: value for key, value in coverage([log]).items()}
    assert known == {"1": Coverage(2, 1), "2": Coverage(1, 1), "3": Coverage(1, 1)}
    assert known["1"].share == 0.5
    assert Coverage().share is None


kinds = st.sampled_from(["open", "close", "edit", "save", "heartbeat", "focus"])


@given(lines=st.lists(st.tuples(st.integers(0, 100), kinds, st.sampled_from("12")), max_size=30))
def test_coverage_never_exceeds_the_visits(lines: list[tuple[int, str, str]]) -> None:
    at, timed = 0, []
    for pause, kind, image in lines:
        at += pause
        timed.append((float(at), kind, image))
    log = session(*timed)
    opened = [image for _, kind, image in timed if kind == "open"]
    for key, value in coverage([log]).items():
        assert key == ImageKey("p", "anna", key.image)
        assert opened.count(key.image) <= value.visits
        assert 0 <= value.with_events <= value.visits
