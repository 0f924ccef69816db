"""Machines, room on disk and adjudicators: counted from what a run holds, priced, or named with what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.collect.test_savings import RATES, crossover, image_of, slide_of, time_of
from tests.handout.made import CLASSES, SETTINGS, set_state, slide
from wsi_pipeline.collect import collect
from wsi_pipeline.collect.costs import cost_figures
from wsi_pipeline.collect.savings import saving_figures
from wsi_pipeline.collect.spending import Beside, adjudicating, beside_of, computing, folder_bytes, storing
from wsi_pipeline.collect.times import times_of
from wsi_pipeline.config import Costs, Review
from wsi_pipeline.files import write_json
from wsi_pipeline.handout import hand_out
from wsi_pipeline.measures.ledger import Basis, Told
from wsi_pipeline.measures.time import Event, EventType, Session
from wsi_pipeline.privacy import expire_events, forget_rater
from wsi_pipeline.qupath import open_project
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.spent import PREDICT, TRAIN, Spent, append
from wsi_pipeline.states import EVENTS, ImageState, Source

STORED = Costs(storage_per_gb_month=0.02, storage_months=60)


def spend(run: RunDir, *items: Spent) -> RunDir:
    append(run.compute_log, items)
    return run


def stored(folder: Path, **sizes: int) -> RunDir:
    """A run whose slides' folders hold so many bytes, in two files of two folders."""
    run = RunDir(folder / "run")
    for slide_id, size in sizes.items():
        store = run.slide(slide_id).prediction / "probability" / "c"
        store.mkdir(parents=True)
        (store / "0").write_bytes(b"x" * (size - 10))
        run.slide(slide_id).summary.write_bytes(b"x" * 10)
    write_json(run.run_json, {"slides": {slide_id: {"state": "done"} for slide_id in sizes}})
    return run


def session(
    rater: str, *events: tuple[float, EventType], image: str = "1", source: Source = Source.MEASURED
) -> Session:
    made = tuple(Event(i, 1000 * t, kind, image) for i, (t, kind) in enumerate(events))
    return Session("projects/a/batch-1/project.qpproj", rater, made, source, f"{rater}-1.jsonl")


def test_hours_of_machines_are_those_that_were_noted(tmp_path: Path) -> None:
    run = spend(
        RunDir(tmp_path),
        Spent(PREDICT, "cpu", 1, 3600, 7000, "a"),
        Spent(PREDICT, "cpu", 4, 900, None, "b"),
        Spent(PREDICT, "cpu", 1, 360, 10, None),
        Spent(TRAIN, "cpu", 1, 1800, 1800),
    )
    machines, gpus, told = computing(run, ["a", "b", "c"])
    assert (machines, gpus) == (3600 + 4 * 900 + 360 + 1800, None)
    assert told.basis is Basis.MEASURED
    assert told.why == "predicting took 2.1 h on 2 slides; 1 training 30 min; of 1 slide more nothing was noted"


def test_hours_of_gpus_are_kept_apart(tmp_path: Path) -> None:
    run = spend(RunDir(tmp_path), Spent(PREDICT, "cuda:0", 2, 1800, None, "a"), Spent(TRAIN, "cpu", 1, 60, 60))
    machines, gpus, told = computing(run, ["a"])
    assert (machines, gpus) == (60, 3600)
    assert told.why.endswith("1 h of it on a GPU")
    costs = Costs(pathologist_per_hour=100, compute_per_hour=1)
    cost = ledger_of(costs, Beside(machines, gpus, compute=told))["compute"]
    assert cost["basis"] == "not counted"
    assert cost["why"].startswith("`costs.gpu_per_hour` is not given; predicting took")


def test_hours_that_nobody_noted_are_not_nothing(tmp_path: Path) -> None:
    machines, gpus, told = computing(RunDir(tmp_path), ["a"])
    assert (machines, gpus) == (None, None)
    assert "no hours of computing were noted" in told.why


