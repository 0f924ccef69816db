"""What users get: maps as lazy arrays, from the front door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import wsi_pipeline
from tests.inference.make import BASELINE, make_job, make_slide, maps_of, predict_here
from wsi_pipeline.errors import StoreError
from wsi_pipeline.inference import BlockState, PredictionStore
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.tiling import Bounds


def test_a_prediction_opens_as_lazy_arrays_of_one_chunk_per_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = make_slide(tmp_path / "slide.tif", 700, 500)
    store = RunDir(tmp_path / "run").slide("slide").prediction
    result = predict_here(make_job(ref, store), BASELINE, block=256, window=512)
    assert result.store is not None
    probability, uncertainty = maps_of(result.store)

    prediction = wsi_pipeline.open_prediction(tmp_path / "run", "slide")
    assert isinstance(prediction.probability, da.Array)
    assert prediction.probability.chunks == ((1,), (256, 244), (256, 256, 188))
    assert prediction.uncertainty.chunks == ((256, 244), (256, 256, 188))
    np.testing.assert_array_equal(prediction.probability.compute(scheduler="synchronous"), probability)
    np.testing.assert_array_equal(
        prediction.uncertainty[100:300, 50].compute(scheduler="synchronous"), uncertainty[100:300, 50]
    )
    assert prediction.classes == ("Haematoxylin-dense",)
    assert (prediction.blocks == BlockState.DONE).all()
    assert (prediction.slide_id, prediction.downsample, prediction.mpp) == ("slide", 1.0, 0.5)


def test_a_prediction_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no prediction at"):
        wsi_pipeline.open_prediction(str(tmp_path), "slide")


@pytest.mark.parametrize("harm", [lambda data: data[: len(data) // 2], lambda data: bytes(len(data))])
def test_a_damaged_part_names_the_store_when_it_is_computed(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    ref = make_slide(tmp_path / "slide.tif", 700, 500)
    path = RunDir(tmp_path / "run").slide("slide").prediction
    predict_here(make_job(ref, path), BASELINE, block=256, window=512)
    shard = path / "probability" / "c" / "0" / "1" / "1"
    shard.write_bytes(harm(shard.read_bytes()))
    probability = wsi_pipeline.open_prediction(tmp_path / "run", "slide").probability
    assert probability[:, :256, :256].mean().compute(scheduler="synchronous") > 0
    with pytest.raises(StoreError, match=rf"{path} cannot be read: .*; delete the slide's folder in the run"):
        probability.mean().compute(scheduler="synchronous")


@pytest.mark.parametrize("text", ["[]", '{"config": null}', '{"config": {"inference": 3}}', "{"])
def test_a_damaged_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(StoreError, match=r"run\.json"):
        wsi_pipeline.open_prediction(tmp_path, "slide")


def test_the_front_door_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="'wsi_pipeline' has no attribute 'open_slides'"):
        wsi_pipeline.open_slides  # noqa: B018


def test_batches_of_windows_as_for_a_gpu_give_the_same_map(tmp_path: Path) -> None:
    ref = make_slide(tmp_path / "slide.tif", 900, 700)
    one = predict_here(make_job(ref, tmp_path / "one"), BASELINE, block=512, window=256)
    many = predict_here(make_job(ref, tmp_path / "many"), BASELINE, block=512, window=256, device="cuda:0")
    assert one.store is not None
    assert many.store is not None
    whole = Bounds(0, 0, 900, 700)
    np.testing.assert_array_equal(many.store.read(0, whole), one.store.read(0, whole))
    assert PredictionStore.open(tmp_path / "many").info == one.store.info
