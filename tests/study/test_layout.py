"""What the files of a study say, and what is said where they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.study.layout import StudyError, read_export, read_study, time_text
from tests.study.builder import BOX, Draft, box, log
from wsi_pipeline.measures.time_sources.exact import microseconds


def test_log_lines_and_objects_are_told_apart(tmp_path: Path) -> None:
    lines = [log("a b.png", 5, 2), log("a b.png", 1, 1), "", box("a b.png", "2", uuid="u", deleted=True)]
    path = tmp_path / "participant_1.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    export = read_export(path)
    assert [(line.image, line.start, line.line) for line in export.log] == [("a b.png", False, 1), ("a b.png", True, 2)]
    assert export.log[0].t - export.log[1].t == 4_000_000
    (item,) = export.items
    assert (item.image, item.label, item.box, item.uuid, item.deleted) == ("a b.png", "2", BOX, "u", True)
    assert (item.created_by, item.changed_by) == ("importer", "importer")


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ('{"x1": "1.5","y1": "-2","x2": "3e1","y2": "4",}', (1.5, -2, 30, 4)),
        ('{"x1": 30, "y1": 4, "x2": 1, "y2": 2}', (1, 2, 30, 4)),
        ('{"x1": "1","y1": "1","x2": "5","y2": "2","x3": "3","y3": "9",}', (1, 1, 5, 9)),
        ("{}", None),
        ("None", None),
    ],
)
def test_boxes_are_the_bounds_of_all_corners(text: str, bounds: object, tmp_path: Path) -> None:
    line = f"a|4|{text}|p|2020-01-01 00:00:00|p|2020-01-01 00:00:00.000001|u|False|256|256"
    (tmp_path / "x.txt").write_text(line)
    (item,) = read_export(tmp_path / "x.txt").items
    assert item.box == bounds
    assert item.changed - item.created == 1


def test_an_empty_class_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(box("a", "", uuid="u"))
    assert read_export(tmp_path / "x.txt").items[0].label is None


def test_lines_that_are_neither_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("\n".join([log("a", 0, 1), "[a|p|yesterday|1]", log("a", 0, 3), "a|b|c"]))
    export = read_export(tmp_path / "x.txt")
    assert len(export.log) == 1
    assert [text.partition(":")[0] for text in export.unread] == ["x.txt, line 2", "x.txt, line 3", "x.txt, line 4"]


def test_a_file_without_a_readable_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("image,class\n1,2\n")
    with pytest.raises(StudyError, match=r"x\.txt: is no file of a study .x\.txt, line 1"):
        read_export(tmp_path / "x.txt")
    (tmp_path / "y.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="UTF-8"):
        read_export(tmp_path / "y.txt")


@given(st.datetimes())
def test_times_keep_every_microsecond(moment: object) -> None:
    text = time_text(microseconds(str(moment)))
    assert microseconds(text) == microseconds(str(moment))
    assert text.startswith(str(moment)[:19])


def test_times_with_an_offset_are_taken_to_utc() -> None:
    assert microseconds("2020-01-01 02:00:00+02:00") == microseconds("2020-01-01 00:00:00")


def test_experts_and_kinds_are_named_by_their_files(tmp_path: Path) -> None:
    draft = Draft(manual={"10": [], "2": []}, assisted={"2": [], "x": []})
    draft.truth |= {"fake_a": [box("a", "1", uuid="f")], "deleted": [], "deleted_2": [], "changed": [], "other": []}
    study = draft.read(tmp_path)
    assert study.experts == ["2", "10", "x"]
    assert list(study.planted) == ["changed", "deleted", "deleted_2", "fake_a"]
    assert study.images == []


def test_the_user_is_the_files_whatever_the_case(tmp_path: Path) -> None:
    mine = [log("a", 0, 1, "PARTICIPANT_1"), log("a", 9, 2, "importer"), log("a", 8, 1, "importer")]
    work = Draft(manual={"1": mine}).read(tmp_path).work["manual"]["1"]
    assert not work.guessed
    assert [line.t for line in work.own_log] == [microseconds("2020-01-06 08:00:00")]


def test_without_such_a_user_the_logs_most_frequent_one_is_taken(tmp_path: Path) -> None:
    mine = [log("a", 0, 1, "Miller"), log("a", 9, 2, "Miller"), log("b", 8, 1, "importer")]
    work = Draft(manual={"1": mine}).read(tmp_path).work["manual"]["1"]
    assert (work.user, work.guessed, work.opened) == ("Miller", True, {"a"})


def test_opened_is_what_has_a_start_or_an_action_of_the_expert(tmp_path: Path) -> None:
    mine = [
        log("start", 0, 1),
        log("end", 0, 2),
        log("other", 0, 1, "importer"),
        box("changed", "1", uuid="c", changed_by="Participant_1"),
        box("gone", "1", uuid="g", by="Participant_1", deleted=True),
        box("seen", "1", uuid="s"),
    ]
    work = Draft(assisted={"1": mine}).read(tmp_path).work["assisted"]["1"]
    assert work.opened == {"start", "changed", "gone"}
    assert [item.uuid for item in work.live] == ["c", "s"]


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("FirstRound/participants/participant_1.txt", "FirstRound/participants"),
        ("SecondRound/participants/participant_1.txt", "SecondRound/participants"),
        ("SecondRound/truth/ground_truth.txt", "ground_truth.txt"),
        ("SecondRound/truth/unchanged_1.txt", r"unchanged\*.txt"),
    ],
)
def test_a_missing_file_is_named(gone: str, named: str, tmp_path: Path) -> None:
    folder = Draft().write(tmp_path / "study")
    (folder / gone).unlink()
    with pytest.raises(StudyError, match=f"{named}.*there is no such file"):
        read_study(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="nowhere: there is no such folder"):
        read_study(tmp_path / "nowhere")
