"""Event logs: read whatever a crash, a copy or a clock did to them, and say what was odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.collect.events import read_logs
from wsi_pipeline.measures import EventType, Session
from wsi_pipeline.states import Source

HEADER = {
    "schema": 1,
    "type": "header",
    "seq": 0,
    "t": 1000,
    "qupath": "0.6.0",
    "script": "wsi_event_log 1",
    "project": "project/project.qpproj",
    "rater": "anna",
    "source": "measured",
    "host": "1a2b3c4d",
}


def event(seq: int, t: int, kind: str, image: str = "1", **more: Any) -> dict[str, Any]:
    return {"seq": seq, "t": t, "type": kind, "image": image, **more}


USUAL = [
    event(1, 1000, "open", objects=3),
    event(2, 2000, "edit", object="u1", hash="00ff"),
    event(3, 3000, "delete", object="u2"),
    event(4, 4000, "close"),
]


def write(folder: Path, *lines: dict[str, Any] | bytes, name: str = "anna-1.jsonl", end: bytes = b"\n") -> None:
    folder.mkdir(exist_ok=True)
    texts = [line if isinstance(line, bytes) else orjson.dumps(line) for line in lines]
    (folder / name).write_bytes(b"\n".join(texts) + end)


def read(folder: Path) -> tuple[list[Session], list[str]]:
    return read_logs(folder, "p")


def test_a_log_is_a_session_of_its_rater(tmp_path: Path) -> None:
    write(tmp_path, HEADER, *USUAL)
    (session,), problems = read(tmp_path)
    assert problems == []
    assert (session.rater, session.project, session.source, session.log) == (
        "anna",
        "p",
        Source.MEASURED,
        "anna-1.jsonl",
    )
    assert [e.type for e in session.events] == [EventType.OPEN, EventType.EDIT, EventType.DELETE, EventType.CLOSE]
    assert [(e.t, e.image, e.object) for e in session.events][1:3] == [(2000, "1", "u1"), (3000, "1", "u2")]


def test_no_folder_and_an_empty_one_are_no_logs(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == ([], [])
    assert read(tmp_path) == ([], [])


def test_a_last_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, HEADER, *USUAL[:3], b'{"seq": 4, "t": 40', end=b"")
    (session,), problems = read(tmp_path)
    assert len(session.events) == 3
    assert any("its last line, which a crash cut off, is left out" in text for text in problems)
    assert any("never closed" in text for text in problems)


def test_a_damaged_line_in_the_middle_costs_only_itself(tmp_path: Path) -> None:
    write(tmp_path, HEADER, USUAL[0], b"\x00\x00\x00", *USUAL[2:])
    (session,), problems = read(tmp_path)
    assert [e.seq for e in session.events] == [1, 3, 4]
    assert any("line 3 is left out" in text for text in problems)
    assert any("1 numbers are missing" in text for text in problems)


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    write(tmp_path, HEADER, *USUAL[:2], USUAL[1], *USUAL[2:])
    (session,), problems = read(tmp_path)
    assert [e.seq for e in session.events] == [1, 2, 3, 4]
    assert problems == ["events/anna-1.jsonl: 1 lines are there twice; each is counted once"]


def test_events_of_unknown_kinds_are_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path, HEADER, *USUAL[:3], event(4, 3500, "telepathy"), event(5, 4000, "close"))
    (session,), problems = read(tmp_path)
    assert len(session.events) == 4
    assert any("1 lines are no events" in text for text in problems)


def test_after_a_jump_of_the_clock_a_new_session_begins(tmp_path: Path) -> None:
    write(tmp_path, HEADER, *USUAL[:2], event(3, 500, "edit"), event(4, 700, "close"))
    sessions, problems = read(tmp_path)
    assert [[e.seq for e in s.events] for s in sessions] == [[1, 2], [3, 4]]
    assert any("jumped back by 2 s" in text for text in problems)


def test_a_log_without_header_or_of_a_newer_schema_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, *USUAL, name="a.jsonl")
    write(tmp_path, {**HEADER, "schema": 2}, *USUAL, name="b.jsonl")
    write(tmp_path, {**HEADER, "schema": "new"}, *USUAL, name="c.jsonl")
    write(tmp_path, name="d.jsonl", end=b"")
    sessions, problems = read(tmp_path)
    assert sessions == []
    assert [p.split(":")[0] for p in problems] == [f"events/{c}.jsonl" for c in "abcd"]


def test_a_simulated_log_says_so(tmp_path: Path) -> None:
    write(tmp_path, {**HEADER, "source": "simulated"}, *USUAL)
    (session,), _ = read(tmp_path)
    assert session.source is Source.SIMULATED


def test_a_log_of_nobody_is_of_an_unknown_rater(tmp_path: Path) -> None:
    write(tmp_path, {**HEADER, "rater": None}, *USUAL)
    (session,), _ = read(tmp_path)
    assert session.rater == "unknown"


@given(data=st.binary(max_size=300), cut=st.integers(0, 500))
@settings(deadline=None)
def test_no_bytes_whatever_stop_the_reading(tmp_path_factory: Any, data: bytes, cut: int) -> None:
    folder = tmp_path_factory.mktemp("events")
    whole = b"\n".join(orjson.dumps(line) for line in (HEADER, *USUAL)) + b"\n"
    (folder / "a.jsonl").write_bytes(whole[:cut] + data + whole[cut:])
    (folder / "b.jsonl").write_bytes(whole)
    sessions, _ = read(folder)
    assert [s.log for s in sessions].count("b.jsonl") == 1
