"""Quality of both arms and of the suggestions alone, against a reader who saw nothing of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shapely import box
from shapely.geometry.base import BaseGeometry

from tests.handout.test_handout import CLASSES, SETTINGS, slide
from wsi_pipeline.collect import collect
from wsi_pipeline.config import Costs, Review
from wsi_pipeline.handout import hand_out
from wsi_pipeline.handout.write import Part
from wsi_pipeline.objects import META_RUN, Kind, PathObject, object_uuid
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import EVENTS, META_STATE

# What there is: two regions of 200 x 200 px. The model shows the first one whole, and of the second the left half.
FIRST, SECOND = box(100, 100, 300, 300), box(600, 100, 800, 300)
HALF = box(600, 100, 700, 300)
Answers = Mapping[tuple[str, str], Sequence[BaseGeometry]]


def region(shape: BaseGeometry, name: str = "Tumor", maker: str = "run-1") -> PathObject:
    uuid = object_uuid(maker, "s1", name, shape)
    return PathObject(uuid, Kind.ANNOTATION, shape, name, metadata={META_RUN: "run-1"} if maker == "run-1" else {})


SUGGESTED = [region(FIRST), region(HALF)]
# Positions by rater: ben draws first and sees suggestions later, anna the other way round.
POSITIONS = {("anna", "assisted"): 1, ("anna", "manual"): 2, ("ben", "manual"): 1, ("ben", "assisted"): 2}


def metrics_of(root: Path, answers: Answers, *, slides: Sequence[str] = ("s1",), **states: str) -> Any:
    """Each answer becomes a batch of its own, with every slide; shapes equal to a suggestion keep its uuid."""
    run = RunDir(root / "run")
    for (rater, arm), shapes in answers.items():
        objects = SUGGESTED if arm == "assisted" else []
        part = Part(f"batch-{arm}", rater, f"projects/batch-{arm}-{rater}/project.qpproj")
        position = POSITIONS[rater, arm]
        given = [replace(slide(s, objects=objects), arm=arm, position=position) for s in slides]
        hand_out(run, SETTINGS, CLASSES, given, part)
        project = NativeProject.open(run.root / part.project)
        uuids = {o.geometry.wkb: o for o in SUGGESTED if arm == "assisted" and o.geometry is not None}
        drawn = [uuids.get(shape.wkb, region(shape, maker=rater)) for shape in shapes]
        events = project.path.parent / EVENTS / f"{rater}-1.jsonl"
        lines: list[dict[str, Any]] = [{"schema": 1, "type": "header", "rater": rater}]
        for image in project.images():
            project.save_objects(image, drawn)
            project.set_metadata(image, {META_STATE: states.get(f"{rater}_{arm}", "reviewed")})
            start = 1_790_000_000_000 + 1_000_000 * image.entry_id
            gone = [o.uuid for o in objects if o.uuid not in {d.uuid for d in drawn}]
            made = [o.uuid for o in drawn if o.uuid not in {d.uuid for d in objects}]
            acts = [("open", None), *(("delete", u) for u in gone), *(("edit", u) for u in made), ("close", None)]
            for number, (kind, uuid) in enumerate(acts):
                line = {"seq": len(lines), "t": start + 10_000 * number, "type": kind, "image": str(image.entry_id)}
                lines.append(line | ({} if uuid is None else {"object": uuid}))
        events.write_text("".join(json.dumps(line) + "\n" for line in lines))
        project.save()
    return collect(run, Review(), Costs()).metrics


FULL: Answers = {
    ("ben", "manual"): (FIRST, SECOND),
    ("anna", "assisted"): (FIRST, SECOND),
    ("anna", "manual"): (FIRST,),
}


def test_scores_of_both_arms_and_of_the_suggestions_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    found = metrics_of(tmp_path, FULL)["quality"]
    assert found["assisted"] == pytest.approx(1)
    # One region of two: 2 · 40 000 / (40 000 + 80 000); the suggestions have half of the second one as well.
    assert found["manual"] == pytest.approx(2 / 3)
    assert found["suggestions"] == pytest.approx(2 * 60_000 / 140_000)
    assert found["gain"] == pytest.approx(1 / 3)
    assert found["gain_ci95"] is None, "one slide says nothing of others"
    # Both suggestions are right (the second with an IoU of exactly 0.5), and both still are in the answer.
    assert (found["right"], found["harmed"]) == (2, 0)
    assert (found["slides"], found["raters"], found["comparisons"]) == (1, 2, 1)
    assert found["to_prediction"]["assisted"] == pytest.approx(2 * 60_000 / 140_000)
    assert found["to_prediction"]["manual"] == pytest.approx(2 * 40_000 / 100_000)
    assert found["source"] == "measured"
    assert "the untouched suggestions score 0.857" in found["words"]
    assert "0 of 2 right suggestions" in found["words"]


def test_a_right_suggestion_that_was_taken_away_is_harm(tmp_path: Path) -> None:
    found = metrics_of(tmp_path, {**FULL, ("anna", "assisted"): (SECOND,)})["quality"]
    assert (found["right"], found["harmed"], found["harm_rate"]) == (2, 1, 0.5)


def test_a_reader_who_saw_the_suggestions_first_is_no_blind_reference(tmp_path: Path) -> None:
    # Ben would be judged by anna's drawing, which she made after she had seen the suggestions.
    both = {**FULL, ("ben", "assisted"): (FIRST,)}
    found = metrics_of(tmp_path, both)["quality"]
    assert found["comparisons"] == 1
    assert found["assisted"] == pytest.approx(1), "only anna is judged, by ben"


@pytest.mark.parametrize("missing", [("ben", "manual"), ("anna", "assisted"), ("anna", "manual")])
def test_without_one_of_the_three_readings_no_quality_is_claimed(tmp_path: Path, missing: tuple[str, str]) -> None:
    answers = {key: value for key, value in FULL.items() if key != missing}
    found = metrics_of(tmp_path, answers)["quality"]
    assert found["status"] == "not measured"
    assert "gain" not in found


def test_a_reading_that_is_not_finished_takes_no_part(tmp_path: Path) -> None:
    found = metrics_of(tmp_path, FULL, ben_manual="in_progress")["quality"]
    assert found["status"] == "not measured"


def test_where_no_suggestion_was_right_harm_cannot_be_told_and_nothing_is_claimed(tmp_path: Path) -> None:
    far = box(3000, 100, 3200, 300)
    found = metrics_of(tmp_path, {**FULL, ("ben", "manual"): (far,)})["quality"]
    assert found["status"] == "not measured"
    assert "harm" in found["reason"]


def test_with_five_slides_the_gain_has_an_interval_over_them(tmp_path: Path) -> None:
    found = metrics_of(tmp_path, FULL, slides=[f"s{i}" for i in range(5)])["quality"]
    assert found["slides"] == 5
    low, high = found["gain_ci95"]
    # All slides are alike.
    assert low == pytest.approx(1 / 3)
    assert high == pytest.approx(1 / 3)


def test_time_is_shared_out_to_regions_by_what_was_done_to_them(tmp_path: Path) -> None:
    found = metrics_of(tmp_path, FULL)["time"]["regions"]
    # Ten seconds end with each act; those before the closing are nobody's.
    assert found["active_s"] == pytest.approx(30 + 30 + 20)
    assert found["no_region_s"] == pytest.approx(30)
    by_change = found["by_change"]
    assert by_change["added"]["regions"] == 3
    assert by_change["added"]["median_s"] == pytest.approx(10)
    assert found["images"] == 3
    assert sum(kind["active_s"] for kind in by_change.values()) + 30 == pytest.approx(found["active_s"])
