"""One run directory for all tests that only read it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.report.build_run import Recipe, build_run
from wsi_pipeline.report import write_report
from wsi_pipeline.rundir import RunDir

STUDY = Recipe(
    slides=8,
    classes=("Tumor", "Stroma"),
    failed=frozenset({7}),
    todo=frozenset({5}),
    in_progress=frozenset({6}),
    reachable=frozenset({0}),
    learned=True,
)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Eight slides: five reviewed, one in progress, one to do, one failed; with its report. Never write into it."""
    run = build_run(tmp_path_factory.mktemp("report") / "study", STUDY)
    write_report(run)
    return run


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Two reviewed slides, no report. Never write into it."""
    return build_run(tmp_path_factory.mktemp("small") / "study", Recipe(slides=2))


@pytest.fixture
def pair(small: RunDir, folder: Path) -> RunDir:
    """A copy of `small` that a test may change."""
    shutil.copytree(small.root, folder)
    return RunDir(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test builds a run of its own; the name of the folder is the name of the run."""
    return tmp_path / "study"
