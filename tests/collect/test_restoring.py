"""Work comes back: by the command that an alarm prints, by a time, and after a call that was killed."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
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
    region,
    save,
    slide,
)
from wsi_pipeline import files
from wsi_pipeline.cli.app import run as wsi
from wsi_pipeline.collect import collect
from wsi_pipeline.collect.check import check_project
from wsi_pipeline.errors import ProjectError
from wsi_pipeline.qupath import data_files, history
from wsi_pipeline.qupath import relocate as relocating
from wsi_pipeline.qupath.history import first_of, history_of, restore
from wsi_pipeline.qupath.relocate import relocate
from wsi_pipeline.rundir import RunDir

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def command_in(text: str) -> list[str]:
    """The arguments of the command that stands in a message."""
    command = text[text.index("`wsi-pipeline ") + 1 :]
    return shlex.split(command[: command.index("`")])[1:]


def saved_at(run: RunDir, moment: datetime, slide_id: str = "s1", entry: int = 1) -> list[Any]:
    """Say that QuPath's last save was then, and give what it saved."""
    path = run.project.parent / "data" / str(entry) / "data.qpdata"
    os.utime(path, (moment.timestamp(),) * 2)
    return objects_of(run, slide_id)


# ---- the command of the alarm


def test_the_command_that_the_alarm_prints_brings_the_work_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a study's folder"
    run, _ = handed_out(folder)
    save(run, [brushed(o) for o in annotations_of(run)] + objects_of(run)[3:], state="in_progress")
    work = objects_of(run)
    save(run, [])  # what QuPath saves of a damaged file that it opened as an empty image
    (alarm,) = collect(run, REVIEW, COSTS).alarms
    assert "all 5 objects that were handed out are gone" in alarm
    assert wsi(command_in(alarm)) == 0
    assert "restored" in capsys.readouterr().out
    assert objects_of(run) == work
    result = collect(run, REVIEW, COSTS)
    assert result.alarms == ()
    assert result.metrics["images"][0]["counts"]["edited"] == 3


