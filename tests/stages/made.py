"""Small cohorts with their configuration, and the command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import Logger, getLogger
from pathlib import Path
from typing import Any

import orjson
import yaml

from wsi_pipeline.rundir import RunDir
from wsi_pipeline.synthetic.slide import make_slide

# Marks most of the synthetic nuclei's surroundings, so that there are regions; integers all the way.
MODEL = "baseline:stain-density?mpp=1&threshold=0.05"
CLASS = "Haematoxylin-dense"


def small_slide(path: Path, *, width: int = 900, height: int = 800, **more: Any) -> Path:
    """A synthetic pyramid of four levels, less than a square millimetre."""
    make_slide(path, **{"width": width, "height": height, "seed": 3, "tile": 256, "smallest": 256, **more})
    return path


def write_config(
    folder: Path, slides: Sequence[Path | str], *, model: Mapping[str, Any] | str = MODEL, **sections: Any
) -> Path:
    """`folder`/wsi.yaml with output `folder`/run; blocks are small so that a slide has several."""
    cohort = {"slides": [str(slide) for slide in slides], **sections.pop("cohort", {})}
    value = {
        "output": "run",
        "cohort": cohort,
        "model": {"path": model} if isinstance(model, str) else dict(model),
        "inference": {"block": 256, "window": 256, **sections.pop("inference", {})},
        **sections,
    }
    path = folder / "wsi.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return path


def run_of(config: Path) -> RunDir:
    """The run directory of `write_config`'s configuration."""
    return RunDir(config.parent / "run")


def record_of(config: Path) -> Any:
    """run.json, parsed."""
    return orjson.loads(run_of(config).run_json.read_bytes())


def states_of(config: Path) -> dict[str, str]:
    """State of each slide in run.json by file name; of problems by what they name."""
    return {slide["name"]: slide["state"] for slide in record_of(config)["slides"].values()}


def files_of(run: RunDir, *, below: str = "") -> dict[str, bytes]:
    """Every file with its bytes, except the log and the lock."""
    root = run.root / below
    paths = (path for path in sorted(root.rglob("*")) if path.is_file())
    named = {str(path.relative_to(run.root)): path.read_bytes() for path in paths}
    return {name: data for name, data in named.items() if name != "run.lock" and not name.startswith("log/")}


def start(*arguments: str | Path, threads: int = 1) -> subprocess.Popen[str]:
    """`python -m wsi_pipeline.cli ...` with pipes for both outputs."""
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "wsi_pipeline.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


Starter = Callable[..., subprocess.Popen[str]]


@contextmanager
def starting() -> Iterator[Starter]:
    """`start`; what it started is gone afterwards, also what was stopped (SIGSTOP) and is not continued."""
    processes: list[subprocess.Popen[str]] = []

    def start_one(*arguments: str | Path) -> subprocess.Popen[str]:
        processes.append(start(*arguments))
        return processes[-1]

    try:
        yield start_one
    finally:
        for process in processes:
            # SIGKILL ends a process that is stopped, too.
            process.kill()
            with process:
                pass


@contextmanager
def restored_logging() -> Iterator[Logger]:
    """The command line takes the package's logger over; afterwards it is as it was, and log files are closed."""
    log = getLogger("wsi_pipeline")
    before = list(log.handlers), log.level, log.propagate
    try:
        yield log
    finally:
        for handler in log.handlers:
            if handler not in before[0]:
                handler.close()
        log.handlers[:] = before[0]
        log.setLevel(before[1])
        log.propagate = before[2]
