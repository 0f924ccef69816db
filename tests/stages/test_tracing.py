"""Regions drawn beside the model: the bytes of regions drawn at the end, and nothing of maps that were made anew."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.regions.fakes import smooth
from tests.stages.made import files_of, run_of, small_slide, write_config
from wsi_pipeline.cli.app import run
from wsi_pipeline.config import Config, parse_config
from wsi_pipeline.errors import StoreError
from wsi_pipeline.inference import BlockState, MapInfo, PredictionStore
from wsi_pipeline.models import load_card
from wsi_pipeline.objects import PathObject
from wsi_pipeline.regions import extract_regions
from wsi_pipeline.regions.tracing import Block, Tracer
from wsi_pipeline.stages.tracing import Tracing

BASELINE = "baseline:stain-density?mpp=1"
SIZE, BLOCK = 192, 64
EVERY = [(row, column) for row in range(3) for column in range(3)]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_slide(tmp_path_factory.mktemp("slide") / "slide.tif", width=1300, height=1100)


# ---- in a run


@pytest.mark.parametrize("workers", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_draws_while_it_predicts_and_writes_what_it_would_have_written_at_the_end(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None
) -> None:
    small = {"min_area_um2": 60, "min_hole_um2": 20}
    config = write_config(tmp_path, [slide], inference={"workers": workers}, regions=small)
    traced: list[bool] = []
    trace, take = Tracer.trace, Tracing.take
    over = threading.Event()

    def watched(tracer: Tracer, block: Block) -> None:
        # The first to be drawn is long done when the engine is through.
        traced.append(over.is_set())
        trace(tracer, block)

    def taken(tracing: Tracing, slide_id: str, store: PredictionStore) -> Tracer:
        over.set()
        return take(tracing, slide_id, store)

    monkeypatch.setattr(Tracer, "trace", watched)
    monkeypatch.setattr(Tracing, "take", taken)
    assert run(["predict", str(config)]) == 0
    assert not traced[0]
    beside = files_of(run_of(config))
    shutil.rmtree(run_of(config).root)
    monkeypatch.setattr(Tracing, "settled", lambda *_: None)
    over.clear()
    traced.clear()
    assert run(["predict", str(config)]) == 0
    assert all(traced)
    assert files_of(run_of(config)) == beside
    (regions,) = (data for name, data in beside.items() if name.endswith("regions.geojson"))
    assert regions.count(b'"Feature"') > 3


# ---- by itself


@pytest.fixture
def config(tmp_path: Path) -> Config:
    raw = {
        "output": "run",
        "cohort": {"slides": ["none.tif"]},
        "model": {"path": BASELINE},
        "regions": {"min_area_um2": 5, "min_hole_um2": 5, "contour_downsample": 1},
    }
    return parse_config(raw, base=tmp_path)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def store(tmp_path: Path) -> PredictionStore:
    card = load_card(BASELINE)
    classes = tuple((spec.name, spec.color) for spec in card.foreground)
    info = MapInfo("s", (SIZE, SIZE), 1.0, 1.0, classes, "m", 1.0, BLOCK, "")
    return PredictionStore.create(tmp_path / "p.zarr", info)


def write(store: PredictionStore, image: NDArray[np.uint8], block: Block) -> None:
    bounds = store.grid.bounds(*block)
    values = image[bounds.y : bounds.bottom, bounds.x : bounds.right]
    store.write_block(*block, values[None], values)


def regions(store: PredictionStore, config: Config, tracer: Tracer | None = None) -> list[PathObject]:
    names = [name for name, _ in store.classes]
    return extract_regions(store, names, config.regions, mpp=1.0, run_id="r", slide_id="s", model_id="m", tracer=tracer)


def begun(config: Config, pool: ThreadPoolExecutor) -> Tracing:
    tracing = Tracing(config, load_card(BASELINE), pool)
    tracing.begin("s", 1.0)
    return tracing


def test_blocks_told_of_by_several_threads_are_drawn_once(
    config: Config, pool: ThreadPoolExecutor, store: PredictionStore
) -> None:
    image = smooth(1, SIZE, SIZE)
    for block in EVERY:
        write(store, image, block)
    tracing = begun(config, pool)
    tellers = [threading.Thread(target=tracing.settled, args=("s", store, EVERY[i:] + EVERY[:i])) for i in range(9)]
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    tracer = tracing.take("s", store)
    assert pool.submit(lambda: len(tracer._pieces)).result() == 9
    assert regions(store, config, tracer) == regions(store, config)
    assert len(regions(store, config)) > 3


def test_maps_that_were_computed_again_are_read_again(
    config: Config, pool: ThreadPoolExecutor, store: PredictionStore
) -> None:
    first, second = smooth(1, SIZE, SIZE), smooth(2, SIZE, SIZE)
    for block in EVERY:
        write(store, first, block)
    tracing = begun(config, pool)
    tracing.settled("s", store, EVERY)
    pool.submit(int).result()
    drawn_first = regions(store, config)
    tracing.unsettled("s")
    for block in EVERY:
        write(store, second, block)
    tracing.settled("s", store, EVERY)
    found = regions(store, config, tracing.take("s", store))
    assert found == regions(store, config) != drawn_first


def test_nothing_is_drawn_of_a_slide_that_failed_nor_after_the_call(
    config: Config, pool: ThreadPoolExecutor, store: PredictionStore
) -> None:
    held = threading.Event()
    pool.submit(held.wait)
    tracing = begun(config, pool)
    tracing.settled("s", store, EVERY)
    tracing.begin("t", 1.0)
    tracing.settled("t", store, EVERY)
    dropped, stopped = (tracing._slides[name].tracer for name in ("s", "t"))
    assert dropped is not None
    assert stopped is not None
    tracing.drop("s")
    tracing.stop()
    tracing.settled("t", store, EVERY)
    tracing.unsettled("t")
    # News may come late; of a slide that nobody knows any more too.
    tracing.settled("s", store, EVERY)
    tracing.unsettled("s")
    tracing.drop("s")
    held.set()
    pool.submit(int).result()
    assert dropped.nbytes == stopped.nbytes == 0
    assert not dropped._pieces
    assert not stopped._pieces


def test_a_map_that_cannot_be_read_now_is_told_when_the_slide_is_finished(
    config: Config, pool: ThreadPoolExecutor, store: PredictionStore
) -> None:
    image = smooth(1, SIZE, SIZE)
    for block in EVERY:
        write(store, image, block)
    store.set_blocks(np.full(store.grid.shape, BlockState.DONE, np.uint8))
    shard = next((Path(store.path) / "probability").rglob("c/0/1/1"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    tracing = begun(config, pool)
    tracing.settled("s", store, EVERY)
    pool.submit(int).result()
    tracer = tracing.take("s", store)
    with pytest.raises(StoreError, match=r"p\.zarr cannot be read"):
        regions(store, config, tracer)
    shard.write_bytes(whole)
    assert regions(store, config, tracer) == regions(store, config)
