"""From a model with statistics of its features to tiles, regions and the queue; and without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.models.nets import contrasty_unet, tumor_card
from tests.stages.made import files_of, run_of, small_slide, write_config
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import load_config
from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.models import load_card
from wsi_pipeline.models.appearance import WINDOW, features_of
from wsi_pipeline.models.encoder import TorchEncoder
from wsi_pipeline.models.gauge import features_by, open_gauge
from wsi_pipeline.models.structure import STRUCTURE_NAME, FeatureStatistics, fit_structure, write_structure
from wsi_pipeline.models.unet import save_model
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.regions import read_tiles
from wsi_pipeline.regions.strange import MEASUREMENT, STRUCTURE
from wsi_pipeline.slides import open_slide
from wsi_pipeline.stages.predict import predict_cohort
from wsi_pipeline.tiling import Bounds

REVIEW = {"tile_um": 100, "max_tiles": 4}
INFERENCE = {"block": 512, "window": 256}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_slide(tmp_path_factory.mktemp("slide") / "one.tif", mpp=0.5)


def windows(slide: Path) -> list[NDArray[np.uint8]]:
    with open_slide(SlideRef("one", str(slide), slide.name)) as opened:
        found = [
            opened.read(Bounds(x, y, x + WINDOW, y + WINDOW), 1.0) for y in range(0, 700, 64) for x in range(0, 800, 64)
        ]
    return [window for window in found if features_of(window) is not None]


def model(folder: Path, slide: Path, *, tighter: float = 1.0) -> Path:
    """A random network with the statistics of this slide; `tighter` than these, parts of it become strange."""
    net = contrasty_unet(seed=1)
    features = features_by(TorchEncoder(net), windows(slide))
    found = fit_structure(features, np.arange(len(features)) % 4)
    assert found is not None
    statistics = FeatureStatistics(
        mean=found.mean,
        whitening=found.whitening,
        threshold=found.threshold / tighter,
        windows=found.windows,
        slides=found.slides,
        left_out=found.left_out,
        shrinkage=found.shrinkage,
    )
    save_model(folder, net, tumor_card(structure=write_structure(folder, statistics)))
    return folder


def predicted(folder: Path, slide: Path, path: Path, runtime: str = "torch") -> Path:
    config = write_config(
        folder, [slide], model={"path": str(path), "runtime": runtime}, review=REVIEW, inference=INFERENCE
    )
    outcome = predict_cohort(load_config(config))
    assert (outcome.done, outcome.failed) == (1, 0)
    return config


def folder_of(config: Path) -> Path:
    (folder,) = (run_of(config).root / "slides").iterdir()
    return folder


def test_each_tile_says_how_far_its_middle_lies_from_the_training_slides(tmp_path: Path, slide: Path) -> None:
    path = model(tmp_path / "model", slide, tighter=2.5)
    config = predicted(tmp_path, slide, path)
    tiles = read_tiles(folder_of(config) / "tiles.parquet")
    gauge = open_gauge(load_card(path), str(path), runtime="torch", device="cpu")
    assert gauge is not None
    known = 0
    with open_slide(SlideRef("one", str(slide), slide.name)) as opened:
        for t in tiles:
            x, y = t.x + 100 - WINDOW // 2, t.y + 100 - WINDOW // 2
            window = opened.read(Bounds(x, y, x + WINDOW, y + WINDOW), 1.0)
            assert (t.structure_distance is None) == (features_of(window) is None)
            if t.structure_distance is not None:
                known += 1
                assert t.structure_distance == pytest.approx(float(gauge.strangeness([window])[0]), rel=1e-4)
            # The card says nothing of colours.
            assert (t.out_of_distribution, t.strange_appearance) == (None, None)
    assert known >= 5
    strange = [t for t in tiles if t.strange_structure]
    assert strange
    assert all(t.reason == "unlike the training slides in structure" for t in strange)
    assert any(t.flagged for t in strange)
    assert "unlike the training slides in structure" in run_of(config).queue.read_text()
    regions = read_geojson(folder_of(config) / "regions.geojson")
    assert any(STRUCTURE in r.measurements for r in regions)
    assert not any(MEASUREMENT in r.measurements for r in regions)


@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_the_maps_are_the_same_with_and_without_and_a_second_run_gives_the_same_bytes(
    tmp_path: Path, slide: Path, runtime: str
) -> None:
    path = model(tmp_path / "model", slide)
    with_it = predicted(tmp_path / "a", slide, path, runtime)
    again = predicted(tmp_path / "b", slide, path, runtime)
    tables = [(folder_of(config) / "tiles.parquet").read_bytes() for config in (with_it, again)]
    assert tables[0] == tables[1]
    card = read_json(path / "card.json")
    del card["structure"]
    write_json(path / "card.json", card)
    without = predicted(tmp_path / "c", slide, path, runtime)
    maps = [
        {
            name.partition("prediction.zarr/")[2]: data
            for name, data in files_of(run_of(config), below="slides").items()
            if "prediction.zarr/" in name and not name.endswith(".json")
        }
        for config in (with_it, without)
    ]
    assert maps[0]
    assert maps[0] == maps[1]
    table = pq.read_table(folder_of(without) / "tiles.parquet")
    for name in ("structure_distance", "strange_structure", "out_of_distribution", "strange_appearance"):
        assert table[name].null_count == len(table)


def test_statistics_that_cannot_be_used_are_told_before_anything_is_computed(tmp_path: Path, slide: Path) -> None:
    path = model(tmp_path / "model", slide)
    (path / STRUCTURE_NAME).write_bytes(b"half")
    with pytest.raises(ModelError, match=f"{STRUCTURE_NAME}.*copy both anew") as error:
        predicted(tmp_path, slide, path)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run" / "slides").glob("*/prediction.zarr"))
