"""The scripts run, on classes that stand in for QuPath's own, and what they write is what our side reads.

The stand-ins have the names and the behaviour that QuPath's sources show; they are no QuPath. What they prove is that
the scripts' own logic holds in a real Groovy and that the files fit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import shapely

from tests.qupath_scripts.running import FOLDER, STAND_IN, groovy
from wsi_pipeline.collect.events import SCHEMA_VERSION, read_logs
from wsi_pipeline.files import sha256_file
from wsi_pipeline.measures import EventType
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.geojson import read_geojson, write_geojson
from wsi_pipeline.states import EVENTS, MARKER, Source
from wsi_pipeline.synthetic.diary import Diary

pytestmark = [pytest.mark.groovy, pytest.mark.slow]

NEW = "6b0f5a2e-3c14-4a5c-9b0f-5d4e7e7b0001"
FOR_THE_PROJECT = {"schema": 1, "project": "p", "batch": "b1", "rater": "anna", "run_id": "r1"}


class Logged(NamedTuple):
    folder: Path
    records: list[dict[str, Any]]
    printed: list[str]
    first: str
    drawn: str


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """One session: a stroke, a class, a new region, a save, a pause, a deletion, another image."""
    folder = tmp_path_factory.mktemp("project")
    (folder / MARKER).write_text(json.dumps(FOR_THE_PROJECT))
    printed = groovy(STAND_IN / "run.groovy", "log", FOLDER, folder)
    (path,) = (folder / EVENTS).glob("anna-*.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    first, drawn = next(line for line in printed if line.startswith("objects: ")).split()[1:]
    return Logged(folder, records, printed, first, drawn)


def test_the_log_that_the_script_writes_is_read_whole(logged: Logged) -> None:
    sessions, problems = read_logs(logged.folder / EVENTS, "p")
    assert problems == []
    (session,) = sessions
    assert (session.rater, session.source) == ("anna", Source.MEASURED)
    assert [event.seq for event in session.events] == list(range(1, len(logged.records)))
    assert {event.type for event in session.events} == set(EventType) - {EventType.VIEW}


def test_an_adjudicator_keeps_a_log_of_her_own_in_somebody_elses_project(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(json.dumps(FOR_THE_PROJECT))
    groovy(STAND_IN / "run.groovy", "log", FOLDER, tmp_path, properties={"wsi.rater": "judge"})
    (path,) = (tmp_path / EVENTS).iterdir()
    assert path.name.startswith("judge-")
    sessions, problems = read_logs(tmp_path / EVENTS, "p")
    assert ({session.rater for session in sessions}, problems) == ({"judge"}, [])


def test_the_log_says_what_was_done_and_nothing_else(logged: Logged) -> None:
    told = [
        (r["type"], r["image"], r.get("object"), r.get("created"), r.get("class"))
        for r in logged.records[1:]
        if r["type"] != "heartbeat"
    ]
    assert told == [
        ("open", "1", None, None, None),
        ("edit", "1", logged.first, None, None),
        ("class", "1", logged.first, None, "Stroma"),
        ("edit", "1", logged.drawn, True, None),
        ("save", "1", None, None, None),
        ("blur", "1", None, None, None),
        ("focus", "1", None, None, None),
        ("delete", "1", logged.drawn, None, None),
        ("close", "1", None, None, None),
        ("open", "2", None, None, None),
        ("close", "2", None, None, None),
    ]


def test_nobody_looks_while_the_window_is_in_the_background(logged: Logged) -> None:
    kinds = [record["type"] for record in logged.records]
    assert kinds[kinds.index("blur") + 1] == "focus"
    assert kinds.count("heartbeat") >= 5


def test_the_header_and_the_events_have_the_keys_of_the_simulated_ones(logged: Logged, tmp_path: Path) -> None:
    diary = Diary(FOR_THE_PROJECT, "anna", np.random.default_rng(1))
    square = shapely.box(0, 0, 9, 9)
    diary.open(1, 1)
    diary.strokes(NEW, square, 1)
    diary.created(NEW, square, "Tumor")
    diary.classified(NEW, "Tumor")
    diary.deleted(NEW)
    diary.saved()
    diary.away(5)
    diary.close()
    simulated = [json.loads(line) for line in diary.write(tmp_path).read_text().splitlines()]

    def keys(records: list[dict[str, Any]]) -> set[tuple[str, frozenset[str]]]:
        return {(record["type"], frozenset(record)) for record in records if record["type"] != "heartbeat"}

    assert keys(simulated) == keys(logged.records)
    assert logged.records[0]["schema"] == simulated[0]["schema"] == SCHEMA_VERSION
    assert all(len(r["hash"]) == 16 for r in logged.records if "hash" in r)


def test_unsaved_work_is_copied_outside_of_data_when_its_image_is_left(logged: Logged) -> None:
    (copy,) = (logged.folder / "snapshots" / "1").iterdir()
    (found,) = read_geojson(copy)
    assert (found.uuid, found.path_class) == (logged.first, "Stroma")
    assert found.geometry is not None
    assert found.geometry.equals(shapely.box(10, 20, 70, 80))
    assert not (logged.folder / "snapshots" / "2").exists()


def test_switched_off_it_listens_to_nothing(logged: Logged) -> None:
    assert "listeners left: 0" in logged.printed


def test_without_the_marker_nothing_is_written(tmp_path: Path) -> None:
    printed = groovy(STAND_IN / "run.groovy", "log", FOLDER, tmp_path)
    assert "listeners left: 0" in printed
    assert list(tmp_path.iterdir()) == []


def _batch(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    """What export and import print, line by line, and what was saved."""
    printed = groovy(STAND_IN / "run.groovy", "batch", FOLDER, folder)
    lines = [json.loads(line) for line in printed if line.startswith("{")]
    end = next(i for i, line in enumerate(lines) if "images" in line) + 1
    return lines[:end], lines[end:], printed[-1]


def _give(folder: Path, slide: str) -> Path:
    item = PathObject(uuid=NEW, kind=Kind.ANNOTATION, geometry=shapely.box(0, 0, 5, 5), path_class="Tumor")
    path = folder / "import" / f"{slide}.geojson"
    path.parent.mkdir(exist_ok=True)
    write_geojson(path, [item])
    return path


def test_export_and_import_print_one_line_for_each_image_though_they_run_once_for_each(tmp_path: Path) -> None:
    given = _give(tmp_path, "slide-1")
    exported, imported, saves = _batch(tmp_path)
    assert [(line["ok"], line.get("slide")) for line in exported] == [
        (True, "slide-1"),
        (True, "slide-2"),
        (True, None),
    ]
    assert exported[-1] == {"ok": True, "images": 2, "failed": 0}
    expected = {"ok": True, "entry": "1", "image": "slide 1", "slide": "slide-1", "sha256": sha256_file(given)}
    assert imported[0] == {**expected, "added": 1, "objects": 2, "saved": True}
    assert imported[-1] == {"ok": True, "images": 1, "failed": 0}
    assert saves == "saves: [1, 0]"


def test_what_is_exported_carries_its_provenance_and_is_read(tmp_path: Path) -> None:
    _batch(tmp_path)
    path = tmp_path / "export" / "slide-1.geojson"
    provenance = json.loads(path.read_text())["provenance"]
    assert (provenance["slide"], provenance["entry"], provenance["objects"]) == ("slide-1", "1", 1)
    assert {"rater", "batch", "arm", "state", "qupath", "script", "time"} <= set(provenance)
    (found,) = read_geojson(path)
    assert found.path_class == "Tumor"
    assert sorted(p.name for p in path.parent.iterdir()) == ["slide-1.geojson", "slide-2.geojson"]


def test_a_file_that_was_cut_off_is_neither_read_nor_saved_over(tmp_path: Path) -> None:
    stored = tmp_path / "data" / "1" / "data.qpdata"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"\xac\xed\x00\x05 cut of")
    _give(tmp_path, "slide-1")
    exported, imported, saves = _batch(tmp_path)
    for lines in (exported, imported):
        assert "data.qpdata is damaged" in lines[0]["error"]
        assert lines[-1]["failed"] == 1
    assert saves == "saves: [0, 0]"
    assert stored.read_bytes().endswith(b"cut of")


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the queue shows and has written after each key; a key that is pressed again has its last answer."""
    folder = tmp_path_factory.mktemp("review")
    (folder / MARKER).write_text(json.dumps(FOR_THE_PROJECT))
    printed = groovy(STAND_IN / "run.groovy", "review", FOLDER, folder)
    assert printed[-1] == "listeners: 2 2"  # opened a second time, the first window has let go
    told = [json.loads(line) for line in printed if line.startswith("{")]
    return {line["what"]: line for line in reversed(told)} | {f"last {line['what']}": line for line in told}


