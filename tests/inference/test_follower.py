"""Who follows the engine hears of each block when it is stored, not before, and all over when it is computed again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.inference.make import BASELINE, make_job, make_slide, tree
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.inference import BlockState, Engine, EngineSettings, PredictionStore
from wsi_pipeline.inference.slide_work import Block
from wsi_pipeline.slides import Slide, TissueMask
from wsi_pipeline.tiling import Bounds


@dataclass
class Listener:
    """Keeps what it hears, and the maps of a block as they are at that moment."""

    blocks: list[Block] = field(default_factory=list)
    maps: dict[Block, NDArray[np.uint8]] = field(default_factory=dict)
    threads: set[int] = field(default_factory=set)
    restarts: int = 0
    ahead: int = 0
    done: int = 0

    def settled(self, slide_id: str, store: PredictionStore, blocks: Iterable[Block]) -> None:
        for block in blocks:
            if block not in self.maps:
                self.maps[block] = store.read(0, store.grid.bounds(*block))
            self.blocks.append(block)
        self.threads.add(threading.get_ident())
        self.ahead = max(self.ahead, len(self.maps) - self.done)

    def unsettled(self, slide_id: str) -> None:
        self.restarts += 1
        self.blocks.clear()
        self.maps.clear()

    def progress(self, slide_id: str, done: int, total: int) -> None:
        self.done = done


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> SlideRef:
    return make_slide(tmp_path_factory.mktemp("slide") / "slide.tif", 1800, 1500)


def heard_all(listener: Listener, store: PredictionStore) -> None:
    """Every block, each as it is in the end."""
    assert set(listener.blocks) == set(store.grid)
    for block in store.grid:
        np.testing.assert_array_equal(listener.maps[block], store.read(0, store.grid.bounds(*block)))
    assert any(values.any() for values in listener.maps.values())


@pytest.mark.parametrize("workers", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_blocks_are_told_of_as_they_are_stored_and_before_their_run_is_over(
    ref: SlideRef, tmp_path: Path, workers: int | None
) -> None:
    listener = Listener()
    with Engine(BASELINE, EngineSettings(block=256, window=384, workers=workers)) as engine:
        for result in engine.predict([make_job(ref, tmp_path / "p.zarr")], listener.progress, listener):
            assert result.complete
            assert result.store is not None
            heard_all(listener, result.store)
    # Not run by run: more were known than the runs that were over had done.
    assert listener.ahead > 0
    assert len(listener.threads) == 2
    assert listener.restarts == 0


def test_what_is_done_already_and_what_has_no_tissue_is_told_of_at_once(ref: SlideRef, tmp_path: Path) -> None:
    half = np.zeros((1, 2), bool)
    half[0, 0] = True
    job = make_job(ref, tmp_path / "p.zarr", tissue=TissueMask(half, 900.0))
    with Engine(BASELINE, EngineSettings(block=256, window=384)) as engine:
        first = Listener()
        told: list[int] = []
        for _ in engine.predict([job], lambda *_: told.append(len(set(first.blocks))), first):
            pass
        # Progress is told first: nothing is known at the first call, what has no tissue at the second.
        assert told[0] == 0
        assert told[1] >= 6 * 3
        again = Listener()
        (result,) = engine.predict([job], None, again)
    assert result.store is not None
    heard_all(again, result.store)
    assert len(again.blocks) == len(set(again.blocks))


def test_a_block_that_is_given_up_is_settled_when_it_is_not_tried_again(
    ref: SlideRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, times = Slide.read, []

    def broken(slide: Slide, bounds: Bounds, downsample: float) -> NDArray[np.uint8]:
        if bounds.x <= 3 * 256 + 128 < bounds.right and bounds.y <= 2 * 256 + 128 < bounds.bottom:
            times.append((2, 3) in listener.blocks)
            raise OSError("broken tile")
        return read(slide, bounds, downsample)

    monkeypatch.setattr(Slide, "read", broken)
    listener = Listener()
    with Engine(BASELINE, EngineSettings(block=256, window=384, retries=2)) as engine:
        (result,) = engine.predict([make_job(ref, tmp_path / "p.zarr")], None, listener)
    assert times == [False] * 3
    assert result.store is not None
    assert result.store.blocks[2, 3] == BlockState.FAILED
    heard_all(listener, result.store)


@pytest.mark.slow
def test_after_a_worker_died_everything_is_told_once_more(ref: SlideRef, tmp_path: Path) -> None:
    killed: list[int] = []
    listener = Listener()

    def kill(slide_id: str, done: int, total: int) -> None:
        if done and not killed:
            worker = next(p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline()))
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    with Engine(BASELINE, EngineSettings(block=256, window=384, workers=2)) as engine:
        (result,) = engine.predict([make_job(ref, tmp_path / "p.zarr")], kill, listener)
    assert killed
    assert listener.restarts > 0
    assert result.complete
    assert result.store is not None
    heard_all(listener, result.store)


def test_news_of_another_engine_or_another_store_is_passed_over(ref: SlideRef, tmp_path: Path) -> None:
    with Engine(BASELINE, EngineSettings(block=256, window=384)) as engine:
        stray = Listener()
        results = engine.predict([make_job(ref, tmp_path / "p.zarr")], None, stray)
        for result in results:
            assert result.store is not None
        round_ = engine._round
        assert round_ is not None
        before = len(stray.blocks)
        round_._hear(["another session", str(tmp_path / "p.zarr"), 0, 0])
        round_._hear([engine._session, str(tmp_path / "another.zarr"), 0, 0])
        assert len(stray.blocks) == before


def test_following_changes_no_byte_of_the_maps(ref: SlideRef, tmp_path: Path) -> None:
    with Engine(BASELINE, EngineSettings(block=256, window=384)) as engine:
        for name, listener in (("followed", Listener()), ("alone", None)):
            (result,) = engine.predict([make_job(ref, tmp_path / name)], None, listener)
            assert result.complete
    assert tree(tmp_path / "followed") == tree(tmp_path / "alone")
