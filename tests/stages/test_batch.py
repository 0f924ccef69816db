"""Several windows at once: kept in run.json, gone on with on resume, and the maps of one at a time within rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsi_pipeline
from tests.models.nets import contrasty_unet, tumor_card
from tests.stages.made import record_of, run_of, small_slide, write_config
from wsi_pipeline.cli.app import run
from wsi_pipeline.inference import Engine
from wsi_pipeline.inference import compute as computing
from wsi_pipeline.models import RuntimeChoice
from wsi_pipeline.models.unet import save_model


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A slide with a U-Net of fixed windows, asked to run with torch."""
    slide = small_slide(tmp_path / "slide.tif", width=900, height=700, tissue_share=1.0)
    save_model(tmp_path / "model", contrasty_unet(), tumor_card(window=128, fixed_window=True))
    model = {"path": str(tmp_path / "model"), "device": "cpu", "runtime": "torch", "precision": "fp32"}
    return write_config(tmp_path, [slide], model=model, inference={"mpp": 1, "block": 256, "window": 512})


def chosen_with(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    choose = Engine._choose_runtime

    def with_batch(engine: Engine) -> RuntimeChoice:
        return replace(choose(engine), batch=batch)

    monkeypatch.setattr(Engine, "_choose_runtime", with_batch)


def test_windows_at_once_are_kept_and_the_map_is_that_of_one_at_a_time(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    cores = computing.cores

    def counted(segmenter: Any, images: Any, halo: int) -> Any:
        counts.append(len(images))
        return cores(segmenter, images, halo)

    monkeypatch.setattr(computing, "cores", counted)
    maps = {}
    for batch in (1, 2):
        counts.clear()
        with monkeypatch.context() as patch:
            chosen_with(patch, batch)
            assert run(["predict", str(config)]) == 0
        assert max(counts) == batch
        runtime = record_of(config)["runtime"]
        assert runtime.get("batch", 1) == batch
        (slide_id,) = record_of(config)["slides"]
        maps[batch] = np.asarray(wsi_pipeline.open_prediction(run_of(config).root, slide_id).probability.compute())
        run_of(config).root.rename(config.parent / f"run-{batch}")
    assert np.abs(maps[1].astype(int) - maps[2]).max() <= 1
    assert np.ptp(maps[1]) > 50


def test_a_resumed_run_goes_on_with_as_many_windows(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        chosen_with(patch, 4)
        assert run(["predict", str(config)]) == 0
    before = run_of(config).run_json.read_bytes()
    (slide_id,) = record_of(config)["slides"]
    run_of(config).slide(slide_id).regions.unlink()
    assert run(["predict", str(config)]) == 0
    assert run_of(config).run_json.read_bytes() == before
    assert record_of(config)["runtime"]["batch"] == 4
