"""Training on corrections: held-out patients calibrate; and what the model has seen tells what is strange."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from tests.learning.made import annotation, write_slide
from tests.stages.made import run_of, write_config
from wsi_pipeline.cohort import load_cohort
from wsi_pipeline.config import Config, load_config
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.models import load_card
from wsi_pipeline.qupath import write_geojson
from wsi_pipeline.spent import TRAIN, read_spent
from wsi_pipeline.stages.collect import calibration_of
from wsi_pipeline.stages.learn import corrected_slides, learned_model, train_on_corrections
from wsi_pipeline.stages.predict import predict_cohort


def reviewed_run(folder: Path, slides: int, held_out: list[str]) -> Config:
    """A configuration whose slides are all reviewed, with their discs as the corrected annotations."""
    paths = [folder / f"slide{n}.tif" for n in range(slides)]
    discs = {path.name: write_slide(path, seed=n) for n, path in enumerate(paths)}
    learning = {"steps": 2, "tiles_per_slide": 9, "mpp": 0.5, "held_out": held_out}
    path = write_config(folder, paths, model="baseline:stain-density?mpp=0.5", learning=learning)
    config, run = load_config(path), run_of(path)
    facts = {}
    for ref in load_cohort(config).slides:
        write_geojson(
            run.review / "corrected" / f"{ref.slide_id}.geojson",
            [annotation("Haematoxylin-dense", discs[ref.name])],
            {"Haematoxylin-dense": (1, 2, 3)},
        )
        facts[ref.slide_id] = {"reviewed": True}
    write_json(run.metrics, {"source": "measured", "slides": facts})
    return config


def test_a_slide_with_a_planted_error_is_no_lesson_even_when_it_was_found(tmp_path: Path) -> None:
    config = reviewed_run(tmp_path, 3, [])
    ids = sorted(ref.slide_id for ref in load_cohort(config).slides)
    config = reviewed_run(tmp_path, 3, ids[2:])
    run = run_of(tmp_path / "wsi.yaml")
    metrics = read_json(run.metrics)
    metrics["slides"][ids[0]]["planted"] = {"kind": "fake", "caught": True}
    metrics["slides"][ids[1]]["planted"] = None
    write_json(run.metrics, metrics)
    split = corrected_slides(config)
    assert [slide.ref.slide_id for slide in split.train] == [ids[1]]
    assert [slide.ref.slide_id for slide in split.held_out] == [ids[2]]


def test_reviewed_slides_whose_files_are_gone_are_named_and_not_called_unreviewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = reviewed_run(tmp_path, 3, [])
    first, second, _ = (ref.slide_id for ref in load_cohort(config).slides)
    (tmp_path / "slide0.tif").unlink()
    split = corrected_slides(config)
    assert split.missing == (first,)
    assert f"{first} was reviewed and is left out" in caplog.text
    assert second not in caplog.text
    for number in (1, 2):
        (tmp_path / f"slide{number}.tif").unlink()
    with pytest.raises(ConfigError, match="3 reviewed slides are missing: `wsi-pipeline slides` says where"):
        train_on_corrections(config)


@pytest.mark.slow
def test_held_out_patients_give_the_temperature_and_strange_tiles_are_found(tmp_path: Path) -> None:
    ids = [ref.slide_id for ref in load_cohort(reviewed_run(tmp_path, 4, [])).slides]
    config = reviewed_run(tmp_path, 4, ids[2:])
    split = corrected_slides(config)
    assert (len(split.train), len(split.held_out)) == (2, 2)
    card = train_on_corrections(config)
    assert card.trained_on.figures["calibration_groups"] == 2
    assert "held-out patients" in card.notes
    assert set(card.trained_on.slides) == {slide.ref.slide_id for slide in split.train}
    assert card.appearance is not None
    assert card.structure is not None
    assert card.structure.slides == 2
    (trained,) = (s for s in read_spent(run_of(tmp_path / "wsi.yaml").compute_log) if s.stage == TRAIN)
    assert trained.wall_s > 0
    folder = learned_model(run_of(tmp_path / "wsi.yaml"), config.learning.name)
    assert load_card(folder) == card
    # A slide in another colour, predicted with the new model.
    brown = np.full((1000, 1000, 3), 255, np.uint8)
    brown[125:875, 125:875] = (150, 110, 40)
    tifffile.imwrite(
        tmp_path / "brown.tif", brown, tile=(128, 128), photometric="rgb", compression="deflate",
        resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    other = tmp_path / "other"
    again = load_config(
        write_config(
            other, [tmp_path / "brown.tif", tmp_path / "slide0.tif"], model=str(folder), review={"tile_um": 128}
        )
    )
    calibration = calibration_of(again)
    assert calibration is not None
    assert calibration["cross_fitted"] is True
    assert (calibration["slides"], calibration["groups"], calibration["source"]) == (2, 2, "measured")
    assert [c["name"] for c in calibration["classes"]] == ["Background", "Haematoxylin-dense"]
    assert predict_cohort(again).done == 2
    values = {}
    for ref in load_cohort(again).slides:
        table = pq.read_table(run_of(other / "wsi.yaml").slide(ref.slide_id).tiles)
        column = table["out_of_distribution"]
        values[ref.name] = [v for v in column.to_pylist() if v is not None]
        # The new model has statistics of its own features, and each tile that has a look has a distance of those, too.
        structure = table["structure_distance"].to_pylist()
        assert [v is None for v in structure] == [v is None for v in column.to_pylist()]
        flags = [None if v is None else v > 1 for v in structure]
        assert table["strange_structure"].to_pylist() == flags
    assert min(values["brown.tif"]) > 1
    assert np.median(values["slide0.tif"]) <= 1
    queue = run_of(other / "wsi.yaml").queue.read_text()
    assert "unlike the training slides in colour" in queue or "unlike the training slides in contrast" in queue


def test_a_baseline_has_no_calibration(tmp_path: Path) -> None:
    assert calibration_of(load_config(write_config(tmp_path, ["a.svs"]))) is None
    assert calibration_of(load_config(write_config(tmp_path, ["a.svs"], model="nowhere"))) is None
