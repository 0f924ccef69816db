"""The simulated cohort runs every block once, through a real scheduler whose memory does not grow with the slides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import comparison, scaling

ROOT = Path(scaling.__file__).parents[1]


def spoken(*arguments: str) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.scaling", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_every_block_of_the_simulated_cohort_is_run_once() -> None:
    found = spoken("--slides", "60", "--of", "600", "--workers", "1")
    assert found["slides"] == 60
    assert found["blocks"] == 6000
    memory = found["scheduler_mb"]
    assert isinstance(memory, list)
    assert len(memory) == 10
    # Six slides a step: 48 slides would keep 14 MB if dask remembered their runs; memory comes in steps of a few.
    assert memory[-1] - memory[1] < 8
    assert found["extrapolated"]["blocks"] == 60_000  # type: ignore[index]


@pytest.mark.slow
def test_one_and_two_worker_processes_are_run_on_as_many_cores(tmp_path: Path) -> None:
    slide = tmp_path / "slide.tif"
    comparison.draw(slide, 1024)
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("two cores are needed")
    found = spoken("--processes", str(slide), "baseline", "--copies", "2")
    assert found["workers"] == [1, 2]
    assert found["slides"] == 2
    assert os.sched_getaffinity(0) == before