def test_without_any_save_of_qupath_the_alarm_leads_to_what_was_handed_out(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    given = objects_of(run)
    save(run, [])
    (alarm,) = collect(run, REVIEW, COSTS).alarms
    assert wsi(command_in(alarm)) == 0
    assert objects_of(run) == given


def test_the_alarm_names_newer_snapshots(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    save(run, [])
    assert "snapshots/1/" not in collect(run, REVIEW, COSTS).alarms[0]
    place = run.project.parent / "snapshots" / "1"
    place.mkdir(parents=True)
    (place / "1790000000000.geojson").write_text("{}")
    os.utime(place / "1790000000000.geojson", (datetime.now(UTC).timestamp() + 60,) * 2)
    assert "newer regions lie in snapshots/1/" in collect(run, REVIEW, COSTS).alarms[0]


# ---- a time


def morning(run: RunDir) -> dict[int, list[Any]]:
    """Saves at noon and each hour after it, by hour; the one of 15:00 is what lies there."""
    states = {}
    for hour in range(4):
        save(run, [replace(o, name=f"at {hour}") for o in objects_of(run)])
        states[hour] = saved_at(run, NOON + timedelta(hours=hour))
    return states


@pytest.mark.parametrize(
    ("at", "hour"),
    [
        ("2026-01-31T12:00", 0),
        ("2026-01-31T12:59:59", 0),
        ("2026-01-31T13:00:00", 1),
        ("2026-01-31T15:30+01:00", 2),
        ("2026-01-31 14:59:59", 2),
    ],
)
def test_a_time_brings_the_newest_state_that_was_saved_by_then(tmp_path: Path, at: str, hour: int) -> None:
    run, _ = handed_out(tmp_path)
    states = morning(run)
    assert wsi(["project", "restore", str(run.project), "--at", at]) == 0
    assert objects_of(run) == states[hour]
    # And back: what lay there was kept with its own time.
    newest = next(c for c in history_of(run.project) if c.saved == NOON + timedelta(hours=3))
    restore(run.project, newest.id)
    assert objects_of(run) == states[3]


def test_a_time_after_the_last_save_changes_nothing(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    morning(run)
    before = files_below(run.root)
    with pytest.raises(ProjectError, match="not the present state"):
        restore(run.project, "2026-01-31T15:00")
    with pytest.raises(ProjectError, match="not the present state"):
        restore(run.project, "2026-01-01")
    assert files_below(run.root) == before


def test_a_time_goes_for_each_image_by_itself(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path, slide(tmp_path, "s1"), slide(tmp_path, "s2"))
    states = morning(run)
    other = saved_at(run, NOON, "s2", 2)
    done = restore(run.project, "2026-01-31T13:10")
    assert [item.image for item in done] == ["s1.tif"]
    assert (objects_of(run), objects_of(run, "s2")) == (states[1], other)


# ---- killed


class Killed(BaseException):
    """As a kill: no handler of errors sees it."""


@contextmanager
def killed_at_write(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Die at this write of a file, of those that this package makes from here on."""
    count = 0
    true = files.write_bytes

    def write(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise Killed
        true(path, data)

    with monkeypatch.context() as patch:
        for module in (data_files, history, relocating):
            patch.setattr(module, "write_bytes", write)
        yield lambda: count


def test_a_relocating_that_is_killed_anywhere_is_finished_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = handed_out(tmp_path, slide(tmp_path, "s1"), slide(tmp_path, "s2"))
    save(run, [brushed(o) for o in annotations_of(run)])
    objects = objects_of(run), objects_of(run, "s2")
    old, new = str(tmp_path / "slides"), "/elsewhere"
    shutil.copytree(run.root, tmp_path / "kept")
    number, deaths, whole = 0, 0, None
    while whole is None:
        number += 1
        shutil.rmtree(run.root)
        shutil.copytree(tmp_path / "kept", run.root)
        with killed_at_write(number, monkeypatch):
            try:
                relocate(run.project, old, new)
                whole = files_below(run.project.parent)
            except Killed:
                deaths += 1
        if whole is None:
            moves = relocate(run.project, old, new)
            assert {m.new for m in moves} <= {"file:///elsewhere/s1.tif", "file:///elsewhere/s2.tif"}
        assert (objects_of(run), objects_of(run, "s2")) == objects
        text = run.project.read_text()
        assert text.count("file:///elsewhere/") == 2
        assert "/slides/" not in text
        for path in (run.project.parent / "data").rglob("*"):
            assert not path.is_file() or b"/slides/s" not in path.read_bytes()
    # Two data files with a copy of one of them, two server.json, the project and its copy.
    assert deaths >= 6


def test_a_restoring_that_is_killed_anywhere_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = handed_out(tmp_path)
    first = history_of(run.project)[0].id
    given = objects_of(run)
    save(run, [brushed(o) for o in annotations_of(run)])
    work = objects_of(run)
    shutil.copytree(run.root, tmp_path / "kept")
    for number in range(1, 4):
        shutil.rmtree(run.root)
        shutil.copytree(tmp_path / "kept", run.root)
        with killed_at_write(number, monkeypatch):
            try:
                restore(run.project, first)
            except Killed:
                assert objects_of(run) == work
        done = restore(run.project, first)
        assert objects_of(run) == given
        kept = [c for c in history_of(run.project) if c.id != first]
        restore(run.project, done[0].kept or kept[-1].id)
        assert objects_of(run) == work


# ---- an older state beside a newer model


def test_what_was_restored_from_before_a_newer_model_is_compared_with_what_it_held_then(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    first, *rest = annotations_of(run)
    save(run, [brushed(first), *rest, *objects_of(run)[3:]], state="in_progress")
    newer = slide(tmp_path, regions=[region("s1", x, radius=84, run_id="b" * 16) for x in (500, 1200)], run_id="b" * 16)
    handed_out(tmp_path, newer)
    assert len(annotations_of(run)) == 2
    (copy,) = [c for c in history_of(run.project) if c.id != first_of(run.project.parent)[1]]
    restore(run.project, copy.id)
    result = collect(run, REVIEW, COSTS)
    # Nobody has touched the two others, although the newer model drew one of them otherwise.
    counts = {change: n for change, n in result.metrics["images"][0]["counts"].items() if n}
    assert (result.alarms, counts) == ((), {"untouched": 2, "edited": 1})
    assert {f.what for image in check_project(run.project).images for f in image.findings} == {"slide"}
    # The newer model may come again, and still what was brushed stays.
    handed_out(tmp_path, newer)
    assert first.uuid in {o.uuid for o in annotations_of(run)}
    assert len(annotations_of(run)) == 2
    counts = collect(run, REVIEW, COSTS).metrics["images"][0]["counts"]
    assert {change: n for change, n in counts.items() if n} == {"untouched": 1, "edited": 1}
