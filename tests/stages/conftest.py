"""A cache of our own, and the package's logger as it was after each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stages.made import restored_logging, small_slide


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSI_PIPELINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    with restored_logging():
        yield


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two slides that nobody changes: one whose level 1 is at the model's 1 µm/px, one that must be resampled."""
    folder = tmp_path_factory.mktemp("slides")
    even = small_slide(folder / "even.tif", width=1200, height=1000, mpp=0.5)
    odd = small_slide(folder / "odd.tif", width=1100, height=1300, seed=4, mpp=0.42)
    return even, odd
