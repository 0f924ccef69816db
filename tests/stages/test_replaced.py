"""A slide's file is replaced: after it was done, between a killed run and its resume, or while it is predicted."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from tests.inference.make import BASELINE, make_job, make_slide, tree
from tests.stages.made import files_of, record_of, run_of, small_slide, states_of, write_config
from wsi_pipeline.cli.app import run
from wsi_pipeline.errors import SlideUnreadable
from wsi_pipeline.inference import BlockState, Engine, EngineSettings
from wsi_pipeline.inference.store import PredictionStore


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two slides of the same size and resolution."""
    folder = tmp_path_factory.mktemp("replaced")
    one = small_slide(folder / "one.tif")
    return one, small_slide(folder / "two.tif", seed=8)


def predicted(config: Path) -> dict[str, bytes]:
    assert run(["predict", str(config)]) == 0
    return files_of(run_of(config))


def begun(slides: tuple[Path, Path], folder: Path) -> tuple[Path, Path, dict[str, bytes]]:
    """Configuration and path of the first slide, to be predicted, and the files of a run on the second one there."""
    path = folder / "a.tif"
    config = write_config(folder, [path])
    shutil.copy(slides[1], path)
    expected = predicted(config)
    shutil.rmtree(run_of(config).root)
    shutil.copy(slides[0], path)
    return config, path, expected


def test_a_slide_that_was_replaced_after_it_was_done_is_predicted_anew(
    slides: tuple[Path, Path], tmp_path: Path
) -> None:
    config, path, expected = begun(slides, tmp_path)
    first = predicted(config)
    assert predicted(config) == first
    # The date of a copy is another one, and nothing is done again.
    shutil.copyfile(slides[0], path)
    assert predicted(config) == first
    shutil.copy(slides[1], path)
    assert predicted(config) == expected


def test_a_killed_run_does_not_go_on_with_another_file(slides: tuple[Path, Path], tmp_path: Path) -> None:
    config, path, expected = begun(slides, tmp_path)
    predicted(config)
    (slide_id,) = record_of(config)["slides"]
    folder = run_of(config).slide(slide_id)
    # As a run that was killed before its last blocks.
    folder.summary.unlink()
    store = PredictionStore.open(folder.prediction, read_only=False)
    states = store.blocks
    states[-1] = BlockState.TODO
    store.set_blocks(states)
    shutil.copy(slides[1], path)
    assert predicted(config) == expected


def test_a_map_from_before_contents_were_kept_is_gone_on_with(slides: tuple[Path, Path], tmp_path: Path) -> None:
    config = write_config(tmp_path, [slides[0]])
    predicted(config)
    (slide_id,) = record_of(config)["slides"]
    folder = run_of(config).slide(slide_id)
    folder.summary.unlink()
    head = folder.prediction / "zarr.json"
    content = PredictionStore.open(folder.prediction).info.content
    assert content is not None
    text = head.read_text().replace(f'"content": "{content}"', '"note": "old"')
    assert text != head.read_text()
    head.write_text(text)
    shard = next((folder.prediction / "uncertainty" / "c").rglob("0"))
    before = shard.stat().st_mtime_ns
    predicted(config)
    assert states_of(config) == {"one.tif": "done"}
    assert shard.stat().st_mtime_ns == before


@pytest.mark.parametrize("workers", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_a_slide_that_is_replaced_while_it_is_predicted_fails_alone(
    tmp_path: Path, workers: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    whole = make_slide(tmp_path / "whole.tif", 700, 600)
    other = make_slide(tmp_path / "other.tif", 1800, 1500, seed=4)
    ref = make_slide(tmp_path / "a.tif", 1800, 1500)
    settings = EngineSettings(block=256, window=384, workers=workers)
    replaced = False

    def replace(slide_id: str, done: int, total: int) -> None:
        nonlocal replaced
        if slide_id == "a" and 0 < done < total and not replaced:
            replaced = True
            Path(ref.uri).write_bytes(Path(other.uri).read_bytes())

    with Engine(BASELINE, settings) as engine:
        jobs = [make_job(ref, tmp_path / "a.zarr", bound=True), make_job(whole, tmp_path / "whole.zarr", bound=True)]
        results = {result.slide_id: result for result in engine.predict(jobs, replace)}
    assert replaced
    error = results["a"].error
    assert isinstance(error, SlideUnreadable)
    assert "became another file while it was worked on" in str(error)
    assert results["whole"].complete
    # Once more, on what lies there now: nothing of the first file is in its map.
    shutil.rmtree(tmp_path / "a.zarr")
    with Engine(BASELINE, settings) as engine:
        jobs = [make_job(ref, tmp_path / "a.zarr", bound=True), make_job(other, tmp_path / "other.zarr", bound=True)]
        assert all(result.complete for result in engine.predict(jobs))
    one, two = (
        {name: data for name, data in tree(tmp_path / f"{name}.zarr").items() if name != "zarr.json"}
        for name in ("a", "other")
    )
    assert one == two


def test_maps_of_a_store_that_cannot_be_read_now_are_kept(slides: tuple[Path, Path], tmp_path: Path) -> None:
    config = write_config(tmp_path, [slides[0]])
    expected = predicted(config)
    (slide_id,) = record_of(config)["slides"]
    folder = run_of(config).slide(slide_id)
    folder.summary.unlink()
    head = folder.prediction / "zarr.json"
    kept = head.read_bytes()
    # An error of the disk: neither a map of something else nor a damaged one.
    head.unlink()
    head.symlink_to(head)
    assert run(["predict", str(config)]) == 2
    assert "cannot be read: Too many levels of symbolic links" in record_of(config)["slides"][slide_id]["reason"]
    assert any((folder.prediction / "probability" / "c").rglob("0"))
    head.unlink()
    head.write_bytes(kept)
    assert predicted(config) == expected
