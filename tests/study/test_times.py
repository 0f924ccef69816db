"""Seconds by each rule against logs worked out by hand, and against a second, plain implementation of the rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.study.layout import Export, Work
from benchmarks.study.times import CAPS_S, all_seconds, anomalies_of, pair_seconds, seconds_of, timeline_seconds
from tests.study.builder import Draft, box, log
from wsi_pipeline.measures.time_sources.exact import Item, LogLine

ME = "Participant_1"


def plain_timeline(work: Work, cap_us: int) -> dict[str, float]:
    """The rule once more, from its words: a list of moments, a gap goes to who was in front before it."""
    moments = [(t, 0, "action", image) for t, image in work.own_actions]
    for place, line in enumerate(work.own_log, start=1):
        moments.append((line.t, place, "start" if line.start else "end", line.image))
    moments.sort()
    front, total = "", dict[str, int]()
    for index, (t, _, what, image) in enumerate(moments):
        gap = t - moments[index - 1][0] if index else 0
        if front and gap <= cap_us:
            total[front] += gap
        elif front and what != "start":
            total[front] += cap_us
        if what != "end":
            front = image
            total.setdefault(image, 0)
        elif image == front:
            front = ""
    return {image: us / 1e6 for image, us in total.items()}


def seconds(tmp_path: Path, *lines: str) -> dict[str, dict[str, float]]:
    return seconds_of(Draft(manual={"1": list(lines)}).read(tmp_path).work["manual"]["1"])


def test_a_clean_visit(tmp_path: Path) -> None:
    found = seconds(tmp_path, log("a", 40.25, 2), log("a", 0, 1))
    assert found == {rule: {"a": 40.25} for rule in ("pairs", "timeline_cap60", "timeline_cap100", "timeline_cap300")}


def test_a_long_pause_inside_a_visit_is_capped_in_a_timeline_only(tmp_path: Path) -> None:
    found = seconds(tmp_path, log("a", 1000, 2), log("a", 0, 1))
    assert {rule: times["a"] for rule, times in found.items()} == {
        "pairs": 1000,
        "timeline_cap60": 60,
        "timeline_cap100": 100,
        "timeline_cap300": 300,
    }


def test_a_pause_as_long_as_the_cap_is_not_longer(tmp_path: Path) -> None:
    found = seconds(tmp_path, log("a", 0, 1), log("b", 60, 1), log("c", 160.000001, 1))
    assert found["timeline_cap60"] == {"a": 60, "b": 0, "c": 0}
    assert found["timeline_cap100"] == {"a": 60, "b": 0, "c": 0}
    assert found["timeline_cap300"] == {"a": 60, "b": 100.000001, "c": 0}


def test_a_long_pause_that_ends_with_a_start_counts_nothing_one_that_ends_with_an_action_the_cap(
    tmp_path: Path,
) -> None:
    made = box("a", "1", uuid="u", by=ME, made=400)
    assert seconds(tmp_path, log("a", 0, 1), log("a", 1000, 1), made)["timeline_cap100"] == {"a": 100.0}


def test_a_start_after_a_start_drops_the_first(tmp_path: Path) -> None:
    lines = [log("a", 0, 1), log("a", 10, 1), log("a", 25, 2), log("a", 30, 2), log("b", 50, 1)]
    found = seconds(tmp_path, *lines)
    assert found["pairs"] == {"a": 15}
    assert found["timeline_cap60"] == {"a": 25, "b": 0}


def test_visits_of_one_image_are_added(tmp_path: Path) -> None:
    lines = [log("a", 0, 1), log("a", 5, 2), log("b", 6, 1), log("b", 7, 2), log("a", 20, 1), log("a", 22, 2)]
    found = seconds(tmp_path, *reversed(lines))
    assert found["pairs"] == found["timeline_cap60"] == {"a": 7, "b": 1}


def test_overlapping_visits_count_once_in_a_timeline(tmp_path: Path) -> None:
    lines = [log("a", 0, 1), log("b", 10, 1), log("a", 30, 2), log("b", 40, 2)]
    found = seconds(tmp_path, *lines)
    assert found["pairs"] == {"a": 30, "b": 30}
    # The end of `a` takes nothing away: `b` is in front.
    assert found["timeline_cap60"] == {"a": 10, "b": 30}


def test_actions_bring_their_image_to_the_front_and_stay_unseen_by_pairs(tmp_path: Path) -> None:
    mine = box("a", "1", uuid="m", by=ME, made=5, changed_by=ME, changed=9)
    found = seconds(tmp_path, log("b", 0, 1), mine, log("b", 12, 2))
    assert found["pairs"] == {"b": 12}
    # b until 5, a until the end of b, which is not in front.
    assert found["timeline_cap60"] == {"a": 7, "b": 5}


def test_only_the_experts_own_events_count(tmp_path: Path) -> None:
    lines = [
        log("a", 0, 1),
        log("a", 3, 2, "importer"),
        box("a", "1", uuid="s", made=2),
        box("c", "1", uuid="t", made=2, changed_by="importer", changed=4),
        box("a", "1", uuid="mine", by=ME, made=6, changed_by="importer", changed=8, deleted=True),
        log("a", 10, 2),
    ]
    found = seconds(tmp_path, *lines)
    assert found["pairs"] == found["timeline_cap60"] == {"a": 10}


def test_an_image_that_only_ended_has_no_time(tmp_path: Path) -> None:
    found = seconds(tmp_path, log("a", 0, 1), log("b", 5, 2), log("a", 9, 2))
    assert found["pairs"] == found["timeline_cap60"] == {"a": 9}


def test_events_of_one_microsecond_keep_the_order_of_the_log(tmp_path: Path) -> None:
    # Newest first: a was closed before it was opened again.
    lines = [log("a", 9, 2), log("a", 5, 1), log("a", 5, 2), log("a", 0, 1)]
    found = seconds(tmp_path, *lines)
    assert found["pairs"] == found["timeline_cap60"] == {"a": 9}


def test_nothing_at_all(tmp_path: Path) -> None:
    study = Draft().read(tmp_path)
    assert all_seconds(study)["pairs"] == {"manual": {"1": {}}, "assisted": {"1": {}}}
    assert anomalies_of(study) == []


TIMES = st.integers(0, 900_000_000)
IMAGES = st.sampled_from("abc")
LINES = st.lists(st.builds(LogLine, IMAGES, st.sampled_from((ME, "importer")), TIMES, st.booleans(), st.just(0)))
NAMES = st.sampled_from((ME, "participant_1", "importer"))
ITEMS = st.lists(
    st.builds(Item, IMAGES, st.none(), st.none(), NAMES, TIMES, NAMES, TIMES, st.uuids().map(str), st.booleans())
)


@given(LINES, ITEMS, st.sampled_from(CAPS_S))
def test_the_timeline_is_the_one_of_its_words(lines: list[LogLine], items: list[Item], cap: int) -> None:
    work = Work("manual", "1", ME, False, Export(Path("x"), tuple(lines), tuple(items)))
    assert timeline_seconds(work, cap) == pytest.approx(plain_timeline(work, cap * 10**6), abs=1e-6)


@given(LINES, ITEMS)
def test_no_second_is_counted_twice_and_a_longer_cap_never_counts_less_in_all(
    lines: list[LogLine], items: list[Item]
) -> None:
    work = Work("manual", "1", ME, False, Export(Path("x"), tuple(lines), tuple(items)))
    moments = [line.t for line in work.own_log] + [t for t, _ in work.own_actions]
    span = (max(moments) - min(moments)) / 1e6 if moments else 0.0
    totals = [sum(timeline_seconds(work, cap).values()) for cap in (1000, 10_000)]
    assert totals[0] <= totals[1] + 1e-6
    assert totals[1] <= span + 1e-6
    for image, time in pair_seconds(work).items():
        mine = [line.t for line in work.own_log if line.image == image]
        assert 0 <= time <= (max(mine) - min(mine)) / 1e6


def kinds(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(row["arm"], row["image"], row["kind"]) for row in rows if row["kind"] not in ("zero time",)]


def test_everything_odd_is_listed_once_with_its_treatment(tmp_path: Path) -> None:
    manual = [
        log("a", 0, 1),  # never closed: another start follows
        log("a", 10, 1),  # reopened, and the file is not newest first
        log("b", 20, 1),  # overlaps with a
        log("a", 30, 2),
        log("b", 40, 2),
        log("b", 50, 2),  # end without start
        log("c", 60, 1, "importer"),  # other user
        log("d", 100, 1),
        log("d", 500, 2),  # long gap
        box("e", "1", uuid="early", by=ME, made=70),  # outside any visit
        box("d", "1", uuid="late", by=ME, made=600),  # after the last log line
        box("d", "1", uuid="late too", by=ME, made=601),
        box("f", "1", uuid="theirs", by="somebody", made=5),  # other user
        "[x]",
    ]
    study = Draft(manual={"1": manual}, assisted={"1": [log("a", 3, 1), log("a", 9, 2)], "2": []}).read(tmp_path)
    rows = anomalies_of(study)
    assert all(set(row) == {"arm", "expert", "image", "kind", "at", "treatment"} for row in rows)
    first = [row for row in rows if row["expert"] == "1" and row["arm"] == "manual"]
    assert sorted(kinds(first)) == sorted(
        ("manual", image, kind)
        for image, kind in [
            ("a", "never closed"),
            ("a", "reopened"),
            ("a", "not newest first"),
            ("a", "not newest first"),
            ("b", "not newest first"),
            ("b", "not newest first"),
            ("d", "not newest first"),
            ("b", "overlapping visits"),
            ("b", "end without start"),
            ("c", "other user"),
            ("f", "other user"),
            ("d", "long gap"),
            ("e", "action outside any visit"),
            ("d", "action after the last log line"),
            ("e", "no complete visit"),
            ("c", "never opened"),
            ("f", "never opened"),
            ("", "unreadable line"),
        ]
    )
    never_closed = next(row for row in first if row["kind"] == "never closed")
    assert never_closed["at"] == "2020-01-06 08:00:00.000000"
    assert "dropped" in never_closed["treatment"]
    missing = [row for row in rows if row["kind"] == "missing round file"]
    assert [(row["arm"], row["expert"]) for row in missing] == [("manual", "2")]


def test_zero_times_are_listed_per_rule(tmp_path: Path) -> None:
    study = Draft(manual={"1": [log("b", 200, 2), log("b", 200, 1), log("a", 0, 1)]}).read(tmp_path)
    zero = [row["treatment"].split(":")[0] for row in anomalies_of(study) if row["kind"] == "zero time"]
    expected = ["pairs", "timeline_cap60", "timeline_cap60", "timeline_cap100", "timeline_cap100", "timeline_cap300"]
    assert sorted(zero) == sorted(expected)


def test_a_clock_that_jumped_is_seen_within_an_image_only(tmp_path: Path) -> None:
    lines = [log("b", 1, 2), log("b", 0, 1), log("a", 9, 2), log("a", 8, 1)]
    assert kinds(anomalies_of(Draft(manual={"1": lines}).read(tmp_path))) == [
        ("assisted", "a", "never opened"),
        ("assisted", "b", "never opened"),
    ]
