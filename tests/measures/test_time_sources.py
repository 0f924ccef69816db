"""Files of other programs as sessions: the layouts that their versions write, and what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.measures import EventType, active_times
from wsi_pipeline.measures.time import TimeSource
from wsi_pipeline.measures.time_rules import pairs, timeline, views
from wsi_pipeline.measures.time_sources import (
    is_timestamps,
    read_export,
    read_recording,
    read_reports,
    read_timestamps,
    session_of,
)

OLD = "Timestamp\tX\tY\tWidth\tHeight\tCanvas width\tCanvas height"
NEW = OLD + "\tDownsample factor\tRotation\tCursor X\tCursor Y\tActive tool\tEye X\tEye Y\tEye fixated\tZ\tT"


def recording(*lines: str, header: str = OLD) -> tuple[list[float], list[str]]:
    session, problems = read_recording(
        "\n".join([header, *lines]), project="p", rater="anna", image="3", log="Recording 1.tsv"
    )
    if session is None:
        return [], problems
    assert session.time_source is TimeSource.VIEW_TRACKER
    assert not session.absolute
    assert {(e.type, e.image) for e in session.events} <= {(EventType.VIEW, "3")}
    return [e.t for e in session.events], problems


def test_recordings_of_old_and_new_versions_are_read() -> None:
    assert recording("0\t1\t2\t3\t4\t5\t6", "1500\t1\t2\t3\t4\t5\t6") == ([0, 1500], [])
    line = "7\t1\t2\t3\t4\t5\t6\t1.5\t0.0\t-1\t-1\tBrush\t\t\t\t0\t0"
    assert recording(line, "", header=NEW) == ([7], [])
    assert recording(line, header=NEW.upper()) == ([7], [])


def test_what_is_no_frame_is_left_out_and_told() -> None:
    times, problems = recording("0\t1\t2\t3\t4\t5\t6", "crash", "90\t1", "50\t1\t2\t3\t4\t5\t6")
    assert times == [0, 90]
    assert problems == [
        "Recording 1.tsv: 1 lines are no frames; they are left out",
        "Recording 1.tsv: 1 frames go back in time; they are left out",
    ]


@pytest.mark.parametrize("text", ["", "a\tb\n1\t2", "Timestamp,X,Y,Width,Height\n0,1,2,3,4"])
def test_another_file_is_no_recording(text: str) -> None:
    session, (problem,) = read_recording(text, project="p", rater="a", image="1", log="x.tsv")
    assert session is None
    assert "is no recording" in problem


def test_a_recording_counts_from_its_first_frame_to_its_last() -> None:
    text = "\n".join([OLD, *(f"{t}\t0\t0\t1\t1\t1\t1" for t in (0, 10_000, 500_000, 510_000))])
    session, _ = read_recording(text, project="p", rater="anna", image="3", log="r")
    assert session is not None
    assert list(views(300).seconds([session]).values()) == [10 + 300 + 10]


FIRST = "Timestamp,Event Type,Details,View_X,View_Y,View_Width,View_Height,View_Z,View_T,Downsample,ROI_Type"
SECOND = "Session_ID,Timestamp,Event_Type,Details,View_X,View_Y,View_Width,View_Height,View_CenterX,Downsample,Rotation"
THIRD = "Session_ID,Sequence,Timestamp,Recorded_At_UTC,Elapsed_ms,Event_Type,Details,View_X,View_Y,Downsample,Rotation"


def stamps(*lines: str, image: str | None = "s1") -> tuple[list[tuple[float, str]], list[str], set[bool]]:
    sessions, problems = read_timestamps("\n".join(lines), project="p", rater="anna", image=image, log="f.csv")
    assert {s.time_source for s in sessions} <= {TimeSource.TIMESTAMPS}
    assert {e.type for s in sessions for e in s.events} <= {EventType.VIEW}
    return [(e.t, e.image) for s in sessions for e in s.events], problems, {s.absolute for s in sessions}


def test_the_first_layout_has_times_of_day_and_no_image() -> None:
    row = '{},Click,"x=1.0, y=2.0, button=PRIMARY",1.0,2.0,3.0,4.0,0,0,2.0000,'
    events, problems, absolute = stamps(FIRST, row.format("23:59:50.500"), row.format("00:00:10.000"))
    assert problems == []
    assert absolute == {False}
    # Past midnight time goes on.
    assert [image for _, image in events] == ["s1", "s1"]
    assert events[1][0] - events[0][0] == pytest.approx(19_500)


def test_sessions_of_the_second_layout_are_timelines_of_their_own() -> None:
    row = "{},2026-09-09T10:00:{}.000,Zoom In Start,downsample=2,1,2,3,4,5,2.0,0.0"
    text = "\n".join([SECOND, row.format("a", "00"), row.format("b", "05"), row.format("a", "30")])
    sessions, problems = read_timestamps(text, project="p", rater="anna", image="s1", log="f.csv")
    assert problems == []
    assert [len(s.events) for s in sessions] == [2, 1]
    assert sum(t.seconds for t in active_times(sessions, 300).values()) == 30


def test_the_third_layout_has_moments_and_later_the_images() -> None:
    row = "s,{},2026-09-09T12:00:00.000,2026-09-09T10:00:{}Z,{},Click,,1,2,2.0,0.0"
    events, problems, absolute = stamps(THIRD, row.format(1, "00.25", 0), row.format(2, "10.25", 10))
    assert (problems, absolute) == ([], {True})
    assert events[1][0] - events[0][0] == pytest.approx(10_000)
    named = [row.format(i, f"{t}", t) + f",id,{image},file" for i, t, image in ((1, 10, "s1"), (2, 25, "s2"))]
    events, _, _ = stamps(THIRD + ",Image_ID,Image_Name,Image_Source", *named, image=None)
    assert [image for _, image in events] == ["s1", "s2"]


def test_events_without_an_image_broken_lines_and_jumps_are_told() -> None:
    row = "s,{},2026-09-09T12:00:00,2026-09-09T10:00:{}Z,0,Click,,1,2,2.0,0.0"
    _, problems, _ = stamps(THIRD, row.format(1, "00"), image=None)
    assert problems == ["f.csv: 1 events name no image; name the file after the slide"]
    events, problems, _ = stamps(THIRD, row.format(1, "50"), row.format(2, "20"), row.format("x", "30"))
    assert len(events) == 2
    assert problems == [
        "f.csv: 1 lines are no events; they are left out",
        "f.csv: the clock jumped back by 30 s; what follows is a visit of its own",
    ]


def test_another_csv_is_no_file_of_the_extension() -> None:
    assert not is_timestamps(["rater", "slide", "minutes"])
    assert all(is_timestamps(header.split(",")) for header in (FIRST, SECOND, THIRD))
    sessions, (problem,) = read_timestamps("a,b\n1,2\n", project="p", rater="a", image="s", log="x.csv")
    assert sessions == []
    assert "no event file" in problem


BOX = '{"x1": 1, "y1": 2, "x2": 3, "y2": 4}'
EXPORT = f"""
[a.png|Anna|2020-01-13 10:05:00|2]
[a.png|Anna|2020-01-13 10:00:00|1]
[a.png|Ben|2020-01-13 10:01:00|1]
a.png|cell|{BOX}|anna|2020-01-13 10:01:00|anna|2020-01-13 10:02:00|u1|False|10|10
a.png|cell|{BOX}|importer|2020-01-13 09:00:00|importer|2020-01-13 09:00:00|u2|False|10|10
a.png|cell|{BOX}|importer|2020-01-13 09:00:00|Anna|2020-01-13 10:03:00|u3|True|10|10
no line of an export
"""


def test_an_export_gives_the_users_own_visits_and_actions() -> None:
    export = read_export(EXPORT)
    assert export.unread == (8,)
    assert export.users() == {"Anna", "Ben"}
    session = session_of(export, "ANNA", project="p", rater="r1")
    assert session.time_source is TimeSource.EXACT
    assert [e.type for e in session.events] == [EventType.OPEN, *3 * [EventType.EDIT], EventType.CLOSE]
    assert [e.object for e in session.events] == [None, "u1", "u1", "u3", None]
    for rule in (pairs(), timeline(300)):
        assert list(rule.seconds([session]).values()) == [300]
    assert list(timeline(60).seconds([session]).values()) == [60 + 60 + 60 + 60]


@pytest.mark.testdata
def test_an_export_of_the_real_study_is_read_to_its_last_line(testdata: Path) -> None:
    path = testdata / "study" / "FirstRound" / "participants" / "participant_3.txt"
    export = read_export(path.read_text(encoding="utf-8-sig"))
    assert export.unread == ()
    session = session_of(export, "Participant_3", project="p", rater="3")
    assert {EventType.OPEN, EventType.CLOSE, EventType.EDIT} == {e.type for e in session.events}
    assert sum(timeline(300).seconds([session]).values()) > 0


def test_reports_in_minutes_and_by_the_clock_are_added_up() -> None:
    text = (
        "Rater,Slide,arm,minutes,start,end\n"
        "anna,s1,manual,12.5,,\n"
        "anna,s1,manual,,2026-05-01T10:00,2026-05-01T10:02\n"
        "anna,s2,,0,,\n"
    )
    reports, problems = read_reports(text, "t.csv")
    assert problems == []
    assert [(r.slide, r.arm, r.seconds, r.rows) for r in reports] == [("s1", "manual", 870, 2), ("s2", None, 0, 1)]


def test_semicolons_and_decimal_commas_are_taken() -> None:
    reports, problems = read_reports("\ufeffrater;slide;minutes\r\nanna;s1;1,5\r\n", "t.csv")
    assert problems == []
    assert [(r.rater, r.slide, r.seconds) for r in reports] == [("anna", "s1", 90)]


def test_what_says_no_time_is_left_out_with_its_line() -> None:
    rows = "anna,s1,-1\nanna,s1,nan\nanna,s1,soon\nanna,s1,\n,s1,3\n"
    reports, problems = read_reports("rater,slide,minutes\n" + rows, "t.csv")
    assert reports == []
    assert [p.split(" is left out")[0] for p in problems] == [f"t.csv: line {n}" for n in range(2, 7)]
    mixed = "rater,slide,start,end\nanna,s1,2026-05-01T10:00,2026-05-01T11:00Z\n"
    assert len(read_reports(mixed, "t.csv")[1]) == 1
    assert "needs the columns" in read_reports("a,b\n", "t.csv")[1][0]


@given(text=st.text(max_size=200))
def test_no_text_stops_a_reader(text: str) -> None:
    read_recording(f"{OLD}\n{text}", project="p", rater="a", image="1", log="x")
    read_timestamps(f"{THIRD}\n{text}", project="p", rater="a", image="1", log="x")
    read_export(text)
    read_reports(f"rater,slide,minutes\n{text}", "x")


@given(times=st.lists(st.integers(0, 10**7), max_size=20), cap=st.integers(1, 600))
def test_a_recording_never_counts_more_than_its_length(times: list[int], cap: int) -> None:
    text = "\n".join([OLD, *(f"{t}\t0\t0\t1\t1\t1\t1" for t in sorted(times))])
    session, problems = read_recording(text, project="p", rater="anna", image="3", log="r")
    assert session is not None
    assert problems == []
    total = sum(views(cap).seconds([session]).values())
    assert total <= (max(times) - min(times)) / 1000 + 1e-9 if times else total == 0
