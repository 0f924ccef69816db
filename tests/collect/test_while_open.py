"""Collecting beside an open QuPath: what is being saved is waited for, and nothing is written."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.handout.made import COSTS, REVIEW, annotations_of, brushed, files_below, handed_out, objects_of, save
from wsi_pipeline.collect import collect
from wsi_pipeline.collect import images as collecting
from wsi_pipeline.rundir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found, _ = handed_out(tmp_path)
    save(found, [*(brushed(o) for o in annotations_of(found)), *objects_of(found)[3:]], state="in_progress")
    return found


def data_of(run: RunDir) -> Path:
    return run.project.parent / "data/1/data.qpdata"


def edited(run: RunDir) -> tuple[tuple[str, ...], int]:
    result = collect(run, REVIEW, COSTS)
    return result.alarms, result.metrics["images"][0]["counts"]["edited"] if result.metrics["images"] else 0


@pytest.mark.parametrize("share", [0.0, 0.4, 0.97])
def test_a_file_that_is_half_saved_is_waited_for(run: RunDir, share: float) -> None:
    path, raw = data_of(run), data_of(run).read_bytes()
    path.replace(path.with_name("data.qpdata.bkp"))
    if share:
        path.write_bytes(raw[: int(len(raw) * share)])

    def end_of_the_save() -> None:
        time.sleep(0.4)
        path.write_bytes(raw)
        path.with_name("data.qpdata.bkp").unlink()

    saving = threading.Thread(target=end_of_the_save)
    saving.start()
    try:
        assert edited(run) == ((), 3)
    finally:
        saving.join()


def test_a_save_that_never_ends_is_an_alarm(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "PAUSES_S", (0.01,))
    data_of(run).replace(data_of(run).with_name("data.qpdata.bkp"))
    alarms, _ = edited(run)
    assert "QuPath was stopped while saving" in alarms[0]


def test_an_old_damage_is_told_at_once(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data_of(run)
    path.write_bytes(path.read_bytes()[:300])
    monkeypatch.setattr(collecting, "SAVES_WITHIN_S", 0.0)
    monkeypatch.setattr(collecting, "PAUSES_S", (60.0,))
    before = files_below(run.project.parent)
    alarms, _ = edited(run)
    assert "cannot be read" in alarms[0]
    assert files_below(run.project.parent) == before


def test_a_project_that_nobody_may_write_is_collected(run: RunDir) -> None:
    before = files_below(run.project.parent)
    folders = [run.project.parent, data_of(run).parent, data_of(run).parent.parent]
    modes = [folder.stat().st_mode for folder in folders]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert edited(run) == ((), 3)
    finally:
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode)
    assert files_below(run.project.parent) == before
    assert os.access(run.project.parent, os.W_OK)
