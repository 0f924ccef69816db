"""What `restore` and `relocate` write into the log of the run: who, when, which file before and after."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.handout.made import (
    COSTS,
    REVIEW,
    annotations_of,
    brushed,
    files_below,
    handed_out,
    objects_of,
    project_of,
    save,
    slide,
)
from tests.killing import killed_at
from wsi_pipeline import audit
from wsi_pipeline.cli.app import run as wsi
from wsi_pipeline.collect import collect
from wsi_pipeline.config import Review
from wsi_pipeline.errors import ProjectError, StoreError
from wsi_pipeline.files import sha256_file
from wsi_pipeline.handout.trail import RELOCATED, RESTORED, relocate_and_note, restore_and_note
from wsi_pipeline.privacy.forget import forget_rater, forget_slide
from wsi_pipeline.privacy.patterns import Known
from wsi_pipeline.privacy.scan import scan
from wsi_pipeline.qupath.history import first_of, history_of
from wsi_pipeline.rundir import RunDir

RATER = "rater-1"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Two slides; of the first, all regions were brushed and saved."""
    found, _ = handed_out(tmp_path, slide(tmp_path, "s1"), slide(tmp_path, "s2"))
    save(found, [brushed(o) for o in annotations_of(found)] + objects_of(found)[3:], state="in_progress")
    return found


def data_of(run: RunDir, entry: int = 1) -> Path:
    return run.project.parent / "data" / str(entry) / "data.qpdata"


def lines_of(run: RunDir, action: str) -> list[dict[str, Any]]:
    assert audit.verify(run.root).problem is None
    return [line for line in audit.read(run.root) if line["action"] == action]


def first(run: RunDir, entry: int = 1) -> str:
    return first_of(run.project.parent)[entry]


def moved(run: RunDir, tmp_path: Path) -> None:
    relocate_and_note(run.project, str(tmp_path / "slides"), "/elsewhere")


# ---- what is written


def test_a_restoration_is_one_line_with_the_file_before_and_after(run: RunDir) -> None:
    before = sha256_file(data_of(run))
    start = datetime.now(UTC)
    assert wsi(["project", "restore", str(run.project), "--at", first(run)]) == 0
    (line,) = lines_of(run, RESTORED)
    assert (line["before"], line["after"]) == (before, sha256_file(data_of(run)))
    assert (line["actor"], line["image"], line["object"]) == ("wsi-pipeline", "s1", None)
    assert line["facts"] == {"batch": "batch-1", "rater": RATER, "entry_id": 1}
    assert start.timestamp() - 1 <= datetime.fromisoformat(line["time"]).timestamp() <= datetime.now(UTC).timestamp()
    # What was there is named by the same hash in the history, so it can be put back by what the log says.
    assert f"1-{before[:16]}" in {c.id for c in history_of(run.project)}
    assert wsi(["project", "restore", str(run.project), "--at", f"1-{line['before'][:16]}"]) == 0
    assert [(x["before"], x["after"]) for x in lines_of(run, RESTORED)] == [
        (line["before"], line["after"]),
        (line["after"], line["before"]),
    ]


def test_slides_that_move_are_a_line_each(run: RunDir, tmp_path: Path) -> None:
    before = {entry: sha256_file(data_of(run, entry)) for entry in (1, 2)}
    assert wsi(["project", "relocate", str(run.project), "--map", f"{tmp_path / 'slides'}=/elsewhere"]) == 0
    lines = lines_of(run, RELOCATED)
    assert [line["image"] for line in lines] == ["s1", "s2"]
    for entry, line in enumerate(lines, start=1):
        assert line["before"] == before[entry] != line["after"]
        assert line["after"] == sha256_file(data_of(run, entry))
        assert line["facts"]["entry_id"] == entry


