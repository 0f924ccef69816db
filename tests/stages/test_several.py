"""`inference.uncertainty` from the configuration to tiles and regions."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.stages.made import record_of, run_of, write_config
from wsi_pipeline.config import load_config
from wsi_pipeline.inference import PredictionStore
from wsi_pipeline.models.ensemble import Passes
from wsi_pipeline.regions import read_tiles
from wsi_pipeline.stages.predict import predict_cohort
from wsi_pipeline.stages.state import run_id_of


def test_several_predictions_make_another_run_and_reach_tiles_and_regions(
    slides: tuple[Path, Path], tmp_path: Path
) -> None:
    """The baseline says the same of a turned image: nothing but the disagreement, which is 0, is new."""
    config = write_config(tmp_path, slides[:1])
    off = load_config(config)
    predict_cohort(off)
    first = record_of(config)["run_id"]
    write_config(tmp_path, slides[:1], inference={"uncertainty": {"tta": 0, "above": 0.3}})
    assert run_id_of(load_config(config), {}) == run_id_of(off, {})
    (slide_id,) = record_of(config)["slides"]
    folder = run_of(config).slide(slide_id)
    assert not (folder.prediction / "mutual_information").exists()
    assert {tile.mutual_information for tile in read_tiles(folder.tiles)} == {None}
    before = shapes_of(folder.regions)
    write_config(tmp_path, slides[:1], inference={"uncertainty": {"tta": 4, "above": 0.0}})
    assert predict_cohort(load_config(config)).done == 1
    assert record_of(config)["run_id"] != first
    assert PredictionStore.open(folder.prediction).info.passes == Passes(tta=4, above=0.0)
    assert {tile.mutual_information for tile in read_tiles(folder.tiles)} == {0.0}
    assert shapes_of(folder.regions) == before
    values = orjson.loads(folder.regions.read_bytes())["features"][0]["properties"]["measurements"]
    assert values["Mutual information: mean"] == 0


def shapes_of(regions: Path) -> list[object]:
    return [feature["geometry"] for feature in orjson.loads(regions.read_bytes())["features"]]
