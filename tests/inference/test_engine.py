"""The engine in this process: what is done is kept, what fails is named, and the rest goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.inference.make import (
    BASELINE,
    damage_tile,
    everywhere,
    make_job,
    make_slide,
    maps_of,
    predict_here,
    speckled,
    tree,
)
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import parse_config
from wsi_pipeline.errors import ClusterError, ModelError, SlideNotFound, SlideUnreadable, StoreError
from wsi_pipeline.inference import BlockState, Engine, EngineSettings, SlideJob, SlideResult, rounds
from wsi_pipeline.slides import TissueMask, open_slide

SETTINGS = EngineSettings(block=256, window=384, retries=1)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[SlideRef]:
    folder = tmp_path_factory.mktemp("slides")
    return [make_slide(folder / f"s{i}.tif", 1200, 1000 - 100 * i, seed=i) for i in range(3)]


def job_of(ref: SlideRef, folder: Path, share: float = 0.6) -> SlideJob:
    with open_slide(ref) as slide:
        tissue = speckled(slide, 1, share)
    return make_job(ref, folder / ref.slide_id / "prediction.zarr", tissue=tissue)


def predict(jobs: list[SlideJob], settings: EngineSettings = SETTINGS) -> dict[str, SlideResult]:
    with Engine(BASELINE, settings) as engine:
        return {result.slide_id: result for result in engine.predict(jobs)}


def test_slides_come_back_with_the_maps_that_the_model_gives(slides: list[SlideRef], tmp_path: Path) -> None:
    jobs = [job_of(ref, tmp_path / "engine") for ref in slides]
    results = predict(jobs)
    assert set(results) == {ref.slide_id for ref in slides}
    for ref in slides:
        result = results[ref.slide_id]
        alone = predict_here(job_of(ref, tmp_path / "alone"), BASELINE, block=512, window=256)
        assert result.complete
        assert result.store is not None
        assert alone.store is not None
        np.testing.assert_array_equal(maps_of(result.store)[0], maps_of(alone.store)[0])
        counts = np.bincount(result.store.blocks.ravel(), minlength=4)
        assert (counts[1], counts[2], counts[3]) == (result.done, result.background, result.failed)
        assert counts[0] == 0


def test_what_a_killed_writer_left_is_gone_when_the_slide_is_through(slides: list[SlideRef], tmp_path: Path) -> None:
    """A worker that is killed while it writes leaves a file that is under no name that anybody reads."""
    job = job_of(slides[0], tmp_path)
    left = Path(job.store) / "probability" / "c" / "0" / "9" / "9.0123456789abcdef.partial"

    def die(slide_id: str, done: int, total: int) -> None:
        if done < total:
            left.parent.mkdir(parents=True, exist_ok=True)
            left.touch()

    with Engine(BASELINE, SETTINGS) as engine:
        [result] = engine.predict([job], die)
        assert result.complete
    assert left.parent.exists()
    assert not left.exists()


def test_progress_counts_the_blocks_with_tissue_up_to_all(slides: list[SlideRef], tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with Engine(BASELINE, SETTINGS) as engine:
        job = job_of(slides[0], tmp_path, share=0.05)
        [result] = engine.predict([job], lambda *news: told.append(news))
    assert result.background > 0
    assert told[0][1] == 0
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1] == (slides[0].slide_id, result.done, result.done)


def test_a_slide_without_tissue_is_done_at_once(slides: list[SlideRef], tmp_path: Path) -> None:
    result = predict([job_of(slides[0], tmp_path, share=0)])["s0"]
    assert result.complete
    assert (result.done, result.failed) == (0, 0)
    assert result.store is not None
    assert (result.store.blocks == BlockState.BACKGROUND).all()


def test_slides_are_asked_for_as_there_is_room(
    slides: list[SlideRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "AHEAD", 1)
    asked = 0

    def cohort() -> Iterator[SlideJob]:
        nonlocal asked
        for number in range(40):
            asked += 1
            yield make_job(slides[2], tmp_path / f"{number}.zarr", tissue=everywhere((1200, 800)))

    with Engine(BASELINE, EngineSettings(block=2048)) as engine:
        results = engine.predict(cohort())
        next(results)
        assert asked < 40
        assert sum(1 for _ in results) == 39


def test_a_second_call_computes_nothing_and_changes_no_byte(slides: list[SlideRef], tmp_path: Path) -> None:
    jobs = [job_of(ref, tmp_path) for ref in slides]
    predict(jobs)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = predict(jobs)
    assert all(result.complete for result in again.values())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_store_that_is_there_keeps_its_blocks_when_others_are_asked_for(
    slides: list[SlideRef], tmp_path: Path
) -> None:
    job = job_of(slides[0], tmp_path)
    store = predict([job])["s0"].store
    assert store is not None
    before = tree(Path(store.path))
    store.set_blocks(np.zeros_like(store.blocks))
    again = predict([job], EngineSettings(block=1024))["s0"]
    assert again.complete
    assert tree(Path(store.path)) == before


def test_a_damaged_tile_costs_its_blocks_only_and_a_mended_file_completes_the_map(tmp_path: Path) -> None:
    ref = make_slide(tmp_path / "slide.tif", 1200, 1000)
    whole_job = make_job(ref, tmp_path / "undisturbed.zarr")
    predict([whole_job])

    whole = damage_tile(Path(ref.uri), x=900, y=600)
    job = make_job(ref, tmp_path / "prediction.zarr")
    result = predict([job])["slide"]
    assert result.error is None
    # Tile 3,2 of 256 px is block 3,2; its neighbours need it for their halos.
    assert result.failed == len(result.causes) == 9
    assert (2, 3) in result.causes
    assert "3,2 of level 0" in result.causes[2, 3]
    assert result.done == 20 - 9
    assert result.store is not None
    failed = {tuple(map(int, where)) for where in np.argwhere(result.store.blocks == BlockState.FAILED)}
    assert failed == set(result.causes)

    Path(ref.uri).write_bytes(whole)
    assert predict([job])["slide"].complete
    assert tree(tmp_path / "prediction.zarr") == tree(tmp_path / "undisturbed.zarr")


def test_one_bad_slide_does_not_stop_the_others(slides: list[SlideRef], tmp_path: Path) -> None:
    gone = make_slide(tmp_path / "gone.tif", 300, 300)
    text = make_slide(tmp_path / "text.tif", 300, 300)
    other = make_slide(tmp_path / "other.tif", 300, 300)
    jobs = [make_job(ref, tmp_path / f"{ref.slide_id}.zarr") for ref in (gone, text, other)]
    Path(gone.uri).unlink()
    Path(text.uri).write_text("not a slide")
    predict([jobs[2]])
    wrong = make_job(other, tmp_path / "other.zarr", mpp=1.0)
    results = predict([jobs[0], jobs[1], wrong, job_of(slides[0], tmp_path)])
    assert isinstance(results["gone"].error, SlideNotFound)
    assert isinstance(results["text"].error, SlideUnreadable)
    assert isinstance(results["other"].error, StoreError)
    assert "holds another prediction (downsample" in str(results["other"].error)
    assert results["s0"].complete


def test_a_slide_of_which_no_block_can_be_read_is_an_error_of_the_slide(tmp_path: Path) -> None:
    ref = make_slide(tmp_path / "slide.tif", 250, 250)
    job = make_job(ref, tmp_path / "p.zarr")
    damage_tile(Path(ref.uri), x=0, y=0)
    result = predict([job])["slide"]
    assert isinstance(result.error, SlideUnreadable)
    assert "none of its 1 blocks with tissue could be predicted (block 0,0: " in str(result.error)


def test_blocks_that_are_at_work_are_kept_when_the_caller_is_interrupted(
    slides: list[SlideRef], tmp_path: Path
) -> None:
    predict([job_of(ref, tmp_path / "undisturbed") for ref in slides])
    jobs = [job_of(ref, tmp_path / "stopped") for ref in slides]

    def interrupt(slide_id: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Engine(BASELINE, SETTINGS) as engine:
        list(engine.predict(jobs, interrupt))
    undisturbed = tree(tmp_path / "undisturbed")
    stopped = tree(tmp_path / "stopped")
    shards = {name: digest for name, digest in stopped.items() if "/c/" in name and "blocks" not in name}
    assert shards
    assert all(undisturbed[name] == digest for name, digest in shards.items())
    predict(jobs)
    assert tree(tmp_path / "stopped") == undisturbed


def test_an_engine_that_was_interrupted_goes_on(slides: list[SlideRef], tmp_path: Path) -> None:
    job = job_of(slides[0], tmp_path)
    with Engine(BASELINE, SETTINGS) as engine:
        results = engine.predict([job, job_of(slides[1], tmp_path)])
        next(results)
        results.close()  # type: ignore[attr-defined]
        [result] = engine.predict([job])
        assert result.complete


def test_nothing_listens_beyond_this_machine(slides: list[SlideRef]) -> None:
    with Engine(BASELINE, SETTINGS):
        listening = [c for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsi_pipeline.inference import dask_cluster

    monkeypatch.setattr(dask_cluster, "CONNECT_S", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        with (
            pytest.raises(ClusterError, match=f"there is no dask scheduler at {address}"),
            Engine(BASELINE, EngineSettings(scheduler=address)),
        ):
            pass


def test_a_model_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        Engine(str(tmp_path / "none"))


def test_blocks_are_whole_cells_of_the_model() -> None:
    assert Engine(BASELINE, EngineSettings(block=300)).block == 320
    assert Engine(BASELINE, EngineSettings(block=2048)).block == 2048


def test_settings_are_those_of_the_configuration(tmp_path: Path) -> None:
    config = parse_config(
        {
            "output": "out",
            "cohort": {"slides": "*.svs"},
            "model": {"path": BASELINE, "device": "cpu", "runtime": "torch"},
            "inference": {"block": 1024, "window": 512, "workers": 3, "retries": 0, "scheduler": "tcp://h:1"},
        },
        base=tmp_path,
    )
    expected = EngineSettings(
        block=1024, window=512, workers=3, retries=0, scheduler="tcp://h:1", device="cpu", runtime="torch"
    )
    assert EngineSettings.of(config) == expected


def test_a_whole_process_holds_few_slides_open(tmp_path: Path) -> None:
    refs = [make_slide(tmp_path / f"{i}.tif", 200, 200, seed=i) for i in range(12)]
    jobs = [make_job(ref, tmp_path / f"{ref.slide_id}.zarr") for ref in refs]

    def open_files() -> int:
        names = os.listdir("/proc/self/fd")
        targets = [os.readlink(f"/proc/self/fd/{n}") for n in names if os.path.islink(f"/proc/self/fd/{n}")]
        return sum(target.endswith(".tif") for target in targets)

    most = 0
    with Engine(BASELINE, SETTINGS) as engine:
        for result in engine.predict(jobs):
            assert result.complete
            most = max(most, open_files())
    assert most <= 24
    assert open_files() == 0


def test_the_tissue_mask_of_a_slide_can_be_given_as_it_is(slides: list[SlideRef], tmp_path: Path) -> None:
    mask = np.zeros((10, 12), bool)
    mask[3:5, 4:6] = True
    job = make_job(slides[0], tmp_path / "p.zarr", tissue=TissueMask(mask, 100.0))
    result = predict([job])["s0"]
    assert result.store is not None
    probability, _ = maps_of(result.store)
    rows, columns = np.nonzero(probability[0])
    assert (rows.min(), columns.min()) == (256, 384)
    assert rows.max() < 512
    assert columns.max() < 640
