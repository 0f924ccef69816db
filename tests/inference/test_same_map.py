"""The map is one: whatever the blocks, windows, runs and their order, and what the model says of the whole slide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.inference.make import BASELINE, make_job, make_slide, make_unet, maps_of, predict_here, speckled, whole_map
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.inference.slide_work import SlideJob
from wsi_pipeline.models import load_segmenter
from wsi_pipeline.slides import open_slide
from wsi_pipeline.tiling import CELL

NewFolder = Callable[[], Path]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[SlideRef]:
    folder = tmp_path_factory.mktemp("slides")
    sizes = [(1000, 777), (513, 1300), (130, 60)]
    return [make_slide(folder / f"s{i}.tif", *size, seed=i, mpp=0.25) for i, size in enumerate(sizes)]


@pytest.fixture
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> NewFolder:
    return lambda: tmp_path_factory.mktemp("map")


def job_of(ref: SlideRef, folder: Path, mpp: float, seed: int) -> SlideJob:
    with open_slide(ref) as slide:
        tissue = speckled(slide, seed)
    return make_job(ref, folder / "prediction.zarr", mpp=mpp, tissue=tissue)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, 2),
    mpp=st.sampled_from([0.25, 0.5, 0.3, 0.61803, 1.0]),
    tissue=st.integers(0, 99),
    block=st.sampled_from([128, 256, 384, 512, 2048]),
    window=st.sampled_from([128, 200, 384, 768]),
    runs=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_the_map_is_that_of_the_whole_slide_bit_for_bit(
    slides: list[SlideRef],
    new_folder: NewFolder,
    which: int,
    mpp: float,
    tissue: int,
    block: int,
    window: int,
    runs: list[int],
) -> None:
    job = job_of(slides[which], new_folder(), mpp, tissue)
    result = predict_here(job, BASELINE, block=block, window=window, runs=runs)
    assert result.complete
    assert result.store is not None
    found, uncertain = maps_of(result.store)
    expected, expected_uncertain = whole_map(job, load_segmenter(BASELINE))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(uncertain, expected_uncertain)


@pytest.mark.parametrize(("mpp", "runtime"), [(0.5, "torch"), (0.437, "torch"), (0.437, "openvino")])
def test_a_network_gives_the_same_map_within_one_step_for_all_blocks_and_windows(
    slides: list[SlideRef],
    new_folder: NewFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mpp: float,
    runtime: str,
) -> None:
    pytest.importorskip(runtime)
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "cache"))
    model = make_unet(tmp_path / "model")
    segmenter = load_segmenter(model, device="cpu", runtime=runtime, precision="fp32", threads=1)
    job = job_of(slides[0], new_folder(), mpp, seed=5)
    expected, expected_uncertain = whole_map(job, segmenter)
    assert np.ptp(expected) > 64
    for block, window in ((128, 256), (512, 500), (2048, 768)):
        job = job_of(slides[0], new_folder(), mpp, seed=5)
        result = predict_here(job, model, block=block, window=window, runtime=runtime)
        assert result.store is not None
        found, uncertain = maps_of(result.store)
        assert np.abs(found.astype(int) - expected).max() <= 1
        assert np.abs(uncertain.astype(int) - expected_uncertain).max() <= 1


def test_what_lies_beyond_the_tissue_is_zero_and_never_read(
    slides: list[SlideRef], new_folder: NewFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsi_pipeline.slides import Slide

    read: list[tuple[int, int]] = []
    original = Slide.read

    def counted(self: Slide, bounds: object, downsample: float) -> object:
        read.append((bounds.width, bounds.height))  # type: ignore[attr-defined]
        return original(self, bounds, downsample)  # type: ignore[arg-type]

    monkeypatch.setattr(Slide, "read", counted)
    folder = new_folder()
    with open_slide(slides[0]) as slide:
        tissue = speckled(slide, 0, share=0)
        tissue.mask[0, 0] = True
    job = make_job(slides[0], folder / "prediction.zarr", mpp=0.25, tissue=tissue)
    result = predict_here(job, BASELINE, block=256, window=768)
    assert (result.done, result.background) == (1, 15)
    # One cell of 64 px with a halo of 16 px (8 px at 0.5 µm).
    halo = load_segmenter(BASELINE).card.halo
    assert read == [(CELL + 2 * halo, CELL + 2 * halo)]
    assert result.store is not None
    probability, _ = maps_of(result.store)
    assert probability[:, :CELL, :CELL].any()
    assert not probability[:, CELL:].any()
    assert not probability[:, :, CELL:].any()
