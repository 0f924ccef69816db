"""Flags against planted errors and against a second reading by the same person."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from shapely import Point, box

from tests.collect.test_collect import A, B
from tests.collect.test_doubt import tile
from tests.collect.test_planted import undone
from tests.handout.test_handout import CLASSES, SETTINGS, edit, region, slide
from wsi_pipeline.collect import collect
from wsi_pipeline.config import Costs, Planting, Review
from wsi_pipeline.files import write_json
from wsi_pipeline.handout import hand_out
from wsi_pipeline.handout.planted import PlantedObjects
from wsi_pipeline.handout.write import Part
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.regions import ReviewTile, write_tiles
from wsi_pipeline.report.export import metrics_schema
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import META_STATE

TRUE, OTHER = region(1400), region(200)
RUN_ID = slide("s1").run_id


def tiles_of(run: RunDir, tiles: list[ReviewTile]) -> None:
    folder = run.slide("s1")
    folder.tiles.parent.mkdir(parents=True, exist_ok=True)
    write_tiles(folder.tiles, tiles)
    write_json(folder.summary, {"run_id": RUN_ID})


def metrics_of(run: RunDir) -> dict[str, Any]:
    metrics: dict[str, Any] = collect(run, Review(), Costs()).metrics
    jsonschema.Draft202012Validator(json.loads(metrics_schema())).validate(metrics)
    return metrics


def planted(tmp_path: Path, kind: Planting, flagged: set[int], *, found: bool) -> dict[str, Any]:
    """One slide of tiles of 512 px in a row; the error is at x = 1400, flagged are these tiles."""
    wrong = replace(TRUE, uuid="55555555-5555-4555-8555-555555555555", roi=None)
    shape = box(*Point(1500, 600).buffer(40).bounds)
    errors = {
        "missing": PlantedObjects("missing", TRUE, None),
        "fake": PlantedObjects("fake", None, replace(wrong, geometry=shape)),
        "class": PlantedObjects("class", TRUE, replace(wrong, path_class="Stroma")),
        "boundary": PlantedObjects("boundary", TRUE, replace(wrong, geometry=shape)),
    }
    error = errors[kind]
    run = RunDir(tmp_path / "run")
    shown = [OTHER, *([] if error.planted is None else [error.planted])]
    hand_out(run, SETTINGS, CLASSES, [replace(slide("s1", objects=shown), planted=error)])
    tiles_of(run, [tile(512 * i, i + 1, flagged=i in flagged) for i in range(8)])
    edit(run, undone(error) if found else list, wsi_state="reviewed")
    result: dict[str, Any] = metrics_of(run)["planted"]["flags"]
    return result


def places() -> set[int]:
    """Tiles that the region at x = 1400 reaches."""
    assert TRUE.geometry is not None
    left, _, right, _ = TRUE.geometry.bounds
    return set(range(int(left // 512), int(right // 512) + 1))


@pytest.mark.parametrize("kind", ["missing", "class"])
@pytest.mark.parametrize("found", [True, False])
def test_a_flag_lies_on_the_place_of_a_planted_error_or_does_not(tmp_path: Path, kind: Planting, found: bool) -> None:
    there = planted(tmp_path / "there", kind, places(), found=found)
    assert there["reference"] == "planted errors"
    assert TRUE.geometry is not None
    assert there["flags"]["changed_um2"] == pytest.approx(TRUE.geometry.area * 0.25, rel=0.01)
    assert (there["flags"]["recall"], there["flags"]["precision"], there["flags"]["area_recall"]) == (1, 1, 1)
    assert (there["caught_where_flagged"]["planted"], there["caught_where_flagged"]["caught"]) == (1, int(found))
    assert there["caught_elsewhere"] == {"planted": 0, "caught": 0, "share": None, "share_ci95": None}
    elsewhere = planted(tmp_path / "elsewhere", kind, {7}, found=found)
    assert (elsewhere["flags"]["recall"], elsewhere["flags"]["precision"]) == (0, 0)
    assert elsewhere["caught_elsewhere"]["share"] == int(found)
    # Clopper and Pearson's interval of one case of one: 0.025 on the other side.
    assert elsewhere["caught_elsewhere"]["share_ci95"] == pytest.approx([0.025, 1] if found else [0, 0.975])


@pytest.mark.parametrize("kind", ["fake", "boundary"])
def test_only_what_is_wrong_about_it_is_the_place_of_an_error(tmp_path: Path, kind: Planting) -> None:
    found = planted(tmp_path, kind, set(), found=False)["flags"]
    fake = 80.0 * 80
    assert TRUE.geometry is not None
    square = box(*Point(1500, 600).buffer(40).bounds)
    wanted = fake if kind == "fake" else TRUE.geometry.symmetric_difference(square).area
    assert found["changed_um2"] == pytest.approx(wanted * 0.25, rel=0.01)


def test_without_review_tiles_planted_errors_say_nothing_of_flags(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    error = PlantedObjects("missing", TRUE, None)
    hand_out(run, SETTINGS, CLASSES, [replace(slide("s1", objects=[OTHER]), planted=error)])
    edit(run, list, wsi_state="reviewed")
    found = metrics_of(run)["planted"]
    assert found["planted"] == 1
    assert found["flags"]["status"] == "not measured"


def read_again(tmp_path: Path, second: list[PathObject], *, rater: str = "anna", state: str = "reviewed") -> Any:
    """Regions A and B, left alone at the first reading; what the rater left at the second one."""
    run = RunDir(tmp_path / "run")
    shown = slide("s1", objects=[A, B])
    parts = [
        Part("batch-1", "anna", "projects/batch-1-anna/project.qpproj"),
        Part("batch-2", rater, f"projects/batch-2-{rater}/project.qpproj"),
    ]
    for part, given, left in zip(parts, (shown, replace(shown, repeat=True)), ([A, B], second), strict=True):
        hand_out(run, SETTINGS, CLASSES, [given], part)
        project = NativeProject.open(run.root / part.project)
        (image,) = project.images()
        project.save_objects(image, left)
        project.set_metadata(image, {META_STATE: state})
        project.save()
    tiles_of(run, [tile(0, 1, flagged=True), tile(2048, 2), tile(6000, 3)])
    return metrics_of(run)["repeats"]


def test_where_two_readings_of_one_person_differ_flags_are_held_against_it(tmp_path: Path) -> None:
    # At the second reading A is gone, and something is drawn where no tile is flagged.
    new = PathObject("66666666-6666-4666-8666-666666666666", Kind.ANNOTATION, Point(6200, 500).buffer(100), "Tumor")
    found = read_again(tmp_path, [B, new])
    assert found["reference"] == "the same reader's second reading"
    flags = found["flags"]
    assert A.geometry is not None
    assert new.geometry is not None
    assert flags["changed_um2"] == pytest.approx((A.geometry.area + new.geometry.area) * 0.25, rel=0.01)
    assert (flags["tiles"], flags["flagged"], flags["changed"], flags["recall"]) == (3, 1, 2, 0.5)


def test_two_readings_that_agree_differ_nowhere(tmp_path: Path) -> None:
    assert read_again(tmp_path, [A, B])["flags"]["changed_um2"] == 0


@pytest.mark.parametrize("how", [{"rater": "ben"}, {"state": "in_progress"}])
def test_two_people_or_an_unfinished_reading_are_no_repeat(tmp_path: Path, how: dict[str, str]) -> None:
    assert read_again(tmp_path, [A], **how)["status"] == "not measured"
