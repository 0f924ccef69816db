"""Unsure cells looked at again: where, what comes out, and that nothing of it depends on how a slide is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.inference.make import (
    BASELINE,
    everywhere,
    make_job,
    make_slide,
    make_unet,
    maps_of,
    predict_here,
    speckled,
    whole_map,
)
from wsi_pipeline import open_prediction
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import ModelError, StoreError
from wsi_pipeline.inference import Engine, EngineSettings, PredictionStore
from wsi_pipeline.inference.doubt import SQUARE_CELLS, cell_means
from wsi_pipeline.inference.slide_work import SlideJob
from wsi_pipeline.models import load_segmenter
from wsi_pipeline.models.ensemble import Passes, turned, turned_back
from wsi_pipeline.slides import open_slide
from wsi_pipeline.tiling import CELL, Bounds

NewFolder = Callable[[], Path]
WIDTH, HEIGHT = 340, 280
Three = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> SlideRef:
    return make_slide(tmp_path_factory.mktemp("slide") / "slide.tif", WIDTH, HEIGHT, seed=3)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_unet(tmp_path_factory.mktemp("net"), dropout=0.3)


@pytest.fixture
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> NewFolder:
    return lambda: tmp_path_factory.mktemp("map")


def job_of(ref: SlideRef, folder: Path, *, seed: int | None = None) -> SlideJob:
    with open_slide(ref) as slide:
        tissue = everywhere(slide.size) if seed is None else speckled(slide, seed)
    return make_job(ref, folder / "prediction.zarr", tissue=tissue)


def three(store: PredictionStore | None) -> Three:
    assert store is not None
    _, height, width = store.shape
    apart = store.mutual_information(Bounds(0, 0, width, height))
    assert apart is not None
    return *maps_of(store), apart


def middle_of(ref: SlideRef, folder: Path, model: str) -> float:
    """A threshold that about half of the cells lie above."""
    _, uncertainty = whole_map(job_of(ref, folder), load_segmenter(model, device="cpu", runtime="torch"))
    return float(np.median(cell_means(uncertainty, CELL))) / 255


@pytest.mark.parametrize("kind", [{"tta": 4}, {"dropout": 3}, {"tta": 8, "dropout": 2}])
def test_the_map_is_the_same_whatever_the_blocks_windows_and_runs(
    ref: SlideRef, network: str, new_folder: NewFolder, kind: dict[str, int]
) -> None:
    passes = Passes(**kind, above=middle_of(ref, new_folder(), network))
    found = []
    for block, window, runs in ((2048, 768, (9,)), (128, 256, (2, 1)), (192, 320, (3,))):
        result = predict_here(
            job_of(ref, new_folder(), seed=1), network, block=block, window=window, runs=runs, passes=passes
        )
        assert result.complete
        found.append(three(result.store))
    apart = found[0][2]
    # Some cells are looked at again, some are not.
    sides = cell_means(apart, CELL) > 0
    assert sides.any()
    assert not sides.all()
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert np.abs(one.astype(int) - two).max() <= 1
        np.testing.assert_array_equal(apart, other[2])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tissue=st.integers(0, 99), block=st.sampled_from([128, 192, 512]), window=st.sampled_from([128, 200, 768]))
def test_of_an_equivariant_model_nothing_changes_and_nothing_disagrees(
    ref: SlideRef, new_folder: NewFolder, tissue: int, block: int, window: int
) -> None:
    job = job_of(ref, new_folder(), seed=tissue)
    result = predict_here(job, BASELINE, block=block, window=window, passes=Passes(tta=8, above=0.0))
    found, uncertain, apart = three(result.store)
    expected, expected_uncertain = whole_map(job, load_segmenter(BASELINE))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(uncertain, expected_uncertain)
    assert not apart.any()


def test_augmentation_is_the_mean_over_explicit_transforms_of_the_whole_slide(
    ref: SlideRef, network: str, new_folder: NewFolder
) -> None:
    segmenter = load_segmenter(network, device="cpu", runtime="torch", precision="fp32", threads=1)
    job = job_of(ref, new_folder())
    result = predict_here(job, network, block=256, window=384, passes=Passes(tta=8, above=0.0))
    found, _, apart = three(result.store)
    halo, side = segmenter.card.halo, 384
    with open_slide(ref) as slide:
        image = slide.read(Bounds(0, 0, side, side).grown(halo), job.downsample)[None]
    seen = [
        turned_back(segmenter.predict(np.ascontiguousarray(turned(image, way))).probability, way) for way in range(8)
    ]
    mean = np.mean(seen, axis=0)[0, :, halo : halo + HEIGHT, halo : halo + WIDTH]
    assert np.ptp(np.array(seen), axis=0).max() > 20
    assert np.abs(found - mean).max() <= 1
    assert apart.any()


def test_dropout_disagrees_and_is_the_same_again(ref: SlideRef, network: str, new_folder: NewFolder) -> None:
    job, again = job_of(ref, new_folder()), job_of(ref, new_folder())
    passes = Passes(dropout=4, above=0.0)
    first = three(predict_here(job, network, block=256, window=384, passes=passes).store)
    second = three(predict_here(again, network, block=512, window=384, runs=(1,), passes=passes).store)
    assert first[2].mean() > 1
    np.testing.assert_array_equal(first[2], second[2])
    np.testing.assert_array_equal(first[0], second[0])
    # What disagrees is a part of what is unsure.
    assert (first[2].astype(int) <= first[1].astype(int) + 1).all()


def test_cells_below_the_threshold_keep_the_map_of_one_look(ref: SlideRef, network: str, new_folder: NewFolder) -> None:
    above = middle_of(ref, new_folder(), network)
    job = job_of(ref, new_folder())
    plain_probability, plain = whole_map(job, load_segmenter(network, device="cpu", runtime="torch", precision="fp32"))
    found, _, apart = three(
        predict_here(job, network, block=256, window=384, passes=Passes(dropout=4, above=above)).store
    )
    means = cell_means(plain, CELL) / 255
    for row, column in np.ndindex(*means.shape):
        area = np.s_[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        if means[row, column] > above + 1 / 255:
            assert apart[area].any()
        elif means[row, column] < above - 1 / 255:
            assert not apart[area].any()
            assert np.abs(found[:, *area].astype(int) - plain_probability[:, *area]).max() <= 1


def test_with_a_threshold_that_nothing_reaches_it_is_the_map_without(ref: SlideRef, new_folder: NewFolder) -> None:
    job, plain = job_of(ref, new_folder()), job_of(ref, new_folder())
    found = predict_here(job, BASELINE, block=256, window=384, passes=Passes(tta=8, above=0.999))
    alone = predict_here(plain, BASELINE, block=256, window=384)
    assert found.store is not None
    assert alone.store is not None
    for one, other in zip(maps_of(found.store), maps_of(alone.store), strict=True):
        np.testing.assert_array_equal(one, other)
    assert alone.store.mutual_information(Bounds(0, 0, 9, 9)) is None
    assert "passes" not in alone.store.info.to_json()
    assert found.store.info.to_json()["passes"] == {"tta": 8, "dropout": 0, "above": 0.999}


def test_a_store_of_other_passes_is_not_gone_on_with(ref: SlideRef, new_folder: NewFolder) -> None:
    folder = new_folder()
    predict_here(job_of(ref, folder), BASELINE, block=256, window=384)
    with pytest.raises(StoreError, match=r"passes .* is not None"):
        predict_here(job_of(ref, folder), BASELINE, block=256, window=384, passes=Passes(tta=4))


def test_the_engine_and_its_workers_do_the_same_and_users_get_it_lazily(
    ref: SlideRef, network: str, new_folder: NewFolder
) -> None:
    passes = Passes(tta=4, dropout=2, above=0.0)
    run = new_folder()
    store = run / "slides" / "slide" / "prediction.zarr"
    store.parent.mkdir(parents=True)
    with Engine(network, EngineSettings(block=256, window=384, device="cpu", passes=passes)) as engine:
        # Dropout runs on torch, whatever would be quicker.
        assert engine.runtime.runtime == "torch"
        result = next(engine.predict([make_job(ref, store)]))
    here = predict_here(job_of(ref, new_folder()), network, block=512, window=384, passes=passes)
    for one, other in zip(three(result.store), three(here.store), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    lazy = open_prediction(run, "slide").mutual_information
    assert lazy is not None
    np.testing.assert_array_equal(lazy.compute(), three(result.store)[2])


def test_dropout_is_refused_before_anything_is_predicted(tmp_path: Path, network: str) -> None:
    passes = Passes(dropout=5)
    without = make_unet(tmp_path / "without")
    with (
        pytest.raises(ModelError, match=r"has no dropout layers; set `inference.uncertainty.dropout: 0`"),
        Engine(without, EngineSettings(device="cpu", passes=passes)),
    ):
        pass
    with (
        pytest.raises(ModelError, match="runtime openvino cannot leave dropout at work"),
        Engine(network, EngineSettings(device="cpu", runtime="openvino", passes=passes)),
    ):
        pass


def test_means_of_cells_that_the_edge_cuts() -> None:
    values = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    means = cell_means(values, 4)
    assert means.shape == (2, 2)
    assert means[1, 1] == values[4:, 4:].mean()
    assert means[0, 1] == values[:4, 4:].mean()


def test_a_block_need_not_be_whole_squares() -> None:
    # The tests above rely on it: blocks of 192 px cut squares of this side.
    assert 192 % (SQUARE_CELLS * CELL) != 0