def test_the_queue_begins_at_the_least_certain_tile_that_nobody_judged(reviewed: dict[str, dict[str, Any]]) -> None:
    assert reviewed["open"]["at"] == [1128.0, 128.0]
    assert "two classes" in reviewed["open"]["labels"]
    assert "Tile 1 of 3, 1 of 3 judged" in reviewed["open"]["labels"]


def test_a_judgement_is_kept_with_the_tile_and_leads_on(reviewed: dict[str, dict[str, Any]]) -> None:
    accepted = reviewed["A"]
    assert accepted["verdicts"] == {"two classes": 1.0, "edge": None, "small": 1.0}
    assert (accepted["at"], accepted["changed"], accepted["saves"]) == ([2128.0, 128.0], True, 0)
    assert accepted["state"] == ["in_progress", None]
    flagged = reviewed["Alt F"]
    assert flagged["verdicts"]["edge"] == 2.0
    assert any(label.startswith("Every tile of this image is judged") for label in flagged["labels"])


def test_a_key_of_nobody_is_passed_on(reviewed: dict[str, dict[str, Any]]) -> None:
    assert {**reviewed["Z passed on"], "what": "A"} == reviewed["A"]


def test_a_digit_sets_the_class_of_what_is_selected_and_not_locked(reviewed: dict[str, dict[str, Any]]) -> None:
    assert "Select an annotation first." in reviewed["DIGIT1"]["labels"]
    assert "The selected annotation is locked (Ctrl+K unlocks it)." in reviewed["last DIGIT1"]["labels"]
    assert reviewed["last DIGIT1"]["classes"] == ["Tumor"]
    assert (reviewed["NUMPAD2"]["classes"], reviewed["NUMPAD2"]["classified"]) == (["Stroma"], 1)
    assert any(label.startswith("1 annotation is now Stroma") for label in reviewed["NUMPAD2"]["labels"])


