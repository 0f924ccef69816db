"""What the engine costs beside the work: a cohort of 10,000 slides that need no computing, and 1 or 2 worker processes.

    python -m benchmarks.scaling [--slides 1000] [--of 10000] [--workers 2]
    python -m benchmarks.scaling --processes SLIDE WEIGHTS|baseline [--copies 6]

The first runs part of a simulated cohort of slides of 100 blocks through the engine: real prediction stores, real
worker processes and a real scheduler, runs of 32 blocks; a worker says at once that its blocks are done. `scheduler_mb`
is the memory of the process that holds scheduler and client after each tenth of the slides. What the whole cohort would
take is extrapolated from the slides that were run, and named so.

The second predicts a slide with one worker process on one core and with two on two; with `--copies` a cohort of so many
copies of it, where the slides before and after are prepared and finished while blocks are computed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import yaml

from benchmarks.clock import Took, clock, report
from benchmarks.engine import configured, model_of
from benchmarks.noop import done_at_once
from benchmarks.nullnet import null_card
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.inference.dask_cluster import local
from wsi_pipeline.inference.registry import ModelSpec
from wsi_pipeline.inference.rounds import MOST_BLOCKS, Means, Pace, Round
from wsi_pipeline.inference.slide_work import SlideJob
from wsi_pipeline.slides import TissueMask

MPP = 0.5
BLOCK = 2048
SIDE = 10
"""Blocks along a side of a slide."""
PARTS = 10


class FullRuns(Pace):
    """Runs of as many blocks as the engine ever sends together."""

    def run_length(self, waiting: int, slots: int) -> int:
        return min(waiting, MOST_BLOCKS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=1000, help="slides that are run")
    parser.add_argument("--of", type=int, default=10_000, help="slides of the whole cohort, for the extrapolation")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--processes", nargs=2, metavar=("SLIDE", "WEIGHTS"))
    parser.add_argument("--copies", type=int, default=1, help="of the slide, with --processes")
    options = parser.parse_args()
    if options.processes:
        slide, weights = options.processes
        report(**worker_processes(Path(slide), weights, options.copies))
    else:
        report(**cohort(options.slides, options.of, options.workers))


def cohort(slides: int, whole: int, workers: int) -> dict[str, Any]:
    """Run `slides` slides of 100 blocks; what `whole` would take is extrapolated."""
    this = psutil.Process()
    memory: list[float] = []
    blocks, through = 0, 0
    with (
        tempfile.TemporaryDirectory() as folder,
        # The workers' seconds count when they have ended: the clock is outside.
        clock() as took,
        local(workers) as cluster,
        patch("wsi_pipeline.inference.rounds.run_blocks", done_at_once),
    ):
        means = Means("scaling", cluster, null_card(MPP), ModelSpec("", "cpu", "", "", 1), BLOCK, BLOCK, retries=0)
        for result in Round(means, FullRuns(), None).results(jobs(slides, Path(folder))):
            blocks += result.done
            through += 1
            if through % max(1, slides // PARTS) == 0:
                memory.append(this.memory_info().rss / 2**20)
    per_block = took.cpu_s / blocks
    return {
        "run": "cohort of slides that need no computing",
        "slides": through,
        "blocks": blocks,
        "workers": workers,
        "cpu_s": took.cpu_s,
        "wall_s": took.wall_s,
        "cpu_ms_per_block": 1000 * per_block,
        "scheduler_mb": [round(mb) for mb in memory],
        "extrapolated": {"slides": whole, "blocks": whole * SIDE**2, "cpu_s": round(whole * SIDE**2 * per_block)},
    }


def jobs(count: int, folder: Path) -> Iterator[SlideJob]:
    """Slides that are nowhere but in the cohort, all tissue; made when the engine asks for them."""
    everywhere = TissueMask(np.ones((1, 1), bool), float(SIDE * BLOCK))
    for number in range(count):
        name = f"slide-{number}"
        yield SlideJob(
            SlideRef(name, f"{name}.tif", f"{name}.tif"), folder / name, (SIDE * BLOCK,) * 2, MPP, 1.0, everywhere
        )


def worker_processes(slide: Path, weights: str, copies: int = 1) -> dict[str, Any]:
    """The engine with one worker process on one core, and with two on two."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    lines = [predicted(slide, weights, cores[:count], copies) for count in (1, 2)]
    return {
        "run": "worker processes",
        "model": weights,
        "slide": slide.name,
        "slides": copies,
        "workers": [1, 2],
        "cpu_s": [line.cpu_s for line in lines],
        "wall_s": [line.wall_s for line in lines],
        "speed": lines[0].wall_s / lines[1].wall_s,
    }


def predicted(slide: Path, weights: str, cores: list[int], copies: int) -> Took:
    """What the command takes with as many worker processes as cores, from its start to its end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slides = [folder / f"{number}{slide.suffix}" for number in range(copies)]
        for copy in slides:
            shutil.copyfile(slide, copy)
        config = configured(slides[0], model_of(weights, MPP), MPP, folder / "run", runtime="auto", workers=len(cores))
        raw = config.model_dump(mode="json", exclude_unset=True)
        raw["cohort"]["slides"] = [str(copy) for copy in slides]
        (folder / "wsi.yaml").write_text(yaml.safe_dump(raw))
        command = [sys.executable, "-m", "wsi_pipeline.cli", "predict", str(folder / "wsi.yaml")]
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        try:
            with clock() as took:
                done = subprocess.run(command, check=False, capture_output=True, text=True)
        finally:
            os.sched_setaffinity(0, before)
    if done.returncode:
        raise SystemExit(f"{len(cores)} workers: {done.stderr.strip()}")
    return took


if __name__ == "__main__":
    main()
