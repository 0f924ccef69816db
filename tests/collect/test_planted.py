"""What was planted is told apart from what the model did wrong; the rest of an image counts as ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from shapely import Point

from tests.handout.test_handout import CLASSES, SETTINGS, edit, region, slide
from wsi_pipeline.collect import collect
from wsi_pipeline.collect.planted import planted_figures
from wsi_pipeline.config import Costs, Planting, Review
from wsi_pipeline.handout import hand_out
from wsi_pipeline.handout.planted import PlantedObjects, plant
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.rundir import RunDir

REGIONS = [region(200), region(1400), region(2600)]
Act = Callable[[list[PathObject]], list[PathObject]]


def handed_out(tmp_path: Path, kind: Planting) -> tuple[RunDir, PlantedObjects]:
    objects, error = plant(
        REGIONS, kind, seed="1", run_id="r", slide_id="s1", size=(40_000, 40_000), classes=["Tumor", "Stroma"]
    )
    assert error is not None
    run = RunDir(tmp_path / "run")
    given = replace(slide("s1", objects=objects), planted=error)
    hand_out(run, SETTINGS, CLASSES, [given])
    return run, error


def undone(error: PlantedObjects) -> Act:
    """The person finds the planted error and puts it right: drawn anew where there was nothing, else by hand."""

    def act(objects: list[PathObject]) -> list[PathObject]:
        wrong = error.planted.uuid if error.planted else None
        rest = [o for o in objects if o.uuid != wrong]
        if error.true is None:
            return rest
        uuid = wrong or "33333333-3333-4333-8333-333333333333"
        return [*rest, replace(error.true, uuid=uuid, measurements={}, roi=None)]

    return act


@pytest.mark.parametrize("kind", ["missing", "fake", "boundary", "class"])
@pytest.mark.parametrize("found", [False, True])
def test_no_figure_of_the_model_knows_of_a_planted_error(tmp_path: Path, kind: Planting, found: bool) -> None:
    run, error = handed_out(tmp_path, kind)
    edit(run, undone(error) if found else list, wsi_state="reviewed")
    metrics = collect(run, Review(), Costs()).metrics
    assert metrics["planted"].pop("flags")["status"] == "not measured"
    assert metrics["planted"] == {
        "source": "measured",
        "planted": 1,
        "caught": int(found),
        "kinds": {kind: {"planted": 1, "caught": int(found)}},
    }
    counts = {change: n for change, n in metrics["totals"]["counts"].items() if n}
    assert counts == {"untouched": 3 if kind == "fake" else 2}
    assert all(figures["dice"] == 1.0 for figures in metrics["totals"]["classes"].values())


def test_what_else_was_corrected_on_the_image_counts_and_the_rows_hold_everything(tmp_path: Path) -> None:
    run, error = handed_out(tmp_path, "fake")
    mine = PathObject("22222222-2222-4222-8222-222222222222", Kind.ANNOTATION, Point(3000, 3500).buffer(60), "Tumor")
    edit(run, lambda objects: [*undone(error)(objects)[1:], mine], wsi_state="reviewed")
    metrics = collect(run, Review(), Costs()).metrics
    counts = {change: n for change, n in metrics["totals"]["counts"].items() if n}
    assert counts == {"untouched": 2, "deleted": 1, "added": 1}
    rows = pq.read_table(run.corrections).to_pylist()
    assert sorted(row["change"] for row in rows) == ["added", "deleted", "deleted", "untouched", "untouched"]
    assert [row["planted"] for row in rows if row["planted"]] == ["fake"]


def test_an_image_that_is_not_reviewed_yet_tells_nothing_of_its_error(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path, "boundary")
    assert collect(run, Review(), Costs()).metrics["planted"]["status"] == "not measured"


def test_errors_are_added_up_by_kind() -> None:
    facts = [{"planted": None}] + [
        {"planted": {"kind": kind, "caught": caught}}
        for kind, caught in (("fake", True), ("class", False), ("fake", False))
    ]
    assert planted_figures(facts) == {
        "planted": 3,
        "caught": 1,
        "kinds": {"class": {"planted": 1, "caught": 0}, "fake": {"planted": 2, "caught": 1}},
    }