def test_room_on_disk_is_bytes_times_months(tmp_path: Path) -> None:
    run = stored(tmp_path, a=1_000_000, b=500_000)
    (run.root / "project").mkdir()
    (run.root / "project" / "data.qpdata").write_bytes(b"x" * 900)
    amount, told = storing(run, STORED, ["a", "b"], None)
    assert amount == pytest.approx(0.0015 * 60)
    assert told == Told(Basis.MODELLED, "1.5 MB of 2 slides as they are now, kept for 60 months")
    assert folder_bytes(run.root / "nowhere") == 0


def test_maps_that_lie_elsewhere_are_counted_there(tmp_path: Path) -> None:
    run = stored(tmp_path, a=1000)
    elsewhere = tmp_path / "maps" / "a" / "prediction.zarr"
    elsewhere.mkdir(parents=True)
    (elsewhere / "zarr.json").write_bytes(b"x" * 2500)
    amount, _ = storing(run, STORED, ["a"], f"file://{tmp_path / 'maps'}")
    assert amount == pytest.approx(3500 / 1e9 * 60)


def test_a_store_that_cannot_be_reached_is_no_failure_of_collecting(tmp_path: Path) -> None:
    amount, told = storing(stored(tmp_path, a=1000), STORED, ["a"], "nosuchscheme://bucket")
    assert amount is None
    assert told.why.startswith("the maps cannot be looked at: nosuchscheme://bucket/a/prediction.zarr")


@pytest.mark.parametrize(
    ("costs", "why"),
    [
        (Costs(), "`costs.storage_per_gb_month` and `costs.storage_months` are not given"),
        (Costs(storage_per_gb_month=1), "`costs.storage_months` is not given"),
        (Costs(storage_months=1), "`costs.storage_per_gb_month` is not given"),
    ],
)
def test_without_a_price_nothing_is_stored_for_nothing(tmp_path: Path, costs: Costs, why: str) -> None:
    amount, told = storing(stored(tmp_path, a=1000), costs, ["a"], None)
    assert (amount, told.why) == (None, why)
    assert storing(stored(tmp_path / "none"), STORED, [], None)[1].why == "no slide is predicted"


def test_an_adjudicators_time_is_that_of_her_log_in_somebody_elses_project() -> None:
    image = image_of("a", "batch-1", slide_of("s0", "assisted", 1), ImageState.ADJUDICATED)
    plan = image.plan.model_copy(update={"slides": (image.slide.model_copy(update={"entry_id": 1}),)})
    # 20 s to the first change, a pause of 1,000 s that is cut at 300, 40 s to the end: by hand.
    own = session("judge", (0, EventType.OPEN), (20, EventType.EDIT), (1020, EventType.EDIT), (1060, EventType.CLOSE))
    reader = session("a", (0, EventType.OPEN), (250, EventType.CLOSE))
    other = session("nobody", (0, EventType.OPEN), (99, EventType.CLOSE))
    elsewhere = session("judge", (5000, EventType.OPEN), (5020, EventType.CLOSE), image="99")
    judged = Review(adjudicators=("judge",))
    times, problems = times_of([own, reader, other, elsewhere], plan, judged)
    assert [(t.rater, t.active_s) for t in times] == [("a", 250), ("judge", 20 + 300 + 40)]
    assert ["nobody" in line for line in problems] == [True]
    assert adjudicating([image], times[1:], ["judge"]) == (360, Told(Basis.MEASURED, "active time in 1 image"))
    simulated, _ = times_of([replace(own, source=Source.SIMULATED)], plan, judged)
    assert adjudicating([image], simulated, ["judge"])[1].basis is Basis.SIMULATED
    unnamed, problems = times_of([own, reader], plan, Review())
    assert [t.rater for t in unnamed] == ["a"]
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("state", "adjudicators", "why"),
    [
        (ImageState.REVIEWED, (), "no image was adjudicated"),
        (ImageState.ADJUDICATED, (), "1 image is adjudicated, but `review.adjudicators` names nobody"),
        (ImageState.ADJUDICATED, ("judge",), "no time of an adjudicator was found"),
    ],
)
def test_adjudication_without_a_time_says_what_is_missing(
    state: ImageState, adjudicators: Sequence[str], why: str
) -> None:
    image = image_of("a", "batch-1", slide_of("s0", "assisted", 1), state)
    seconds, told = adjudicating([image], [], adjudicators)
    assert seconds is None
    assert told.why.startswith(why)


