"""Overlapping windows: against the blend worked out for the whole slide at once, however it is cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.inference.make import make_job, make_slide, make_unet, predict_here, speckled
from tests.inference.test_doubt import three
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import ModelError
from wsi_pipeline.inference import Engine, EngineSettings
from wsi_pipeline.inference.blend import step_of, window_weights
from wsi_pipeline.inference.slide_work import SlideJob
from wsi_pipeline.models import ModelCard, Segmenter, load_card, load_segmenter
from wsi_pipeline.models.card import parse_card
from wsi_pipeline.models.ensemble import Passes, turned, turned_back
from wsi_pipeline.slides import open_slide
from wsi_pipeline.tiling import CELL, Bounds

NewFolder = Callable[[], Path]
WIDTH, HEIGHT = 330, 260


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> SlideRef:
    return make_slide(tmp_path_factory.mktemp("slide") / "slide.tif", WIDTH, HEIGHT, seed=7)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Windows of 96 px of a network whose reach is 46 px: what it says depends on where they begin."""
    return make_unet(tmp_path_factory.mktemp("net"), classes=2, window=96, blend=0.5)


@pytest.fixture
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> NewFolder:
    return lambda: tmp_path_factory.mktemp("map")


def job_of(ref: SlideRef, folder: Path, seed: int = 2) -> SlideJob:
    with open_slide(ref) as slide:
        tissue = speckled(slide, seed)
    return make_job(ref, folder / "prediction.zarr", tissue=tissue)


