"""Ledger, break-even, splits, minutes, claims and conflicts as the page tells them; gaps are told as gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.report.build_run import build_run
from tests.report.reading_html import read_page
from tests.report.test_study import MEASURED, STUDY
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.report import write_report
from wsi_pipeline.report.claims import claim, conflicts, planted
from wsi_pipeline.report.confidence import blind_flag_table
from wsi_pipeline.report.economy import economy
from wsi_pipeline.report.export import figures_of
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.figure_tables import figure_tables
from wsi_pipeline.report.ledger import ledger_table
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.report.minutes import modelled, region_minutes
from wsi_pipeline.report.pace import backlog, left_figure, trend, weeks
from wsi_pipeline.report.quality import concerns
from wsi_pipeline.report.savings import saving_of
from wsi_pipeline.report.screen import screen
from wsi_pipeline.report.splits import splits
from wsi_pipeline.rundir import RunDir

PAYBACK = {
    "currency": "EUR",
    "slides": 150,
    "interval": [94, "never"],
    "saved_per_slide": {"value": 6.5, "low": -0.3, "high": 9.25},
}
AHEAD = {
    "slides": 40,
    "hours": {"value": 2.0, "low": 1.5, "high": 2.5},
    "saved": {"value": -740.0, "low": -1012.0, "high": -630.0},
    "currency": "EUR",
}
SPLITS = [
    {
        "name": "tissue kind",
        "label": "exploratory",
        "refused": None,
        "parts": [
            {"group": "breast", "ratio": 0.5, "ci95": None, "raters": 3, "slides": 4, "readings": 16},
            {"group": "colon", "ratio": 0.7, "ci95": [0.6, 0.8], "raters": 5, "slides": 12, "readings": 96},
        ],
    },
    {
        "name": "week",
        "label": "exploratory",
        "refused": None,
        "parts": [{"group": "2026-05-11", "ratio": 0.6, "ci95": None, "raters": 3, "slides": 1, "readings": 6}],
    },
    {"name": "order", "label": "exploratory", "refused": "position and slide are aliased", "parts": []},
]
QUALITY = {
    "measure": "pooled Dice",
    "reference": "a blind reader",
    "assisted": 0.91,
    "manual": 0.88,
    "suggestions": 0.84,
    "harmed": 12,
    "right": 340,
    "harm_rate": 12 / 340,
    "gain": 0.03,
    "gain_ci95": [-0.01, 0.07],
    "words": "pooled Dice is higher; the untouched suggestions score 0.840, and 12 of 340 were harmed.",
    "source": "measured",
    "definition": "One definition.",
    "slides": 20,
    "raters": 3,
    "comparisons": 40,
    "to_prediction": {"assisted": 0.95, "manual": 0.8},
}
PLANTED = {
    "planted": 8,
    "caught": 5,
    "kinds": {"fake": {"planted": 5, "caught": 4}, "missing": {"planted": 3, "caught": 1}},
}
CONFLICTS = [
    {
        "slide_id": "case-001",
        "object": f"object-{number}",
        "differs": differs,
        "iou": iou,
        "adjudicated": decided,
        "raters": [
            {"rater": rater, "batch": "b", "change": change, "class_before": "Tumor", "class_after": "Tumor"}
            for rater, change in (("m.okafor", "edited"), ("lindqvist", "accepted"))
        ],
    }
    for number, (differs, iou, decided) in enumerate(
        [
            ("shape", 0.99, False),
            ("shape", 0.5, False),
            ("presence", 0.0, False),
            ("class", 1.0, False),
            ("class", 1, True),
        ]
    )
]
REGIONS = {
    "source": "measured",
    "rule": "timeline, version 1",
    "images": 7,
    "active_s": 1000.0,
    "no_region_s": 400.0,
    "by_change": {
        "edited": {"regions": 20, "active_s": 500.0, "median_s": 22.0},
        "gone": {"regions": 2, "active_s": 100.0, "median_s": 50.0},
    },
}
MODELLED = {
    "time_source": "model",
    "rule": "model, version 1",
    "level": 0.95,
    "n": 30,
    "not_estimated": 1,
    "images": [
        {
            "slide_id": "case-001",
            "batch": "b",
            "rater": "lindqvist",
            "arm": "assisted",
            "seconds": 90.0,
            "low": 30.0,
            "high": 300.0,
        }
    ],
}


@pytest.fixture(scope="module")
def folder_of_study(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = build_run(tmp_path_factory.mktemp("figures") / "study", STUDY)
    metrics = read_json(run.metrics)
    saving = {**MEASURED, "splits": SPLITS, "break_even": PAYBACK, "forecast": AHEAD, "slides": 20}
    saving |= {"dropped": 2, "unpaired": 0, "hours": {"assisted": 3.0, "manual": 4.5}, "bootstrap_ci95": [0.6, 0.7]}
    metrics |= {"saving": saving, "quality": QUALITY, "planted": PLANTED, "conflicts": CONFLICTS}
    metrics["time"] |= {"regions": REGIONS, "modelled": MODELLED}
    metrics["cost"] |= {
        "per_mm2": 1.23,
        "area_mm2": 15.5,
        "slides_with_area": 15,
        "not_included": ["set_up", "reviewer"],
    }
    metrics["second_read"] = {
        "source": "measured",
        "caveat": "One reader.",
        "flags": {"precision": 0.5, "tiles": 9, "slides": 2},
    }
    write_json(run.metrics, metrics)
    return run


@pytest.fixture(scope="module")
def facts(folder_of_study: RunDir) -> Run:
    return load_run(folder_of_study)


def with_part(facts: Run, name: str, value: Any) -> Run:
    return replace(facts, metrics={**facts.metrics, name: value})


def with_saving(facts: Run, **changes: Any) -> Run:
    return with_part(facts, "saving", {**facts.saving, **changes})


def test_break_even_and_forecast_carry_the_ends_of_total_hours_and_may_be_never(facts: Run) -> None:
    rows = dict(economy(facts).rows)
    assert rows["Break-even"] == "150 slides (94 slides to never)"
    assert rows["Saved per slide"] == "6.50\u202fEUR (\u22120.30\u202fEUR to 9.25\u202fEUR)"
    assert (
        rows["Forecast for the 40 slides left"]
        == "2\u202fh (1\u202fh 30\u202fmin to 2\u202fh 30\u202fmin) of reviewing"
    )
    assert rows["Saved on these, less set-up"].startswith("\u2212740\u202fEUR (\u22121012\u202fEUR to")
    assert economy(facts).n == "6 raters, 20 slides"


def test_without_an_interval_it_is_said(facts: Run) -> None:
    payback = {**PAYBACK, "slides": "never", "saved_per_slide": {"value": -1.0, "low": None, "high": None}}
    del payback["interval"]
    rows = dict(economy(with_saving(facts, break_even=payback)).rows)
    assert rows["Break-even"] == "never, too few readings for an interval"
    assert rows["Saved per slide"] == "\u22121.00\u202fEUR, no interval"


@pytest.mark.parametrize(
    ("saving", "words"),
    [
        ({"kind": "before_after", "ratio": 0.6}, "a saving that was measured"),
        ({"kind": "measured", "ratio": 0.6}, "hourly rate"),
    ],
)
def test_a_gap_says_what_is_missing(facts: Run, saving: Mapping[str, Any], words: str) -> None:
    found = economy(with_part(facts, "saving", saving))
    assert found.rows == ()
    assert words in found.missing


def test_the_total_hours_stand_beside_the_ratio_with_what_was_left_out(facts: Run) -> None:
    rows = dict(saving_of(facts).rows)
    assert rows["Hours compared"] == "3\u202fh assisted, 4\u202fh 30\u202fmin manual"
    assert rows["Readings left out"] == "2 with no time"
    assert rows["Bootstrap by rater, a check only"] == "0.600 to 0.700"


def test_splits_show_n_and_an_interval_only_where_there_is_one_and_a_refusal_shows_no_figure(facts: Run) -> None:
    tissue, week, order = splits(facts)
    assert [(g.name, g.ratio, g.interval, g.n) for g in tissue.groups] == [
        ("breast", "0.500", "none: too few", "3 raters, 4 slides, 16 readings"),
        ("colon", "0.700", "0.600 to 0.800", "5 raters, 12 slides, 96 readings"),
    ]
    assert week.groups[0].name == "from 11 May 2026"
    assert order.groups == ()
    assert order.refused == "Position and slide are aliased."
    assert splits(with_saving(facts, splits=None)) == ()


def test_no_quality_is_claimed_without_the_suggestions_own_score_and_the_harm(facts: Run) -> None:
    shown = claim(facts)
    rows = dict(shown.rows)
    assert (rows["With pre-annotation"], rows["Without"], rows["Untouched suggestions alone"]) == (
        "0.91",
        "0.88",
        "0.84",
    )
    assert rows["Right suggestions harmed"] == "3.5\u202f% (12 of 340)"
    assert rows["With minus without"] == "+0.030 (95\u202f% interval over slides \u22120.010 to +0.070)"
    assert shown.words.startswith("Pooled Dice")
    for missing in ("suggestions", "harm_rate", "manual", "words"):
        half = claim(with_part(facts, "quality", {k: v for k, v in QUALITY.items() if k != missing}))
        assert half.rows == ()
        assert half.words == ""
        assert half.missing


def test_page_one_tells_quality_with_the_harm_beside_it_and_planted_errors(facts: Run) -> None:
    figures = {figure.label: figure for figure in screen(facts).agreement}
    assert figures["Quality"].value == "Dice 0.91 with, 0.88 without"
    assert "untouched suggestions 0.84; right ones harmed: 3.5\u202f% (12 of 340)" in figures["Quality"].note
    assert figures["Planted errors"].value == "5 of 8 caught"
    words = [alarm.text for alarm in screen(facts).alarms]
    assert "4 objects changed differently by raters, not decided yet." in words
    assert not any("No blind second read" in word for word in words)
    bare = screen(
        with_part(with_part(facts, "quality", {"status": "not measured"}), "planted", {"status": "not measured"})
    )
    assert {"Quality", "Planted errors"} & {figure.label for figure in bare.agreement} == set()
    assert any("No blind second read" in alarm.text for alarm in bare.alarms)


def test_planted_errors_are_told_by_kind(facts: Run) -> None:
    found = planted(facts)
    assert found.kinds == (("fake", 5, 4), ("missing", 3, 1))
    assert found.share == "62\u202f%"
    assert planted(with_part(facts, "planted", {"status": "not measured", "reason": "none"})).missing == "None."


def test_conflicts_of_class_come_first_under_pseudonyms(facts: Run) -> None:
    found = conflicts(facts)
    assert found is not None
    assert (found.total, found.waiting, found.slides) == (5, 4, 1)
    assert found.table == (("class", 2, 1), ("whether it is there", 1, 1), ("outline", 2, 2))
    assert [(c.differs, c.iou) for c in found.shown] == [
        ("class", "1.00"), ("whether it is there", "0.00"), ("outline", "0.50"), ("outline", "0.99"),
    ]  # fmt: skip
    assert {c.sides for c in found.shown} == {"one edited (Tumor); another accepted (Tumor)"}
    asked = conflicts(replace(facts, show_raters=True))
    assert asked is not None
    assert all(c.sides.count("Rater ") == 2 and "okafor" not in c.sides for c in asked.shown)
    assert conflicts(with_part(facts, "conflicts", [])) is None


def test_the_ledger_is_told_per_slide_and_per_area_and_names_what_it_does_not_hold(facts: Run) -> None:
    found = ledger_table(facts)
    assert dict(found.rows)["Per mm² of tissue reviewed"] == "1.23\u202fEUR"
    assert found.not_included == ("set-up", "second reader")
    assert found.n == "15.50\u202fmm² of tissue on 15 reviewed slides"
    gap = ledger_table(with_part(facts, "cost", {"currency": "EUR", "status": "not measured", "reason": "no rate"}))
    assert (gap.rows, gap.missing) == ((), "No rate.")
    cost = next(figure for figure in screen(facts).effort if figure.label == "Cost")
    assert cost.value.endswith("EUR a slide")
    assert "1.23\u202fEUR per mm² of tissue" in cost.note


def test_each_line_of_the_ledger_says_how_it_is_known_and_stands_once(facts: Run) -> None:
    lines = [
        {"name": "pathologist", "basis": "measured", "why": "active time in 15 images, from events", "amount": 99.0},
        {"name": "set_up", "basis": "assumed", "why": "the amount that the configuration gives", "amount": 0.0},
        {"name": "compute", "basis": "not counted", "why": "`costs.compute_per_hour` is not given"},
        {"name": "storage", "basis": "modelled", "why": "1 MB of 2 slides", "amount": 0.0004},
    ]
    cost = {**facts.cost, "ledger": lines, "pathologist": 99.0}
    found = ledger_table(with_part(facts, "cost", cost))
    assert [(i.name, i.amount, i.basis) for i in found.items] == [
        ("Pathologist", "99.00\u202fEUR", "measured"),
        ("Set-up", "0.00\u202fEUR", "assumed"),
        ("Computing", "–", "not counted"),
        ("Storage", "under 0.01\u202fEUR", "modelled"),
    ]
    assert [i.counted for i in found.items] == [True, True, False, True]
    assert found.items[2].why == "`costs.compute_per_hour` is not given"
    assert found.not_included == ()
    assert "Pathologist" not in dict(found.rows)
    assert "Pathologist" in dict(ledger_table(with_part(facts, "cost", {**cost, "ledger": []})).rows)


def test_an_amount_that_is_missing_is_not_counted_whatever_the_file_says(facts: Run) -> None:
    odd = [{"name": "storage", "basis": "measured", "why": ""}, {"name": "compute", "amount": 3.0}, 7]
    found = ledger_table(with_part(facts, "cost", {**facts.cost, "ledger": odd}))
    assert [(i.amount, i.basis) for i in found.items] == [
        ("–", "not counted"), ("3.00\u202fEUR", "not counted"), ("–", "not counted"),
    ]  # fmt: skip


def test_minutes_are_shared_out_to_what_was_done_and_to_no_region(facts: Run) -> None:
    found = region_minutes(facts)
    assert found is not None
    assert [(line.name, line.share) for line in found.lines] == [
        ("outline edited", 0.5),
        ("drawn and deleted again, or no annotation", 0.1),
        ("no region: looking around, and what was only accepted", 0.4),
    ]
    assert region_minutes(with_part(facts, "time", {"regions": {"status": "not measured"}})) is None


def test_modelled_times_say_model_and_are_in_no_sum(facts: Run, folder_of_study: RunDir) -> None:
    found = modelled(facts)
    assert found is not None
    assert found.rows == (("case-001", "1.5\u202fmin", "30\u202fs to 5.0\u202fmin"),)
    page = read_page(write_report(folder_of_study)).text
    assert "model, not measured" in page
    assert "Source: model." in page
    assert facts.time["active_s"] == read_json(folder_of_study.metrics)["time"]["active_s"]
    assert modelled(with_part(facts, "time", {"modelled": {"status": "not measured"}})) is None


def test_the_page_shows_all_of_it_with_its_tables(folder_of_study: RunDir) -> None:
    path = write_report(folder_of_study)
    page = read_page(path)
    assert not page.unclosed
    for words in (
        "150 slides (94 slides to never)", "Refused. Position and slide are aliased.", "exploratory", "5 (62 %)",
        "Quality beside time", "What raters changed differently", "Where the minutes go", "Per mm² of tissue reviewed",
    ):  # fmt: skip
        assert words in page.text, words
    for name in ("splits", "conflicts", "modelled_time"):
        assert f"tables/{name}.parquet" in page.addresses
        assert (path.parent / "tables" / f"{name}.parquet").is_file()
    assert not any(name in page.text for name in ("okafor", "lindqvist"))


def test_tables_hold_a_row_for_each_group_side_and_image(facts: Run) -> None:
    tables = figure_tables(facts)
    rows = tables["splits.parquet"].to_pylist()
    assert [(r["split"], r["group"], r["low"]) for r in rows] == [
        ("tissue kind", "breast", None), ("tissue kind", "colon", 0.6), ("week", "2026-05-11", None),
        ("order", None, None),
    ]  # fmt: skip
    assert rows[-1]["refused"]
    assert tables["conflicts.parquet"].num_rows == 10
    assert tables["modelled_time.parquet"]["time_source"].to_pylist() == ["model"]
    bare = with_part(with_saving(facts, splits=[]), "conflicts", [])
    assert set(figure_tables(bare)) == {"modelled_time.parquet"}


def test_a_table_of_an_earlier_report_that_has_no_rows_any_more_is_removed(folder: Path) -> None:
    run = build_run(folder, replace(STUDY, slides=3, saving={**MEASURED, "splits": SPLITS}))
    write_report(run)
    table = run.report.parent / "tables" / "splits.parquet"
    assert pq.read_table(table).num_rows == 4
    write_json(run.metrics, {**read_json(run.metrics), "saving": MEASURED})
    write_report(run)
    assert not table.exists()


def test_flags_against_a_blind_reader_are_told_apart_from_those_against_corrections(facts: Run) -> None:
    found = blind_flag_table(facts)
    assert found is not None
    assert found.caveat == "One reader."
    assert blind_flag_table(with_part(facts, "second_read", {"status": "not measured"})) is None


def a_study(facts: Run) -> Run:
    """Three slides, two raters, both arms: the manual readings in week one, one assisted slide in week two."""
    images = [
        {
            "slide_id": f"case-{i}",
            "rater": rater,
            "arm": arm,
            "batch": f"batch-{arm}",
            "reviewed": arm == "manual" or i == 0,
            "state": "reviewed" if arm == "manual" or i == 0 else "in_progress" if i == 1 else "todo",
            "active_s": 60.0 * (1 + i) if rater == "a" or arm == "manual" else None,
            "counts": {"untouched": 3, "edited": 1} if arm == "assisted" else {"added": 4},
        }
        for i in range(3)
        for rater in ("a", "b")
        for arm in ("manual", "assisted")
    ]
    touched = {
        (str(i["slide_id"]), str(i["batch"]), str(i["rater"])): date(2026, 5, 13 if i["arm"] == "manual" else 20)
        for i in images
    }
    days = {(f"batch-{arm}", rater): date(2026, 6, 1) for arm in ("manual", "assisted") for rater in ("a", "b")}
    return replace(with_part(facts, "images", images), touched_readings=touched, batch_days=days)


def test_in_a_study_readings_are_what_is_left(facts: Run) -> None:
    shown = a_study(facts)
    assert shown.is_study
    assert not facts.is_study
    figure = left_figure(shown)
    assert figure is not None
    assert (figure.label, figure.value) == ("Readings", "8 done, 4 left")
    assert figure.note.startswith("24 slides, 2 raters, 2 arms; done about")
    time = next(f for f in screen(shown).effort if f.label == "Reviewing time")
    assert "median 1.0\u202fmin a slide, n\u202f=\u202f1" in time.note
    parts = {part.label: part.count for part in screen(shown).progress}
    assert {part.label: part.count for part in screen(shown).fate} == {"kept as predicted": 6, "outline edited": 2}
    assert shown.reviewed_words == "2 reviewed, assisted readings of 1 slide"
    assert ledger_table(shown).n.endswith("mm² of tissue on 15 reviewed, assisted readings")
    assert "Forecast for the 40 assisted readings left" in dict(economy(shown).rows)
    assert facts.reviewed_words == "15 reviewed slides"
    # Slides of the run without any reading keep their own state.
    assert parts["reviewed"] - 8 + parts["in progress"] - 2 + parts["to do"] - 2 == 24


def test_in_a_study_the_weeks_hold_readings_and_what_was_kept_is_of_the_assisted_arm(facts: Run) -> None:
    first, second = weeks(a_study(facts))
    assert (first.monday, first.slides, first.minutes, first.untouched) == (date(2026, 5, 11), 6, None, None)
    assert (second.monday, second.slides, second.minutes, second.untouched) == (date(2026, 5, 18), 2, 1.0, 0.75)
    chart = trend(a_study(facts))
    assert chart is not None
    assert chart.n == "8 readings"
    assert "assisted arm" in chart.definition


def test_in_a_study_readings_wait_from_the_day_of_their_own_batch(facts: Run) -> None:
    found = backlog(a_study(facts))
    assert found is not None
    assert (found.what, found.total) == ("reading", 4)
    assert {state: sum(counts) for state, counts in found.rows} == {"to do": 2, "in progress": 2}
    last = date.fromisoformat(facts.dates[-1])
    assert found.oldest is not None
    assert found.oldest[1] == (last - date(2026, 6, 1)).days


def test_in_a_study_data_quality_counts_readings_and_names_nobody(facts: Run) -> None:
    found = {concern.title: concern.issues for concern in concerns(a_study(facts))}
    waiting = [(issue.where, issue.what) for issue in found["Handed out, not reviewed"]]
    assert waiting == [
        ("batch-assisted", "2 readings of the assisted arm in progress"),
        ("batch-assisted", "2 readings of the assisted arm to do"),
    ]
    (untimed,) = found["Reviewed without a log of time"]
    assert untimed.where == "case-0"
    assert "batch-assisted" in untimed.what


def test_odd_visits_are_told_by_kind_with_what_is_done_about_them(facts: Run) -> None:
    odd = [
        {"kind": kind, "log": "lindqvist-0.jsonl", "rater": "lindqvist", "treatment": treatment}
        for kind, treatment in (("never_closed", "to the last action"), ("clock_back", "a visit of its own"))
    ]
    shown = with_part(facts, "time", {**facts.time, "anomalies": [*odd, odd[0]]})
    (found,) = [c.issues for c in concerns(shown) if c.title.startswith("Odd visits")]
    assert [(issue.where, issue.what) for issue in found] == [
        ("clock back", "1 time; a visit of its own"),
        ("never closed", "2 times; to the last action"),
    ]
    (none,) = [c.issues for c in concerns(facts) if c.title.startswith("Odd visits")]
    assert none == ()


def test_a_class_that_only_some_readings_have_is_in_the_sums_and_has_a_colour(folder: Path) -> None:
    run = build_run(folder, replace(STUDY, slides=3))
    metrics = read_json(run.metrics)
    metrics["totals"]["classes"]["Unclassified"] = metrics["totals"]["classes"]["Tumor"]
    write_json(run.metrics, metrics)
    assert load_run(run).colors["Unclassified"] == (120, 120, 120)
    assert "Unclassified" in read_page(write_report(run)).text


def test_trackers_get_quality_and_planted_errors(facts: Run) -> None:
    found = figures_of(facts)
    assert found["quality.harm_rate"] == pytest.approx(12 / 340)
    assert found["planted.caught"] == 5
