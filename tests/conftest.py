"""Fixtures that every room shares, and the rule by which a missing tool fails instead of skipping."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Nothing here is a timed test: on a busy machine an example that takes longer than usual says nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
# The same examples at every run, so that a change is judged by what it changes; with WSI_EXPLORE=1 others each time.
settings.register_profile("explore", settings.get_profile("untimed"), derandomize=False)
settings.load_profile("explore" if os.environ.get("WSI_EXPLORE") else "untimed")

REQUIRED = {word for word in os.environ.get("WSI_REQUIRE", "").split(",") if word}


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_configure() -> None:
    # Whoever starts the tests in the background hands down an ignored SIGINT, and programs under test inherit it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _missing(marker: str) -> str | None:
    """Why tests with this marker cannot run here; None when they can."""
    if marker == "browser" and _chromium() is None:
        return "chromium is not installed"
    if marker == "groovy" and shutil.which("groovy") is None:
        return "groovy is not installed"
    if marker == "qupath" and not os.environ.get("PAQUO_QUPATH_DIR"):
        return "PAQUO_QUPATH_DIR points to no QuPath"
    if marker == "testdata" and not os.environ.get("WSI_PIPELINE_TESTDATA"):
        return "WSI_PIPELINE_TESTDATA points to no extra test data"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in ("browser", "groovy", "qupath", "testdata"):
        if item.get_closest_marker(marker) is None:
            continue
        reason = _missing(marker)
        if reason is None:
            continue
        if marker in REQUIRED:
            pytest.fail(f"{reason}, and WSI_REQUIRE asks for it", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def testdata() -> Path:
    """The folder of real slides, masks and projects; skips where there is none (mark the test `testdata`)."""
    folder = os.environ.get("WSI_PIPELINE_TESTDATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("WSI_PIPELINE_TESTDATA points to no extra test data")
    return Path(folder)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's executable."""
    path = _chromium()
    if path is None:
        pytest.skip("chromium is not installed")
    return path
