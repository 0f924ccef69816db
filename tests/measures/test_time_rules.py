"""Each rule of time against logs that were worked out by hand, and what holds for any log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.measures.test_time import session
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.measures import EventType, Session
from wsi_pipeline.measures.time_rules import (
    TimeRule,
    check_for_saving,
    count_pairs,
    edits,
    pairs,
    timeline,
    timeline_drop,
    views,
)

# 1: opened at 0, edits at 50 and 450, closed at 500; 2: opened at 520, edit at 560, saved at 900, never closed.
LOG = session(
    (0, "open", "1"), (50, "edit", "1"), (450, "edit", "1"), (500, "close", "1"),
    (520, "open", "2"), (560, "edit", "2"), (900, "save", "2"),
)  # fmt: skip
ALL_RULES = [timeline(300), timeline_drop(300), pairs(), edits(300), views(300)]


def of(rule: TimeRule, *sessions: Session) -> dict[str, float]:
    return {key.image: seconds for key, seconds in rule.seconds(sessions).items()}


def test_timeline_caps_a_long_pause() -> None:
    # 1: 50 + 300 (of 400) + 50; 2: 40 + 300 (of 340).
    assert of(timeline(300), LOG) == {"1": 400, "2": 340}
    assert of(timeline(60), LOG) == {"1": 50 + 60 + 50, "2": 40 + 60}


def test_timeline_drop_leaves_a_long_pause_out() -> None:
    assert of(timeline_drop(300), LOG) == {"1": 50 + 50, "2": 40}
    assert of(timeline_drop(400), LOG) == {"1": 50 + 400 + 50, "2": 40 + 340}


def test_pairs_counts_closed_visits_as_they_stand() -> None:
    assert of(pairs(), LOG) == {"1": 500, "2": 0}


def test_edits_counts_from_the_first_edit_to_the_last() -> None:
    # From 450 to 560 image 1 is in front, since edits alone do not say when it was left.
    assert of(edits(500), LOG) == {"1": 400 + 110, "2": 0}


def test_views_counts_moves_of_the_view_alone() -> None:
    log = session((0, "view", "1"), (10, "edit", "1"), (30, "view", "1"), (500, "view", "1"))
    assert of(views(300), log) == {"1": 30 + 300}
    assert of(timeline(300), log) == {"1": 0}


def test_recordings_without_a_date_are_added_up_each_for_itself() -> None:
    first = replace(session((0, "view", "1"), (100, "view", "1"), log="a"), absolute=False)
    second = replace(session((0, "view", "1"), (40, "view", "1"), log="b"), absolute=False)
    assert of(views(300), first, second) == {"1": 140}
    assert sum(of(views(300), replace(first, absolute=True), replace(second, absolute=True)).values()) <= 100


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.name)
def test_each_rule_says_its_version_its_events_and_what_it_assumes(rule: TimeRule) -> None:
    text = str(rule)
    assert f"{rule.name}, version {rule.version}" in text
    assert all(kind in text for kind in rule.events)
    assert any(word in rule.long_pause for word in ("capped", "dropped"))
    assert "visit" in rule.unclosed or "recording" in rule.unclosed


def test_a_saving_needs_the_same_kinds_of_event_in_both_arms() -> None:
    both = {EventType.OPEN, EventType.CLOSE, EventType.EDIT}
    check_for_saving(timeline_drop(300), {"manual": both, "assisted": both - {EventType.EDIT}})
    with pytest.raises(ConfigError, match="arm assisted has no events of kind open"):
        check_for_saving(timeline_drop(300), {"manual": both, "assisted": {EventType.CLOSE}})
    with pytest.raises(ConfigError, match="arm manual has no events of kind view"):
        check_for_saving(views(300), {"manual": both, "assisted": {EventType.VIEW}})
    with pytest.raises(ConfigError, match="no arm has"):
        check_for_saving(views(300), {"manual": both, "assisted": both})
    check_for_saving(views(300), {"manual": {EventType.VIEW}, "assisted": {EventType.VIEW, *both}})


def test_pairs_without_time_are_counted_and_flagged_above_a_twentieth() -> None:
    fine = [(1.0, 2.0)] * 19
    assert not count_pairs([*fine, (None, 1.0)]).flagged
    assert count_pairs([*fine[1:], (None, 1.0)]).flagged
    assert (count_pairs([(0.0, 1.0), (None, 0.0)]).zero, count_pairs([(0.0, 1.0), (None, 0.0)]).without_time) == (1, 1)


steps = st.lists(
    st.tuples(
        st.integers(0, 900), st.sampled_from(["open", "edit", "save", "close", "view"]), st.sampled_from("123")
    ),
    max_size=30,
)  # fmt: skip


def sessions_of(lines: Sequence[tuple[int, str, str]], logs: int) -> list[Session]:
    """The lines dealt to several logs of one rater, which overlap."""
    at, timed = 0, []
    for pause, kind, image in lines:
        at += pause
        timed.append((float(at), kind, image))
    return [session(*timed[i::logs], log=f"log-{i}") for i in range(logs)]


@given(lines=steps, logs=st.integers(1, 3))
def test_no_second_of_a_rater_is_counted_twice(lines: list[tuple[int, str, str]], logs: int) -> None:
    clock = sum(pause for pause, _, _ in lines[1:])
    for rule in (timeline(300), timeline_drop(300), edits(300), views(300)):
        assert sum(of(rule, *sessions_of(lines, logs)).values()) <= clock + 1e-6


@given(lines=steps, logs=st.integers(1, 3), order=st.randoms(use_true_random=False))
def test_the_order_of_logs_does_not_matter_even_within_one_moment(
    lines: list[tuple[int, str, str]], logs: int, order: object
) -> None:
    sessions = sessions_of(lines, logs)
    shuffled = list(sessions)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    for rule in ALL_RULES:
        assert of(rule, *shuffled) == pytest.approx(of(rule, *sessions))


@given(lines=steps, logs=st.integers(1, 3), low=st.integers(1, 300), more=st.integers(0, 300))
def test_a_higher_cutoff_never_gives_less(
    lines: list[tuple[int, str, str]], logs: int, low: int, more: int
) -> None:  # fmt: skip
    sessions = sessions_of(lines, logs)
    for make in (timeline, timeline_drop, edits, views):
        few, many = of(make(low), *sessions), of(make(low + more), *sessions)
        assert all(few[image] <= many[image] + 1e-6 for image in few)
    capped, dropped = of(timeline(low), *sessions), of(timeline_drop(low), *sessions)
    assert all(dropped[image] <= capped[image] + 1e-6 for image in capped)