def test_reviewed_is_said_only_of_what_is_saved(reviewed: dict[str, dict[str, Any]]) -> None:
    assert (reviewed["Ctrl S"]["saves"], reviewed["Ctrl S"]["state"]) == (1, ["in_progress", None])
    done = reviewed["R"]
    assert (done["saves"], done["changed"], done["state"], done["syncs"]) == (2, False, ["reviewed", None], 1)
    assert done["progress"] == "3 of 3 judged, 1 flagged"
    assert reviewed["O"]["opened"] == "2"
    assert reviewed["I"]["state"] == ["in_progress", None]


def test_in_a_foreign_project_the_queue_does_nothing(tmp_path: Path) -> None:
    printed = groovy(STAND_IN / "run.groovy", "review", FOLDER, tmp_path)
    told = [json.loads(line) for line in printed if line.startswith("{")]
    assert all(line["labels"][0].startswith("This is no project of wsi_pipeline") for line in told)
    assert all(line["state"] == [None, None] and line["saves"] == 0 and line["opened"] is None for line in told)
    assert told[-1]["classes"] == ["Tumor"]


def test_the_menu_comes_once_and_says_whether_the_log_is_on(tmp_path: Path) -> None:
    printed = groovy(STAND_IN / "run.groovy", "startup", FOLDER, tmp_path)
    said = [line for line in printed if not line.startswith(("wsi_pipeline event log", "Run the script"))]
    assert said[:3] == [
        "menu: [Review queue, Time log is on, What is recorded?] on: true",
        "on: false",
        "on: true",
    ]
    assert "does not record the mouse" in said[3]