@pytest.fixture
def judged_run(tmp_path: Path) -> RunDir:
    """One slide that `rater-1` read for 100 s, and on which `judge` decided in 50 s, in the same project."""
    run = RunDir(tmp_path / "run")
    hand_out(run, SETTINGS, CLASSES, [slide(tmp_path, "s1")])
    set_state(run, "adjudicated")
    (entry,) = open_project(run.project, read_only=True).images()
    for rater, start, seconds in (("rater-1", 0, 100), ("judge", 10_000, 50)):
        rows: list[dict[str, object]] = [{"schema": 1, "type": "header", "rater": rater, "source": "measured"}]
        rows += [
            {"seq": n, "t": 1_790_000_000_000 + 1000 * (start + at), "type": kind, "image": str(entry.entry_id)}
            for n, (at, kind) in enumerate(((0, "open"), (seconds, "close")), start=1)
        ]
        path = run.project.parent / EVENTS / f"{rater}-x.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


JUDGED = Review(adjudicators=("judge",))
PRICES = Costs(pathologist_per_hour=3600, adjudicator_per_hour=7200)


def test_from_logs_to_the_ledger_adjudication_is_a_line_of_its_own_and_no_reading(judged_run: RunDir) -> None:
    metrics = collect(judged_run, JUDGED, PRICES).metrics
    assert (metrics["cost"]["pathologist"], metrics["cost"]["adjudicator"]) == (pytest.approx(100), pytest.approx(100))
    assert metrics["time"]["active_s"] == 100
    assert metrics["flags"] == []
    assert metrics["time"]["anomalies"] == []
    rows = pq.read_table(judged_run.time).to_pylist()
    assert {(row["rater"], row["active_s"]) for row in rows} == {("rater-1", 100), ("judge", 50)}
    without = collect(judged_run, Review(), PRICES).metrics
    assert "adjudicator" not in without["cost"]
    assert [odd["kind"] for odd in without["time"]["anomalies"]] == ["foreign_rater"]
    (line,) = (line for line in without["cost"]["ledger"] if line["name"] == "adjudicator")
    assert line["why"].startswith("1 image is adjudicated, but")


def test_a_batch_of_an_adjudicator_is_no_reading_either(judged_run: RunDir) -> None:
    metrics = collect(judged_run, Review(adjudicators=("judge", "rater-1")), PRICES).metrics
    assert metrics["cost"]["status"] == "not measured"
    lines = {line["name"]: line for line in metrics["cost"]["ledger"]}
    assert lines["adjudicator"]["amount"] == pytest.approx(2 * 150)
    assert lines["pathologist"]["basis"] == "not counted"
    assert metrics["time"]["status"] == "not measured"


def test_an_adjudicators_time_outlives_her_logs_and_her_name(judged_run: RunDir) -> None:
    collect(judged_run, JUDGED, PRICES)
    later = datetime.now(tz=UTC) + timedelta(days=9999)
    assert expire_events(judged_run, JUDGED, 1, now=later) == 2
    assert collect(judged_run, JUDGED, PRICES).metrics["cost"]["adjudicator"] == pytest.approx(100)
    forgotten = forget_rater(judged_run, "judge", JUDGED)
    metrics = collect(judged_run, Review(), PRICES).metrics
    assert metrics["cost"]["adjudicator"] == pytest.approx(100), "the time under another name is no reading"
    assert metrics["cost"]["pathologist"] == pytest.approx(100)
    assert {row["rater"] for row in pq.read_table(judged_run.time).to_pylist()} == {"rater-1", forgotten.name}


