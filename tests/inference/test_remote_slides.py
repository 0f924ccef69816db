"""A slide that lies elsewhere: the same map, its bytes asked for before they are read, hardly a tile fetched twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.inference.make import BASELINE, make_job, make_slide, predict_here, speckled, tree
from tests.slides.served import Served, serving
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.inference import BlockState, PredictionStore
from wsi_pipeline.inference.work import BLOCKS_AHEAD
from wsi_pipeline.slides import Slide, open_slide, remote
from wsi_pipeline.tiling import Bounds


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> SlideRef:
    return make_slide(tmp_path_factory.mktemp("slide") / "slide.tif", 2200, 1500)


@pytest.fixture
def served(here: SlideRef) -> Iterator[Served]:
    with serving(Path(here.uri).parent) as server:
        yield server


def test_the_map_is_the_same_and_each_tile_is_fetched_about_once(
    here: SlideRef, served: Served, tmp_path: Path
) -> None:
    with open_slide(here) as slide:
        tissue = speckled(slide, 3, share=0.05)
    there = SlideRef(here.slide_id, f"{served.url}/slide.tif", here.name)
    jobs = {name: make_job(ref, tmp_path / name, tissue=tissue) for name, ref in (("here", here), ("there", there))}
    served.sent = 0
    for job in jobs.values():
        assert predict_here(job, BASELINE, block=512, window=384, runs=(4,)).complete
    assert tree(tmp_path / "here") == tree(tmp_path / "there")
    with tifffile.TiffFile(here.uri) as tiff:
        level = sum(tiff.pages.first.databytecounts)
    # Fewer than all, since there is not tissue everywhere; header included.
    assert served.sent < 1.1 * level + 2 * 64 * 1024


def test_blocks_are_asked_for_before_they_are_read(
    here: SlideRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Bounds]] = []

    def noted(name: str, function: Any) -> Any:
        def call(slide: Slide, bounds: Bounds, downsample: float) -> Any:
            calls.append((name, bounds))
            return function(slide, bounds, downsample)

        return call

    for name in ("prefetch", "read"):
        monkeypatch.setattr(Slide, name, noted(name, getattr(Slide, name)))
    job = make_job(here, tmp_path / "p")
    result = predict_here(job, BASELINE, block=512, window=384, runs=(15,))
    assert result.complete
    reads = [bounds for name, bounds in calls if name == "read"]
    assert len(reads) == result.done == 15
    assert [bounds for name, bounds in calls if name == "prefetch"] == reads
    for number, bounds in enumerate(reads):
        before = [b for name, b in calls[: calls.index(("read", bounds))] if name == "prefetch"]
        assert len(before) == min(len(reads), number + 1 + BLOCKS_AHEAD)


def test_a_block_that_cannot_be_asked_for_gives_no_other_block_its_pixels(
    here: SlideRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict_here(make_job(here, tmp_path / "whole"), BASELINE, block=512, window=384, runs=(15,)).store
    asked, true = 0, Slide.prefetch

    def full(slide: Slide, bounds: Bounds, downsample: float) -> None:
        nonlocal asked
        asked += 1
        if asked == 7:
            raise RuntimeError("can't start new thread")
        true(slide, bounds, downsample)

    monkeypatch.setattr(Slide, "prefetch", full)
    result = predict_here(make_job(here, tmp_path / "p"), BASELINE, block=512, window=384, runs=(15,))
    assert result.done == 14
    assert list(result.causes.values()) == ["can't start new thread"]
    assert whole is not None
    assert result.store is not None
    for row, column in np.argwhere(result.store.blocks == BlockState.DONE).tolist():
        bounds = whole.grid.bounds(row, column)
        for one, other in zip(maps_of(result.store, bounds), maps_of(whole, bounds), strict=True):
            np.testing.assert_array_equal(one, other)


def maps_of(store: PredictionStore, bounds: Bounds) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return store.read(0, bounds), store.uncertainty(bounds)


def test_a_block_that_a_store_did_not_give_is_not_called_damaged(
    here: SlideRef, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES", ())
    there = SlideRef(here.slide_id, f"{served.url}/slide.tif", here.name)
    true = Slide.read

    def down(slide: Slide, bounds: Bounds, downsample: float) -> NDArray[np.uint8]:
        # From the first block on.
        served.busy = 1_000_000
        return true(slide, bounds, downsample)

    job = make_job(there, tmp_path / "p")
    monkeypatch.setattr(Slide, "prefetch", lambda *_: None)
    monkeypatch.setattr(Slide, "read", down)
    result = predict_here(job, BASELINE, block=512, window=384)
    assert result.failed == 15
    told = "the store fails: 503, .*; look at the store and the network, then run again"
    assert all(re.search(told, cause) for cause in result.causes.values())
    assert re.search(rf"none of its 15 blocks .*{told}\); mend that, or leave the slide out", str(result.error))
