"""Collecting from real project files: what was done is found, damage is named, and nothing is written there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import shapely
from shapely import Point

from tests.handout.made import COSTS, REVIEW, annotations_of, handed_out, set_state
from tests.handout.test_handout import CLASSES, SETTINGS, Killed, edit, hashes, image_of, killed_at, region, slide
from wsi_pipeline.collect import CollectResult, collect
from wsi_pipeline.collect.images import on_the_snapshots_grid
from wsi_pipeline.config import Costs, Review
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json
from wsi_pipeline.handout import hand_out, read_plans, snapshot_of
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import EVENTS

A, B = region(200), region(700)
Objects = list[PathObject]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    hand_out(run, SETTINGS, CLASSES, [slide("s1"), slide("s2")])
    return run


def collected(run: RunDir, costs: Costs | None = None) -> CollectResult:
    return collect(run, Review(), costs or Costs(pathologist_per_hour=120))


def log(
    run: RunDir,
    *events: tuple[float, str],
    rater: str = "rater-1",
    source: str = "measured",
    name: str = "a",
    image: str = "1",
) -> None:
    """An event log of one image; times in seconds."""
    start = 1_790_000_000_000
    header = {"schema": 1, "type": "header", "seq": 0, "t": start, "rater": rater, "source": source}
    rows = [
        {"seq": i, "t": start + int(t * 1000), "type": kind, "image": image} for i, (t, kind) in enumerate(events, 1)
    ]
    path = run.project.parent / EVENTS / f"{rater}-{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [header, *rows]))


def brushed(objects: Objects) -> Objects:
    """A is brushed larger, B deleted, one region drawn."""
    drawn = PathObject("22222222-2222-4222-8222-222222222222", Kind.ANNOTATION, Point(3000, 500).buffer(60), None)
    changed = [
        replace(o, geometry=o.geometry.buffer(10), measurements={}) if o.uuid == A.uuid and o.geometry else o
        for o in objects
        if o.uuid != B.uuid
    ]
    return [*changed, drawn]


def test_the_tables_say_what_was_done_and_the_project_is_only_read(run: RunDir) -> None:
    edit(run, brushed, wsi_state="reviewed")
    before = hashes(run.project.parent)
    result = collected(run)
    assert hashes(run.project.parent) == before
    assert result.alarms == ()
    facts = result.metrics["slides"]["s1"]
    assert facts["reviewed"]
    assert facts["counts"] == {
        "untouched": 0,
        "moved": 0,
        "edited": 1,
        "reclassified": 0,
        "deleted": 1,
        "added": 1,
        "split": 0,
        "merged": 0,
    }
    assert facts["unclassified"] == 1
    areas = facts["classes"]["Tumor"]
    um2 = 0.25
    assert A.geometry is not None
    assert B.geometry is not None
    assert areas["area_before_um2"] == pytest.approx((A.geometry.area + B.geometry.area) * um2, rel=1e-4)
    assert areas["kept_um2"] == pytest.approx(A.geometry.area * um2, rel=1e-3)
    assert areas["removed_um2"] == pytest.approx(B.geometry.area * um2, rel=1e-3)
    rows = {row["change"]: row for row in pq.read_table(run.corrections).to_pylist() if row["slide_id"] == "s1"}
    assert rows["edited"]["iou"] == pytest.approx(A.geometry.area / A.geometry.buffer(10).area, rel=1e-3)
    assert rows["deleted"]["dice"] == 0
    assert {row["status"] for row in rows.values()} == {"changed"}
    kept = read_geojson(run.review / "corrected" / "s1.geojson")
    assert {o.uuid for o in kept} == {A.uuid, "22222222-2222-4222-8222-222222222222"}


def test_patients_raters_and_batches_have_figures_of_their_reviewed_slides(run: RunDir) -> None:
    edit(run, brushed, wsi_state="reviewed")
    metrics = collected(run).metrics
    groups = metrics["groups"]
    assert list(groups["rater"]) == ["rater-1"]
    assert list(groups["batch"]) == ["batch-1"]
    (patient,) = groups["patient"].values()
    tumour = groups["rater"]["rater-1"]["Tumor"]
    assert tumour == patient["Tumor"]
    # The other slide is not reviewed.
    assert tumour["slides"] == 1
    assert (
        tumour["pooled"]["dice"]
        == tumour["mean"]["dice"]["mean"]
        == metrics["slides"]["s1"]["classes"]["Tumor"]["dice"]
    )
    assert metrics["calibration"]["status"] == "not measured"


def test_what_nobody_reviewed_is_not_accepted(run: RunDir) -> None:
    edit(run, lambda objects: objects, wsi_state="in_progress")
    rows = pq.read_table((collected(run), run.corrections)[1]).to_pylist()
    assert {row["status"] for row in rows} == {"not_seen"}
    edit(run, lambda objects: objects, wsi_state="reviewed")
    rows = pq.read_table((collected(run), run.corrections)[1]).to_pylist()
    assert {row["status"] for row in rows if row["slide_id"] == "s1"} == {"accepted"}
    assert {row["status"] for row in rows if row["slide_id"] == "s2"} == {"not_seen"}


def test_collecting_twice_changes_no_byte(run: RunDir) -> None:
    edit(run, brushed, wsi_state="reviewed")
    log(run, (0, "open"), (30, "edit"), (60, "close"))
    collected(run)
    before = hashes(run.review)
    collected(run)
    assert hashes(run.review) == before


def emptied(_: Objects) -> Objects:
    return []


def emptied_and_drawn(_: Objects) -> Objects:
    return [PathObject("33333333-3333-4333-8333-333333333333", Kind.ANNOTATION, Point(9, 9).buffer(5), "Tumor")]


@pytest.mark.parametrize("loss", [emptied, emptied_and_drawn])
def test_an_image_that_lost_everything_raises_an_alarm_and_is_left_out(
    run: RunDir, loss: Callable[[Objects], Objects]
) -> None:
    edit(run, loss, wsi_state="reviewed")
    result = collected(run)
    assert "are gone" in result.alarms[0]
    assert "restore" in result.alarms[0]
    assert "s1" not in result.metrics["slides"]
    assert "s2" in result.metrics["slides"]
    assert not (run.review / "corrected" / "s1.geojson").exists()


def test_somebody_who_deletes_every_region_leaves_the_tiles_and_no_alarm(run: RunDir) -> None:
    edit(run, lambda objects: [o for o in objects if o.kind is Kind.TILE], wsi_state="reviewed")
    result = collected(run)
    assert result.alarms == ()
    assert result.metrics["slides"]["s1"]["counts"]["deleted"] == 2


def test_a_damaged_file_is_an_alarm_and_the_other_images_go_on(run: RunDir) -> None:
    _, image = image_of(run)
    path = run.project.parent / "data" / str(image.entry_id) / "data.qpdata"
    path.write_bytes(path.read_bytes()[:-40])
    result = collected(run)
    assert result.alarms[0].startswith("s1: cannot be read")
    assert set(result.metrics["slides"]) == {"s2"}
    run.project.write_text("{")
    assert len(collected(run).alarms) == 2


def test_time_is_that_of_the_rater_and_the_cost_follows_from_it(run: RunDir) -> None:
    edit(run, lambda objects: objects, wsi_state="reviewed")
    log(run, (0, "open"), (30, "heartbeat"), (60, "edit"), (500, "save"), (510, "close"))
    result = collected(run)
    time = result.metrics["time"]
    assert (time["source"], time["time_source"], time["coverage"]) == ("measured", "events", 1.0)
    assert time["active_s"] == pytest.approx(60 + 300 + 10)
    assert time["active_s_cap60"] == pytest.approx(60 + 60 + 10)
    assert result.metrics["slides"]["s1"]["active_s"] == pytest.approx(370)
    assert result.metrics["cost"]["total"] == pytest.approx(370 / 3600 * 120)
    assert result.metrics["saving"]["status"] == "not measured"


def test_without_a_log_time_and_cost_are_not_measured(run: RunDir) -> None:
    edit(run, lambda objects: objects, wsi_state="reviewed")
    metrics = collected(run).metrics
    assert metrics["time"]["status"] == "not measured"
    assert metrics["cost"]["status"] == "not measured"
    assert pq.read_table(run.time).num_rows == 0


def test_what_is_simulated_says_so_everywhere(run: RunDir) -> None:
    edit(run, lambda objects: objects, wsi_state="reviewed", source="simulated")
    log(run, (0, "open"), (60, "close"), source="simulated")
    metrics = collected(run).metrics
    assert metrics["source"] == metrics["time"]["source"] == metrics["time"]["time_source"] == "simulated"
    assert metrics["cost"]["source"] == "simulated"
    assert {r["source"] for r in pq.read_table(run.corrections).to_pylist() if r["slide_id"] == "s1"} == {"simulated"}


def test_an_image_that_nobody_opened_is_no_measurement_of_a_simulated_run(run: RunDir) -> None:
    assert {r["source"] for r in pq.read_table(collected_rows(run)).to_pylist()} == {"measured"}
    edit(run, lambda objects: objects, wsi_state="reviewed", source="simulated")
    rows = pq.read_table(collected_rows(run)).to_pylist()
    assert {r["slide_id"] for r in rows if r["reviewed"]} == {"s1"}
    assert {r["slide_id"] for r in rows} == {"s1", "s2"}
    assert {r["source"] for r in rows} == {"simulated"}


def test_what_a_person_did_in_a_simulated_run_stays_what_it_is(run: RunDir) -> None:
    edit(run, lambda objects: objects, wsi_state="reviewed", source="simulated")
    log(run, (0, "open"), (60, "close"), image="2")
    rows = pq.read_table(collected_rows(run)).to_pylist()
    assert {(r["slide_id"], r["source"]) for r in rows} == {("s1", "simulated"), ("s2", "measured")}
    assert read_json(run.metrics)["source"] == "simulated", "what is mixed never passes for measured"


def collected_rows(run: RunDir) -> Path:
    collected(run)
    return run.corrections


def test_a_simulated_log_alone_makes_its_image_simulated(run: RunDir) -> None:
    edit(run, lambda objects: objects, wsi_state="reviewed")
    log(run, (0, "open"), (60, "close"), source="simulated")
    # Somebody looked at the other image: what nobody opened would be the run's.
    log(run, (99, "open"), (160, "close"), name="b", image="2")
    metrics = collected(run).metrics
    assert metrics["source"] == "simulated"
    sources = {r["slide_id"]: r["source"] for r in pq.read_table(run.corrections).to_pylist()}
    assert sources == {"s1": "simulated", "s2": "measured"}


def test_an_interrupted_handout_is_not_taken_for_deletions(run: RunDir) -> None:
    with pytest.MonkeyPatch.context() as patch:
        killed_at("replace_run_objects", 1, patch)
        with pytest.raises(Killed):
            hand_out(run, SETTINGS, CLASSES, [slide("s1", run_id="run-2"), slide("s2")])
    result = collected(run)
    assert result.alarms == ("s1: its handout was interrupted; run `wsi-pipeline handout` again",)
    hand_out(run, SETTINGS, CLASSES, [slide("s1", run_id="run-2"), slide("s2")])
    assert collected(run).alarms == ()


def test_regions_that_nobody_can_have_deleted_leave_the_image_out(run: RunDir) -> None:
    edit(run, lambda objects: [o for o in objects if o.uuid != A.uuid])
    assert "1 of 2 regions are gone" in collected(run).alarms[0]
    log(run, (0, "open"), (30, "edit"), (60, "close"))
    assert collected(run).metrics["slides"]["s1"]["counts"]["deleted"] == 1


def test_what_nobody_touched_has_the_very_vertices_of_the_snapshot_again(tmp_path: Path) -> None:
    # On the grid of 0.01 px, as every region is.
    far = [
        replace(o, geometry=shapely.set_precision(o.geometry, 0.01))
        for o in (region(x, slide="far") for x in (90_000.37, 120_000.61))
    ]
    run = RunDir(tmp_path / "run")
    hand_out(run, SETTINGS, CLASSES, [replace(slide("far", objects=far), size=(130_000, 1000))])
    (plan,) = read_plans(run)
    handed = {o.uuid: o.geometry for o in snapshot_of(run, plan, plan.slides[0])}
    stored = image_of(run, "far")[1].read_objects()
    found = on_the_snapshots_grid(stored)
    assert [o.geometry.equals_exact(handed[o.uuid], 0.0) for o in found if o.geometry] == [True, True]
    assert [o.geometry.equals_exact(handed[o.uuid], 0.0) for o in stored if o.geometry] == [False, False]


def test_odd_logs_are_listed_with_what_was_done_about_them(run: RunDir) -> None:
    edit(run, lambda objects: objects, wsi_state="reviewed")
    log(run, (0, "open"), (40, "edit"))
    log(run, (0, "open"), (900, "edit"), rater="somebody-else")
    log(run, (100, "open"), (150, "edit"), (20, "edit"), (50, "close"), name="jump")
    events = run.project.parent / EVENTS
    (events / "rater-1-cut.jsonl").write_text('{"schema": 1, "type": "header", "rater": "rater-1"}\n{"seq": 1, "t"')
    (events / "rater-1-none.jsonl").write_text('{"seq": 1, "t": 5, "type": "open", "image": "1"}\n')
    (events / "rater-1-new.jsonl").write_text('{"schema": 9, "type": "header"}\n')
    flags = "\n".join(collected(run).metrics["flags"])
    for words in (
        "was never closed",
        "was written by somebody-else",
        "the clock jumped back by 130 s",
        "which a crash cut off",
        "has no header",
        "has schema 9",
    ):
        assert words in flags


def test_a_moved_region_is_told_from_an_edited_one_through_the_project(run: RunDir) -> None:
    from shapely.affinity import translate

    edit(
        run,
        lambda objects: [
            replace(o, geometry=translate(o.geometry, 60, 3), measurements={}) if o.uuid == A.uuid and o.geometry else o
            for o in objects
        ],
        wsi_state="reviewed",
    )
    assert collected(run).metrics["slides"]["s1"]["counts"]["moved"] == 1


def test_nothing_to_collect_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing was handed out"):
        collected(RunDir(tmp_path))


def test_the_line_for_people_tells_no_regions_before_something_is_reviewed(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    assert collect(run, REVIEW, COSTS).summary == "0 of 1 slides reviewed"
    set_state(run, "reviewed")
    assert collect(run, REVIEW, COSTS).summary == f"1 of 1 slides reviewed: {len(annotations_of(run))} untouched"


def test_the_summary_of_a_study_counts_readings() -> None:
    images = [
        {"slide_id": slide, "arm": arm}
        for slide, arm in (("a", "assisted"), ("a", "assisted"), ("b", "assisted"), ("c", "manual"))
    ]
    totals = {"slides": 3, "reviewed": 1, "counts": {"edited": 3, "added": 0}}
    result = CollectResult({"images": images, "totals": totals, "conflicts": []}, ())
    assert result.summary == "1 of 3 assisted readings of 2 slides reviewed: 3 edited"