def ledger_of(costs: Costs, beside: Beside, **more: Any) -> dict[str, Any]:
    image = image_of("a", "batch-1", slide_of("s0", "assisted", 1))
    found = cost_figures([image], [time_of(image, 3600, **more)], costs, Source.MEASURED, {}, beside=beside)
    return {line["name"]: line for line in found["ledger"]}


def test_every_line_of_a_run_says_how_it_is_known(tmp_path: Path) -> None:
    run = stored(tmp_path, a=2_000_000_000 // 1000)
    spend(run, Spent(PREDICT, "cpu", 1, 1800, None, "a"))
    costs = Costs(pathologist_per_hour=100, compute_per_hour=2, storage_per_gb_month=0.5, storage_months=10, set_up=50)
    image = image_of("a", "batch-1", slide_of("a", "assisted", 1))
    beside = beside_of(run, costs, [image], [], ())
    cost = cost_figures([image], [time_of(image, 3600)], costs, Source.MEASURED, {}, beside=beside)
    assert {line["name"]: (line["basis"], line.get("amount")) for line in cost["ledger"]} == {
        "pathologist": ("measured", 100),
        "reviewer": ("not counted", None),
        "adjudicator": ("not counted", None),
        "compute": ("measured", 1),
        "storage": ("modelled", pytest.approx(0.01)),
        "set_up": ("assumed", 50),
    }
    assert all(line["why"] for line in cost["ledger"])
    assert cost["machines_per_slide"] == pytest.approx(1.01)
    assert cost["total"] == pytest.approx(151.01)


def test_a_simulated_time_makes_a_simulated_line_and_leaves_machines_measured(tmp_path: Path) -> None:
    image = image_of("a", "batch-1", slide_of("a", "assisted", 1))
    times = [time_of(image, 3600, source="simulated")]
    beside = Beside(compute_s=60, compute=Told(Basis.MEASURED, "a minute"))
    costs = Costs(pathologist_per_hour=100, compute_per_hour=2)
    cost = cost_figures([image], times, costs, Source.SIMULATED, {}, beside=beside)
    bases = {line["name"]: line["basis"] for line in cost["ledger"]}
    assert (bases["pathologist"], bases["compute"], cost["source"]) == ("simulated", "measured", "simulated")


def test_without_a_rate_for_people_the_machines_are_told_and_there_is_no_total() -> None:
    found = ledger_of(Costs(compute_per_hour=2), Beside(compute_s=3600, compute=Told(Basis.MEASURED, "an hour")))
    assert found["pathologist"]["why"].startswith("`costs.pathologist_per_hour` is not given; active time in 1 image")
    assert found["compute"]["amount"] == 2


def test_a_second_reading_at_the_pathologists_rate_says_where_it_went() -> None:
    again = image_of("a", "batch-2", slide_of("s0", "assisted", 2, repeat=True))
    found = cost_figures([again], [time_of(again, 60)], RATES, Source.MEASURED, {}, beside=Beside())
    reviewer = next(line for line in found["ledger"] if line["name"] == "reviewer")
    assert reviewer["why"].startswith("in the pathologist's line")


def test_what_machines_cost_is_taken_from_what_a_slide_saves() -> None:
    images, times = crossover()
    plain = saving_figures(images, times, RATES, open_slides=40)
    dear = saving_figures(images, times, RATES, open_slides=40, extra_per_slide=1.5)
    for part, amount in (("break_even", 1.5), ("forecast", 60.0)):
        key = "saved_per_slide" if part == "break_even" else "saved"
        before, after = plain[part][key]["value"], dear[part][key]["value"]
        assert before - after == pytest.approx(amount)
    assert dear["break_even"]["slides"] > plain["break_even"]["slides"]
