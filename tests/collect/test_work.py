"""Collecting in several processes gives the files that one process gives, whatever happens to a slide or a process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.collect.test_collect import brushed, log
from tests.handout.test_handout import CLASSES, SETTINGS, hashes, image_of, slide
from wsi_pipeline.collect import collect, work
from wsi_pipeline.collect.images import Alarm, CollectedImage
from wsi_pipeline.config import Costs, Review
from wsi_pipeline.handout import hand_out, read_plans
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import META_STATE

SLIDES = 7


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    hand_out(run, SETTINGS, CLASSES, [slide(f"s{i}") for i in range(SLIDES)])
    for name in ("s1", "s5"):
        project, image = image_of(run, name)
        project.save_objects(image, brushed(image.read_objects()))
        project.set_metadata(image, {META_STATE: "reviewed"})
        project.save()
    log(run, (0, "open"), (30, "change"), (70, "close"))
    return run


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes for a handful of slides, two slides a piece."""
    monkeypatch.setattr(work, "SLIDES_PER_WORKER", 1)
    monkeypatch.setattr(work, "PIECE", 2)


def written(run: RunDir) -> dict[str, str]:
    """The files of `review/` and the audit log; the log's times are left out."""
    found = {name: digest for name, digest in hashes(run.root).items() if name.split("/")[0] == "review"}
    assert any("corrected" in name for name in found)
    return found


def images_of(run: RunDir, workers: int) -> list[CollectedImage | Alarm]:
    return list(work.collect_images(run, read_plans(run), frozenset(), 2.0, workers))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_processes_writes_the_same_bytes(run: RunDir, eager: None, workers: int) -> None:
    collect(run, Review(), Costs())
    alone = written(run)
    for name in alone:
        (run.root / name).unlink()
    result = collect(run, Review(), Costs(), workers=workers)
    assert written(run) == alone
    assert result.metrics["totals"]["reviewed"] == 2


@pytest.mark.slow
def test_a_slide_that_cannot_be_read_stops_no_other_and_the_order_is_that_of_the_plan(run: RunDir, eager: None) -> None:
    (plan,) = read_plans(run)
    broken = run.project.parent / "data" / str(plan.slides[3].entry_id) / "data.qpdata"
    broken.write_bytes(broken.read_bytes()[:100])
    found = images_of(run, 2)
    there = [item.slide_id if isinstance(item, Alarm) else item.slide.slide_id for item in found]
    assert there == [s.slide_id for s in plan.slides]
    assert [isinstance(item, Alarm) for item in found] == [i == 3 for i in range(SLIDES)]


@pytest.mark.slow
def test_slides_of_a_process_that_was_killed_are_read_in_this_one(
    run: RunDir, eager: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    submit = ProcessPoolExecutor.submit

    def deadly(pool: ProcessPoolExecutor, function: Any, *args: Any) -> Any:
        return submit(pool, _end)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", deadly)
    found = images_of(run, 2)
    assert [item.slide.slide_id for item in found if isinstance(item, CollectedImage)] == [
        f"s{i}" for i in range(SLIDES)
    ]
    assert "ended early" in caplog.text


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_processes_are_gone_when_the_caller_stops_early(run: RunDir, eager: None) -> None:
    found = work.collect_images(run, read_plans(run), frozenset(), 2.0, 2)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_few_slides_need_no_process(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(work, "ProcessPoolExecutor", never)
    assert len(images_of(run, 8)) == SLIDES


def test_a_project_that_cannot_be_opened_names_each_of_its_slides(run: RunDir) -> None:
    run.project.write_text("{")
    found = images_of(run, 1)
    assert [str(item).split(":")[0] for item in found] == [f"s{i}" for i in range(SLIDES)]
    assert all(isinstance(item, Alarm) and "cannot be opened" in item.text for item in found)