def one_look(segmenter: Segmenter, image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [segmenter.predict(image).probability[0, 0]]


def eight_looks(segmenter: Segmenter, image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    ways = [(way, np.ascontiguousarray(turned(image, way))) for way in range(8)]
    return [turned_back(segmenter.predict(seen).probability, way)[0, 0] for way, seen in ways]


def by_definition(
    job: SlideJob, segmenter: Segmenter, looks: Callable[[Segmenter, NDArray[np.uint8]], list[NDArray[np.uint8]]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, entropy of the mean, and mutual information of all windows of a slide, 0..255; of tissue cells only."""
    side, step = segmenter.card.window, step_of(segmenter.card)
    room = (HEIGHT + side, WIDTH + side)
    mean, each, total = np.zeros(room), np.zeros(room), np.zeros(room)
    weights = window_weights(side).astype(float)
    with open_slide(job.ref) as slide:
        for y, x in itertools.product(range(0, HEIGHT, step), range(0, WIDTH, step)):
            image = slide.read(Bounds(x, y, x + side, y + side), job.downsample)[None]
            for probability in looks(segmenter, image):
                p = probability / 255
                area = np.s_[y : y + side, x : x + side]
                mean[area] += weights * p
                each[area] += weights * bits(p)
                total[area] += weights
    cells = job.tissue.cells(CELL, job.downsample, job.size).repeat(CELL, 0).repeat(CELL, 1)[:HEIGHT, :WIDTH]
    mean, each = (255 * values[:HEIGHT, :WIDTH] / total[:HEIGHT, :WIDTH] * cells for values in (mean, each))
    whole = 255 * bits(mean / 255)
    return mean, whole, whole - each


def bits(p: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)))


def test_the_map_is_the_blend_of_all_windows_whatever_the_blocks_and_runs(
    ref: SlideRef, model: str, new_folder: NewFolder
) -> None:
    segmenter = load_segmenter(model, device="cpu", runtime="torch", precision="fp32", threads=1)
    expected = by_definition(job_of(ref, new_folder()), segmenter, one_look)
    assert expected[2].max() > 10
    first = None
    for block, runs in ((2048, (9,)), (128, (2, 1)), (192, (3,))):
        result = predict_here(job_of(ref, new_folder()), model, block=block, window=256, runs=runs)
        assert result.complete
        found = three(result.store)
        for values, wanted in zip(found, expected, strict=True):
            assert np.abs(values - wanted).max() <= 1
        first = first or found
        for one, other in zip(first, found, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_windows_that_are_unsure_are_looked_at_in_eight_ways_and_weigh_the_same(
    ref: SlideRef, model: str, new_folder: NewFolder
) -> None:
    segmenter = load_segmenter(model, device="cpu", runtime="torch", precision="fp32", threads=1)
    expected = by_definition(job_of(ref, new_folder()), segmenter, eight_looks)
    found = three(
        predict_here(job_of(ref, new_folder()), model, block=256, window=256, passes=Passes(tta=8, above=0.0)).store
    )
    for values, wanted in zip(found, expected, strict=True):
        assert np.abs(values - wanted).max() <= 1
    plain = by_definition(job_of(ref, new_folder()), segmenter, one_look)
    never = three(
        predict_here(job_of(ref, new_folder()), model, block=256, window=256, passes=Passes(tta=8, above=0.999)).store
    )
    for values, wanted in zip(never, plain, strict=True):
        assert np.abs(values - wanted).max() <= 1


def test_threads_and_processes_of_the_engine_give_the_same(ref: SlideRef, model: str, new_folder: NewFolder) -> None:
    here = three(predict_here(job_of(ref, new_folder()), model, block=256, window=256).store)
    settings = EngineSettings(block=128, device="cpu", runtime="torch", precision="fp32")
    with Engine(model, settings) as engine:
        found = three(next(engine.predict([job_of(ref, new_folder())])).store)
    for one, other in zip(here, found, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_blending_takes_the_seams_out(ref: SlideRef, model: str, new_folder: NewFolder, tmp_path: Path) -> None:
    """Side by side, such windows jump where they meet; blended, a step there is no larger than elsewhere."""
    segmenter = load_segmenter(model, device="cpu", runtime="torch", precision="fp32", threads=1)
    side = segmenter.card.window
    with open_slide(ref) as slide:
        rows, columns = range(0, HEIGHT - side, side), range(0, WIDTH - side, side)
        tiles = [
            segmenter.predict(slide.read(Bounds(x, y, x + side, y + side), 1.0)[None]).probability[0, 0]
            for y in rows
            for x in columns
        ]
    count = len(columns)
    apart = np.concatenate([np.concatenate(tiles[count * i : count * (i + 1)], axis=1) for i in range(len(rows))])
    with open_slide(ref) as slide:
        job = make_job(ref, tmp_path / "p.zarr")
    blended = three(predict_here(job, model, block=512, window=256).store)[0][0]

    def jump(values: NDArray[np.uint8]) -> float:
        steps = np.abs(np.diff(values[: len(apart), : apart.shape[1]].astype(int), axis=1)).mean(axis=0)
        return float(steps[side - 1 :: side].mean() / np.delete(steps, np.s_[side - 1 :: side]).mean())

    assert jump(apart) > 1.15
    assert jump(blended) < jump(apart) - 0.1


@given(st.sampled_from([8, 24, 96, 256, 1024]))
@settings(deadline=None)
def test_weights_are_smooth_never_zero_and_add_up_to_the_same(side: int) -> None:
    weights = window_weights(side).astype(int)
    assert weights.min() >= 1
    np.testing.assert_array_equal(weights, weights.T)
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    along = np.sqrt(np.diag(weights))
    assert np.abs(np.diff(along)).max() <= 255 * np.pi / side + 1
    assert np.abs(along[: side // 2] + along[side // 2 :] - 255).max() <= 1


@pytest.mark.parametrize(
    ("window", "blend", "stride", "step"), [(256, 0.5, 8, 128), (240, 0.5, 48, 96), (96, 0.1, 8, 80)]
)
def test_steps_are_multiples_of_the_stride(window: int, blend: float, stride: int, step: int) -> None:
    raw = {"name": "m", "architecture": "unet", "mpp": 0.5, "window": window, "blend": blend, "stride": stride}
    classes = [{"name": "a", "color": [0, 0, 0]}, {"name": "b", "color": [0, 0, 0]}]
    assert step_of(ModelCard.model_validate({**raw, "classes": classes})) == step


def test_a_card_says_blend_or_halo_and_cards_without_stay_what_they_were(model: str, tmp_path: Path) -> None:
    card = load_card(model)
    assert (card.blend, card.halo) == (0.5, 0)
    assert "blend" not in load_card(make_unet(tmp_path)).dump()
    with pytest.raises(ModelError, match="blended windows have no halo"):
        parse_card({**card.dump(), "halo": 48}, source="card.json")
