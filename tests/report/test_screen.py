"""The first screen and the data behind it: what is said for which facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.report.build_run import Recipe, build_run
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.report.facts import Run, Status
from wsi_pipeline.report.gallery import by_change
from wsi_pipeline.report.learned import comparisons
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.report.quality import concerns, recipe
from wsi_pipeline.report.screen import cost_figure, screen, time_figure
from wsi_pipeline.rundir import RunDir

SLIDES = Recipe(
    slides=9,
    failed=frozenset({0}),
    queued=frozenset({1}),
    todo=frozenset({4}),
    in_progress=frozenset({5}),
)


def loaded(folder: Path, recipe: Recipe, metrics: Mapping[str, Any] | None = None) -> Run:
    """The facts of a run, after `metrics` replaced some keys of metrics.json."""
    run = build_run(folder, replace(recipe, pictures=False))
    if metrics is not None:
        write_json(run.metrics, {**read_json(run.metrics), **metrics})
    return load_run(run)


def test_each_slide_is_in_exactly_one_state(folder: Path) -> None:
    run = loaded(folder, SLIDES)
    found = [slide.status for slide in run.slides]
    reviewed = [Status.REVIEWED] * 3
    expected = [Status.FAILED, Status.QUEUED, *reviewed[:2], Status.TODO, Status.IN_PROGRESS, *reviewed]
    assert found == expected
    parts = screen(run).progress
    assert sum(part.count for part in parts) == len(run.slides)
    assert sum(part.share for part in parts) == pytest.approx(1)


def test_a_predicted_slide_without_a_handout_is_not_to_do(folder: Path) -> None:
    run = loaded(folder, Recipe(slides=1, collected=False))
    assert run.slides[0].status is Status.PREDICTED


def test_objects_of_slides_that_are_not_reviewed_are_in_no_bar(folder: Path) -> None:
    run = loaded(folder, SLIDES)
    counted = sum(part.count for part in screen(run).fate)
    reviewed = [slide.reviewed for slide in run.slides if slide.reviewed]
    assert counted == sum(sum(review.counts.values()) for review in reviewed)
    assert counted < sum(sum(s.review.counts.values()) for s in run.slides if s.review)


def test_reservations_name_what_stands_against_the_figures(folder: Path) -> None:
    words = [alarm.text for alarm in screen(loaded(folder, SLIDES)).alarms]
    assert "1 slide failed: in no figure." in words
    assert "2 slides handed out, not yet reviewed: in no figure." in words
    assert "1 slide tripped a sanity check of the prediction." in words
    assert "Time is known for 80\u202f% of the slides: a lower bound." in words
    assert "No blind second read: how right the corrections are is unknown." in words
    assert screen(loaded(folder, SLIDES)).trust == f"With {len(words)} reservations"


def test_alarms_of_the_collection_come_first(folder: Path) -> None:
    run = loaded(folder, replace(SLIDES, alarmed=frozenset({8})))
    assert run.slides[8].status is Status.LEFT_OUT
    assert "are gone; restore it" in screen(run).alarms[0].text
    assert "are gone; restore it" in concerns(run)[0].issues[0].what


def test_many_alarms_are_one_line_and_oddities_of_the_logs_are_counted(folder: Path) -> None:
    odd = ("events/a.jsonl: its last line, which a crash cut off, is left out", "events/b.jsonl: has no header")
    run = loaded(folder, replace(SLIDES, alarmed=frozenset({2, 6, 7, 8}), oddities=odd))
    words = [alarm.text for alarm in screen(run).alarms]
    assert words[0] == "4 alarms: images that the collection left out."
    assert "2 oddities in the event logs." in words
    (listed,) = (c for c in concerns(run) if c.title == "Oddities in the event logs")
    assert [issue.what for issue in listed.issues] == list(odd)


def test_a_complete_log_raises_no_reservation(folder: Path) -> None:
    run = loaded(folder, SLIDES)
    complete = {**run.time, "coverage": 1.0}
    run = loaded(folder, SLIDES, {"time": complete})
    assert not any("lower bound" in alarm.text for alarm in screen(run).alarms)


@pytest.mark.parametrize("time", [{}, {"status": "not measured"}, {"active_s": None}, {"active_s": float("nan")}])
def test_no_time_becomes_no_number(folder: Path, time: dict[str, Any]) -> None:
    figure = time_figure(loaded(folder, Recipe(slides=1), {"time": time}))
    assert figure.missing
    assert figure.value == "not measured"


@pytest.mark.parametrize("cost", [{}, {"status": "not measured", "reason": "no rate is given"}, {"currency": "EUR"}])
def test_no_cost_becomes_no_number(folder: Path, cost: dict[str, Any]) -> None:
    figure = cost_figure(loaded(folder, Recipe(slides=1), {"cost": cost}))
    assert figure.missing
    assert not any(character.isdigit() for character in figure.value + figure.note)


@pytest.mark.parametrize(
    ("source", "simulated", "said"),
    [
        ("time from logs", False, "time from logs"),
        ("time from logs", True, "time from logs, which is simulated"),
        ("simulated", True, "simulated"),
    ],
)
def test_the_source_of_a_cost_says_once_that_it_is_simulated(
    folder: Path, source: str, simulated: bool, said: str
) -> None:
    run = loaded(folder, Recipe(slides=1), {"cost": {"total": 10.0, "currency": "EUR", "source": source}})
    run = replace(run, sources={**run.sources, "times": "simulated" if simulated else "measured"})
    assert cost_figure(run).source == said


def test_an_assumed_time_by_hand_is_shown_as_assumed_and_makes_no_saving(folder: Path) -> None:
    run = build_run(folder, Recipe(slides=1, pictures=False))
    record = read_json(run.run_json)
    record["config"]["costs"]["manual_minutes_per_slide"] = 30
    write_json(run.run_json, record)
    shown = screen(load_run(run))
    assert shown.saved == "Not measured"
    assert shown.effort[-1].source == "assumed"
    assert shown.effort[-1].value == "30\u202fmin a slide"


def test_agreement_is_given_class_by_class_when_there_are_several(folder: Path) -> None:
    labels = [
        figure.label for figure in screen(loaded(folder, Recipe(slides=4, classes=("Tumor", "Stroma")))).agreement
    ]
    assert {"Tumor: Dice", "Stroma: Dice", "Predicted area kept"} <= set(labels)
    single = [figure.label for figure in screen(loaded(folder.parent / "one", Recipe(slides=4))).agreement]
    assert single[:2] == ["Dice", "Surface Dice"]


def test_a_class_that_the_model_does_not_know_spoils_no_dice(folder: Path) -> None:
    run = build_run(folder, Recipe(slides=2, pictures=False))
    metrics = read_json(run.metrics)
    drawn = {"area_before_um2": 0.0, "area_after_um2": 900.0, "added_um2": 900.0, "dice": 0.0, "surface_dice": 0.0}
    slide_id = Recipe().slide_id(0)
    metrics["slides"][slide_id]["classes"]["Unclassified"] = drawn
    metrics["slides"][slide_id]["unclassified"] = 2
    metrics["totals"]["classes"]["Unclassified"] = drawn
    write_json(run.metrics, metrics)
    facts = load_run(run)
    review = facts.slides[0].reviewed
    assert review is not None
    assert review.lowest("dice") == metrics["slides"][slide_id]["classes"]["Tumor"]["dice"]
    assert [figure.label for figure in screen(facts).agreement][:2] == ["Dice", "Surface Dice"]
    assert "2 objects without a class: in no Dice." in [alarm.text for alarm in screen(facts).alarms]
    assert facts.colors["Unclassified"] == (120, 120, 120)


def test_the_median_time_is_of_reviewed_slides_alone(folder: Path) -> None:
    run = build_run(folder, Recipe(slides=2, pictures=False, in_progress=frozenset({1})))
    metrics = read_json(run.metrics)
    metrics["slides"][Recipe().slide_id(1)]["active_s"] = 5000.0
    write_json(run.metrics, metrics)
    assert "n\u202f=\u202f1;" in time_figure(load_run(run)).note


def test_shorter_cut_offs_stand_beside_the_time_or_are_said_to_change_nothing(folder: Path) -> None:
    time = {"active_s": 600.0, "active_s_cap60": 300.0, "active_s_cap100": 420.0, "coverage": 1.0}
    note = time_figure(loaded(folder, Recipe(slides=1), {"time": time})).note
    assert "5.0\u202fmin with pauses cut at 60\u202fs and 7.0\u202fmin with pauses cut at 100\u202fs" in note
    assert "known for" not in note
    same = {**time, "active_s_cap60": 600.0, "active_s_cap100": 600.0}
    note = time_figure(loaded(folder.parent / "same", Recipe(slides=1), {"time": same})).note
    assert "the same with pauses cut at 60 and 100\u202fs" in note


def test_the_most_changed_slide_comes_first_and_unreviewed_ones_last(folder: Path) -> None:
    run = loaded(folder, SLIDES)
    ordered = by_change(run.slides)
    changed = [s.reviewed.changed_um2 or 0 for s in ordered if s.reviewed]
    assert changed == sorted(changed, reverse=True)
    assert all(s.reviewed is None for s in ordered[len(changed) :])


def test_a_table_that_knows_more_slides_than_the_metrics_is_reported(folder: Path) -> None:
    run = build_run(folder, Recipe(slides=2, pictures=False))
    metrics = read_json(run.metrics)
    metrics["slides"].pop(Recipe().slide_id(0))
    write_json(run.metrics, metrics)
    assert "run `wsi-pipeline collect` again" in load_run(run).problems[0]


def test_data_without_a_date_gets_none(folder: Path) -> None:
    run = loaded(folder, Recipe(slides=1, timed=False))
    assert run.dates == ()
    assert loaded(folder.parent / "b", Recipe(slides=1)).dates == ("2026-05-12", "2026-05-14")


def test_a_new_model_is_shown_beside_the_old_one_slide_by_slide(folder: Path) -> None:
    (shown,) = comparisons(loaded(folder, Recipe(slides=1, learned=True)))
    assert shown.headline in {"The new model is better", "No difference shown"}
    assert shown.n == "6 patients"
    assert shown.chart is not None
    assert shown.chart.count("held-out-") == 6
    assert shown.left_out == (("held-out-9", "tumour-unet-2@90c2aa7b1e44 was trained on it"),)


@pytest.mark.parametrize("value", [{}, {"decision": None}, {"decision": {"verdict": "too few to tell"}}, {"old": [1]}])
def test_a_learning_file_of_any_shape_is_survived(folder: Path, value: dict[str, Any]) -> None:
    run = build_run(folder, Recipe(slides=1, pictures=False))
    write_json(run.root / "learning" / "promotion.json", {"schema": 1, **value})
    shown = comparisons(load_run(run))
    assert [item.headline for item in shown] == (
        ["Too few slides to tell"] if len(value) and "verdict" in str(value) else []
    )


def test_the_recipe_names_model_weights_rule_and_versions(folder: Path) -> None:
    values = dict(recipe(loaded(folder, Recipe(slides=1))))
    assert values["Model"] == "tumour-unet@3fa9c01d27be"
    assert values["Weights, SHA-256"].startswith("3fa9c01d27be")
    assert values["Rule of time"] == "timeline-1, gaps capped at 300 s"
    assert "shapely 2.1.1" in values["Versions"]
    assert values["Surface tolerance"] == "2.0\u202fµm"


def test_what_the_run_does_not_record_is_said_to_be_missing(folder: Path) -> None:
    write_json(folder / "run.json", {"schema": 1, "run_id": "0", "slides": {}})
    values = dict(recipe(load_run(RunDir(folder))))
    assert values["Versions"] == "not recorded"
    assert values["Region threshold"] == "–"
