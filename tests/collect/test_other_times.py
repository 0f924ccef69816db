"""Times from other programs' files, through real projects: the event log wins, the rest fills and is labelled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest

from tests.collect.test_collect import collected, log
from tests.handout.test_handout import CLASSES, SETTINGS, edit, hashes, slide
from tests.measures.test_time_sources import BOX, NEW, THIRD
from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.other_times import best, other_times
from wsi_pipeline.collect.time_figures import time_figures
from wsi_pipeline.collect.times import ImageTime, reported
from wsi_pipeline.config import Review
from wsi_pipeline.handout import hand_out, read_plans
from wsi_pipeline.measures.time import TimeSource
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.report.export import metrics_schema
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import ImageState, Source

RATER = "rater-1"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    hand_out(run, SETTINGS, CLASSES, [slide("s1"), slide("s2")])
    edit(run, lambda objects: objects, wsi_state="reviewed")
    return run


def put(run: RunDir, name: str, text: str) -> None:
    path = run.project.parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def entry(run: RunDir, name: str) -> int | None:
    (plan,) = read_plans(run)
    found = plan.slide(name)
    assert found is not None
    return found.entry_id


def recording(run: RunDir, name: str, seconds: int, file: str = "Recording 1.tsv") -> None:
    lines = [NEW, *(f"{1000 * t}\t0\t0\t1\t1\t1\t1\t1.0\t0.0\t-1\t-1\tMove" for t in range(0, seconds + 1, 10))]
    put(run, f"data/{entry(run, name)}/recordings/{file}", "\n".join(lines))


def rows(run: RunDir) -> dict[str, dict[str, Any]]:
    return {row["slide_id"]: row for row in pq.read_table(run.time).to_pylist()}


def times(run: RunDir) -> tuple[dict[str, tuple[str, float]], list[str]]:
    """Source and seconds by slide, and what was odd."""
    (plan,) = read_plans(run)
    found, problems = other_times(run, plan, Review())
    return {t.slide_id: (t.time_source, t.active_s) for t in found}, problems


def checked(metrics: dict[str, Any]) -> dict[str, Any]:
    """The part on time, after the whole was held against the published schema."""
    jsonschema.Draft202012Validator(json.loads(metrics_schema())).validate(metrics)
    part: dict[str, Any] = metrics["time"]
    return part


def test_a_recording_of_the_view_tracker_is_found_in_the_project(run: RunDir) -> None:
    recording(run, "s1", 60)
    recording(run, "s1", 30, "Recording 2.tsv")
    before = hashes(run.project.parent)
    time = checked(collected(run).metrics)
    assert hashes(run.project.parent) == before
    assert (time["time_source"], time["active_s"], time["log_coverage"]) == ("view_tracker", 90, 0)
    assert time["other_rules"] == [rows(run)["s1"]["rule"]]
    assert time["other_rules"][0].startswith("views_cap300, version 1: view")


def test_where_there_are_events_they_win(run: RunDir) -> None:
    recording(run, "s1", 600)
    log(run, (0, "open"), (20, "edit"), (50, "close"))
    time = checked(collected(run).metrics)
    assert (time["time_source"], time["active_s"]) == ("events", 50)
    assert time["by_source"] == {"events": {"slides": 1, "active_s": 50}}


def test_reports_fill_what_nothing_else_measured_and_say_so(run: RunDir) -> None:
    recording(run, "s1", 60)
    put(run, "times/may.csv", f"rater,slide,minutes\n{RATER},s1,9\n{RATER},s2.tif,4\n{RATER},S2,1\n")
    checked(collected(run).metrics)
    assert {s: (r["time_source"], r["active_s"]) for s, r in rows(run).items()} == {
        "s1": ("view_tracker", 60),
        "s2": ("self_report", 300),
    }
    assert (rows(run)["s2"]["cap_s"], rows(run)["s2"]["active_s_cap60"], rows(run)["s2"]["visits"]) == (None, 300, 2)


def test_reports_of_others_of_unknown_slides_and_of_another_arm_are_left_out_and_told(run: RunDir) -> None:
    text = f"rater,slide,arm,minutes\nben,s1,,9\n{RATER},s9,,9\n{RATER},s1,manual,9\n{RATER},s2,assisted,2\n"
    put(run, "times/may.csv", text)
    found, problems = times(run)
    assert found == {"s2": ("self_report", 120)}
    assert [p.split(";")[0] for p in problems] == [
        "times/may.csv: ben is no rater of this batch",
        "times/may.csv: s9 is no slide of this batch",
        "times/may.csv: s1 was handed out in arm assisted, not manual",
    ]


@pytest.mark.parametrize("name", ["times/s1.csv", "times/s1_event.csv", "times/s1/anything.csv"])
def test_a_file_of_the_timestamp_extension_belongs_to_the_slide_that_it_is_named_after(run: RunDir, name: str) -> None:
    row = "x,{},2026-09-09T12:00:00.000,2026-09-09T10:00:{}Z,0,Click,,1,2,2.0,0.0"
    put(run, name, "\n".join([THIRD, row.format(1, "00"), row.format(2, "40")]))
    assert times(run)[0] == {"s1": ("timestamps", 40)}


def test_images_that_the_extension_names_need_no_file_name(run: RunDir) -> None:
    row = "x,{},2026-09-09T12:00:00.000,2026-09-09T10:00:{}Z,0,Click,,1,2,2.0,0.0,id,{},file"
    lines = [row.format(1, "00", "s1.tif"), row.format(2, "15", "other.svs"), row.format(3, "25", "s2.tif")]
    lines.append(row.format(4, "55", "s2.tif"))
    put(run, "times/day.csv", "\n".join([THIRD + ",Image_ID,Image_Name,Image_Source", *lines]))
    # From 15 to 25 a slide of nobody's was in front: its seconds are no slide's of the batch.
    assert times(run) == ({"s1": ("timestamps", 15), "s2": ("timestamps", 30)}, [])


def test_an_export_of_exact_counts_for_its_user_alone(run: RunDir) -> None:
    lines = [
        f"[s1.tif|{RATER.upper()}|2026-01-13 10:05:00|2]",
        f"[s1.tif|{RATER.upper()}|2026-01-13 10:01:00|1]",
        "[s1.tif|ben|2026-01-13 10:00:00|1]",
        f"s1.tif|cell|{BOX}|{RATER}|2026-01-13 10:02:00|{RATER}|2026-01-13 10:03:00|u1|False|1|1",
    ]
    put(run, "times/study.txt", "\n".join(lines))
    found, problems = times(run)
    assert found == {"s1": ("exact", 240)}
    assert problems == ["times/study.txt: visits of 1 other users are left out"]


def test_files_that_are_nothing_known_are_told(run: RunDir) -> None:
    put(run, "times/notes.txt", "remember the milk\n")
    put(run, "times/other.csv", "a,b\n1,2\n")
    (run.project.parent / "times" / "scan.csv").write_bytes(b"\xff\xfe\x00")
    put(run, f"data/{entry(run, 's2')}/recordings/broken.tsv", "nothing")
    found, problems = times(run)
    assert found == {}
    text = "\n".join(problems)
    for words in ("is no recording", f"holds nothing that {RATER} did", "needs the columns", "cannot be read as UTF-8"):
        assert words in text
    assert checked(collected(run).metrics)["status"] == "not measured"


def test_the_best_source_counts_whatever_the_order(run: RunDir) -> None:
    (plan,) = read_plans(run)
    base = reported(plan, plan.slides[0], 60, 1)
    ranked: list[ImageTime] = [replace(base, time_source=s) for s in ("timestamps", "view_tracker", "exact")]
    assert best([], [base, *ranked]) == best([], [*reversed(ranked), base]) == [ranked[0]]
    assert best([base], ranked) == [base]


def test_odd_logs_coverage_and_gaps_stand_in_the_metrics(run: RunDir) -> None:
    log(run, (0, "open"), (5, "close"), (10, "open"), (40, "edit"))
    log(run, (100, "open"), (150, "edit"), (20, "edit"), (50, "close"), name="jump")
    log(run, (0, "open"), (900, "close"), rater="ben")
    time = checked(collected(run).metrics)
    kinds = {(odd["kind"], odd["rater"], odd["slide_id"]) for odd in time["anomalies"]}
    assert {
        ("never_closed", RATER, "s1"),
        ("clock_back", RATER, "s1"),
        ("foreign_rater", "ben", None),
    } <= kinds
    assert all(odd["treatment"] for odd in time["anomalies"])
    # Opened and closed, opened and edited, opened and edited before the jump, edited after it.
    assert time["logs"] == [
        {"slide_id": "s1", "batch": "batch-1", "rater": RATER, "visits": 4, "with_events": 3, "coverage": 0.75}
    ]
    assert time["missing"] == {"without_time": 0, "zero_time": 0, "flagged": False}
    assert time["pairs"] is None


def test_an_image_without_time_and_one_with_zero_seconds_are_flagged(run: RunDir) -> None:
    time = checked(collected(run).metrics)
    assert time["missing"] == {"without_time": 1, "zero_time": 0, "flagged": True}
    assert time["logs"][0]["coverage"] is None
    log(run, (0, "open"))
    time = checked(collected(run).metrics)
    assert time["missing"] == {"without_time": 0, "zero_time": 1, "flagged": True}


def test_a_model_fills_gaps_apart_from_what_was_measured(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    names = [f"s{i:02}" for i in range(24)]
    hand_out(run, SETTINGS, CLASSES, [slide(name) for name in names])
    project = NativeProject.open(run.project)
    for image in project.images():
        project.set_metadata(image, {"wsi_state": "reviewed"})
    project.save()
    numbers = {name: str(entry(run, name)) for name in names}
    start, lines = 1_790_000_000_000, [{"schema": 1, "type": "header", "seq": 0, "rater": RATER, "source": "measured"}]
    for place, name in enumerate(names[:21]):
        opened = start + 1_000_000 * place
        for seq, (kind, after) in enumerate((("open", 0), ("save", 50_000), ("close", 55_000 + 500 * place))):
            lines.append({"seq": 3 * place + seq + 1, "t": opened + after, "type": kind, "image": numbers[name]})
    put(run, "events/a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    put(run, "times/late.csv", f"rater,slide,minutes\n{RATER},s21,2\n")
    metrics = collected(run).metrics
    time = checked(metrics)
    modelled = time["modelled"]
    assert (modelled["time_source"], modelled["fitted_on"], modelled["n"]) == ("model", "events", 21)
    assert [row["slide_id"] for row in modelled["images"]] == ["s22", "s23"]
    assert all(50 < row["low"] < row["seconds"] < row["high"] < 80 for row in modelled["images"])
    # What the model says is in no sum, in no table and in no image's facts.
    measured = sum(55 + 0.5 * place for place in range(21))
    assert time["active_s"] == pytest.approx(measured + 120)
    assert time["time_source"] == "events and self_report"
    assert metrics["slides"]["s22"]["active_s"] is None
    assert "s22" not in rows(run)
    assert time["missing"]["without_time"] == 2


def test_too_few_measured_images_give_no_model(run: RunDir) -> None:
    assert time_figures([], [], [], Review())["modelled"]["reason"] == "no reviewed image lacks a time"
    modelled = checked(collected(run).metrics)["modelled"]
    assert modelled["status"] == "not measured"
    assert "a model needs 20" in modelled["reason"]


def test_pairs_of_arms_count_what_a_saving_may_use(run: RunDir) -> None:
    (plan,) = read_plans(run)
    facts = {"counts": {"untouched": 2}, "classes": {}}

    def image(number: int, arm: str, *, repeat: bool = False) -> CollectedImage:
        own = plan.slides[0].model_copy(update={"slide_id": f"s{number}", "arm": arm, "repeat": repeat})
        batch = plan.model_copy(update={"batch": f"batch-{arm}{'-again' if repeat else ''}"})
        return CollectedImage(batch, own, number, ImageState.REVIEWED, Source.MEASURED, (), (), facts)

    def time(of: CollectedImage, seconds: float, source: TimeSource) -> ImageTime:
        return replace(reported(of.plan, of.slide, seconds, 1), time_source=str(source))

    images = [image(number, arm) for number in range(4) for arm in ("assisted", "manual")]
    images += [image(4, "assisted"), image(0, "assisted", repeat=True)]
    events, report = TimeSource.EVENTS, TimeSource.SELF_REPORT
    times = [
        time(images[0], 10, events), time(images[1], 20, events),
        time(images[2], 10, events), time(images[3], 20, report),
        time(images[4], 0, events), time(images[5], 20, events),
        time(images[6], 10, events),
    ]  # fmt: skip
    part = time_figures(times, images, [], Review())
    # 0 has both, 1 a reported one, 2 no second in one arm, 3 nothing in one arm; 4 was read in one arm only.
    assert part["pairs"] == {"usable": 1, "without_time": 2, "zero_time": 1, "flagged": True}
    assert part["missing"] == {"without_time": 2, "zero_time": 1, "flagged": True}
    assert {source for source in TimeSource if not source.is_seen} == {TimeSource.SELF_REPORT, TimeSource.MODEL}