def test_a_project_outside_of_a_run_has_no_log(run: RunDir, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(run.project.parent, alone)
    before = (run.root / audit.NAME).read_bytes()
    assert restore_and_note(alone, first(run))
    assert relocate_and_note(alone, str(tmp_path / "slides"), "/elsewhere")
    assert (run.root / audit.NAME).read_bytes() == before
    assert not list(alone.rglob("audit*"))
    assert not list(tmp_path.glob("audit*"))


def test_what_changes_nothing_writes_no_line(run: RunDir, tmp_path: Path) -> None:
    before = files_below(run.root)
    restore_and_note(run.project, first(run), dry_run=True)
    relocate_and_note(run.project, str(tmp_path / "slides"), "/elsewhere", dry_run=True)
    with pytest.raises(ProjectError, match="no slide lies below"):
        relocate_and_note(run.project, "/nowhere", "/elsewhere")
    with pytest.raises(ProjectError, match="neither the id"):
        restore_and_note(run.project, "1-00")
    assert files_below(run.root) == before
    restore_and_note(run.project, first(run))
    restore_and_note(run.project, first(run))
    assert len(lines_of(run, RESTORED)) == 1


def test_an_image_that_a_person_added_is_told_by_its_number(run: RunDir, tmp_path: Path) -> None:
    project = project_of(run)
    project.add_image(str(tmp_path / "slides" / "own.tif"), "of-a-patient.tif", size=(10, 10), mpp=0.5)
    project.save()
    moved(run, tmp_path)
    assert [(x["image"], x["facts"]["entry_id"]) for x in lines_of(run, RELOCATED)] == [("s1", 1), ("s2", 2), ("", 3)]
    assert b"of-a-patient" not in (run.root / audit.NAME).read_bytes()


# ---- damage and death


def test_with_a_damaged_log_nothing_is_restored_or_moved(run: RunDir, tmp_path: Path) -> None:
    log = run.root / audit.NAME
    log.write_bytes(log.read_bytes().replace(b'"s1"', b'"s7"', 1))
    before = data_of(run).read_bytes(), run.project.read_bytes(), log.read_bytes()
    for act in (lambda: restore_and_note(run.project, first(run)), lambda: moved(run, tmp_path)):
        with pytest.raises(StoreError, match="line 1 was changed"):
            act()
    assert (data_of(run).read_bytes(), run.project.read_bytes(), log.read_bytes()) == before
    assert not (run.project.parent / "wsi_lease.json").exists()


@pytest.mark.parametrize("act", range(1, 40))
def test_killed_anywhere_no_change_is_without_its_line(run: RunDir, tmp_path: Path, act: int) -> None:
    before, copy = sha256_file(data_of(run)), first(run)
    killed_at(act, lambda: restore_and_note(run.project, copy), tmp_path)
    verdict = audit.verify(run.root)
    assert verdict.problem is None or verdict.torn
    now = sha256_file(data_of(run))
    told = [(x["before"], x["after"]) for x in audit.read(run.root) if x["action"] == RESTORED]
    assert now == before or told == [(before, now)]
    restore_and_note(run.project, copy)
    assert {(x["before"], x["after"]) for x in lines_of(run, RESTORED)} == {(before, sha256_file(data_of(run)))}


# ---- what reads the log


def test_handout_and_collect_go_on_as_if_these_lines_were_not_there(run: RunDir, tmp_path: Path) -> None:
    collect(run, REVIEW, COSTS)
    told = len(audit.read(run.root))
    work = history_of(run.project)
    moved(run, tmp_path)
    restore_and_note(run.project, first(run))
    collect(run, REVIEW, COSTS)
    actions = [line["action"] for line in audit.read(run.root)[told:]]
    assert actions == [RELOCATED, RELOCATED, RESTORED, "reverted", "reverted", "reverted"]
    assert len(history_of(run.project)) > len(work)
    handed_out(tmp_path, slide(tmp_path, "s1"), slide(tmp_path, "s2"))
    collect(run, REVIEW, COSTS)
    assert len(audit.read(run.root)) == told + len(actions)


def test_forgetting_takes_the_names_out_of_these_lines(run: RunDir, tmp_path: Path) -> None:
    moved(run, tmp_path)
    restore_and_note(run.project, first(run))
    collect(run, REVIEW, COSTS)
    (run.run_json).write_text('{"slides": {"s1": {}, "s2": {}}}')
    name = forget_rater(run, RATER, Review()).name
    lines = [*lines_of(run, RELOCATED), *lines_of(run, RESTORED)]
    assert {line["facts"]["rater"] for line in lines} == {name}
    forget_slide(run, "s1")
    lines = [*lines_of(run, RELOCATED), *lines_of(run, RESTORED)]
    assert [line["image"] for line in lines] == ["forgotten", "s2", "forgotten"]
    text = (run.root / audit.NAME).read_text()
    assert RATER not in text
    assert '"s1"' not in text


def test_the_log_gives_away_no_place_and_no_account(run: RunDir, tmp_path: Path) -> None:
    moved(run, tmp_path)
    restore_and_note(run.project, first(run))
    found = scan(run.root, Known.of(["s1.tif", str(tmp_path)]), ignore={"date"})
    assert [f for f in found if f.file.startswith("audit")] == []
