"""Flags against a reader who saw nothing of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shapely import Point

from tests.collect.test_collect import A
from tests.collect.test_doubt import tile
from tests.handout.test_handout import CLASSES, SETTINGS, slide
from wsi_pipeline.collect import collect
from wsi_pipeline.config import Costs, Review
from wsi_pipeline.files import write_json
from wsi_pipeline.handout import hand_out
from wsi_pipeline.handout.write import Part
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.regions import write_tiles
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import META_STATE


def metrics_of(tmp_path: Path, *, drawn: list[PathObject], reviewed: bool = True, tiles: bool = True) -> Any:
    """One slide in both arms: region A predicted, `drawn` in the manual arm; the first of two tiles is flagged."""
    run = RunDir(tmp_path / "run")
    shown = slide("s1", objects=[A])
    hand_out(run, SETTINGS, CLASSES, [shown])
    part = Part("batch-2", "ben", "projects/batch-2-ben/project.qpproj")
    hand_out(run, SETTINGS, CLASSES, [replace(shown, arm="manual", objects=[])], part)
    path = run.root / part.project
    project = NativeProject.open(path)
    (image,) = project.images()
    project.save_objects(image, drawn)
    project.set_metadata(image, {META_STATE: "reviewed" if reviewed else "todo"})
    project.save()
    if tiles:
        folder = run.slide("s1")
        folder.tiles.parent.mkdir(parents=True, exist_ok=True)
        first = replace(tile(0, 1, flagged=True), structure_distance=1.4)
        write_tiles(folder.tiles, [first, replace(tile(2048, 2), structure_distance=0.8)])
        write_json(folder.summary, {"run_id": shown.run_id})
    return collect(run, Review(), Costs()).metrics["second_read"]


def annotation(x: float) -> PathObject:
    return PathObject("44444444-4444-4444-8444-444444444444", Kind.ANNOTATION, Point(x, 500).buffer(100), "Tumor")


def test_a_flag_is_right_where_a_blind_reader_saw_something_else(tmp_path: Path) -> None:
    # The reader does not draw A, which lies in the flagged tile, and nothing else.
    found = metrics_of(tmp_path, drawn=[annotation(6000)])
    assert found["reference"] == "blind second read"
    assert found["source"] == "measured"
    flags = found["flags"]
    assert (flags["tiles"], flags["slides"], flags["flagged"], flags["changed"]) == (2, 1, 1, 1)
    unlike = found["out_of_distribution"]
    assert unlike["appearance"]["status"] == "not measured"
    assert (unlike["structure"]["flagged"], unlike["structure"]["precision"]) == (1, 1.0)
    assert (unlike["structure"]["familiar_changed"], unlike["structure"]["reference"]) == (0.0, "blind second read")
    assert A.geometry is not None
    assert flags["changed_um2"] == pytest.approx(A.geometry.area * 0.5**2, rel=0.01)


def test_the_same_region_drawn_by_another_hand_is_no_difference(tmp_path: Path) -> None:
    found = metrics_of(tmp_path, drawn=[replace(annotation(0), geometry=A.geometry)])
    assert found["flags"]["changed"] == 0


@pytest.mark.parametrize("missing", ["reviewed", "tiles"])
def test_without_a_finished_reading_or_tiles_nothing_is_measured(tmp_path: Path, missing: str) -> None:
    assert metrics_of(tmp_path, drawn=[annotation(0)], **{missing: False})["status"] == "not measured"
