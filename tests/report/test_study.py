"""Pace, backlog, saving and raters as the page tells them, and the large simulated study in a real browser."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.report.big_study import BIG, RATERS
from tests.report.browser import assert_sound_in_every_look, browser
from tests.report.build_run import Recipe, build_run
from tests.report.reading_html import read_page
from wsi_pipeline.config import Privacy
from wsi_pipeline.report import page as page_module
from wsi_pipeline.report import write_report
from wsi_pipeline.report.confidence import confidence_charts, flag_table
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.report.pace import backlog, left_figure, trend, weeks
from wsi_pipeline.report.raters import raters, without_names
from wsi_pipeline.report.savings import saving_of
from wsi_pipeline.report.screen import screen
from wsi_pipeline.report.thrift import LIMIT_BYTES, Thrift
from wsi_pipeline.report.unlike import unlike_table
from wsi_pipeline.rundir import RunDir

MEASURED: Mapping[str, Any] = {
    "kind": "measured",
    "ratio": 0.66,
    "ci95": [0.52, 0.84],
    "ratio_of_totals": 0.69,
    "ratio_of_totals_ci95": [0.55, 0.87],
    "raters": 6,
    "warnings": [],
}
# Small and without pictures: 24 slides of which 15 are reviewed, by three raters over five weeks.
STUDY = Recipe(
    slides=24,
    pictures=False,
    raters=RATERS,
    weeks=5,
    todo=frozenset(range(18, 24)),
    in_progress=frozenset(range(15, 18)),
    saving=MEASURED,
    oddities=("events/lindqvist-0.jsonl: was written by m.okafor, not by lindqvist; its time is left out",),
)


@pytest.fixture(scope="module")
def folder_of_study(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return build_run(tmp_path_factory.mktemp("pace") / "study", STUDY)


@pytest.fixture(scope="module")
def facts(folder_of_study: RunDir) -> Run:
    return load_run(folder_of_study)


def with_saving(facts: Run, **changes: Any) -> Run:
    return replace(facts, metrics={**facts.metrics, "saving": {**MEASURED, **changes}})


def test_weeks_hold_every_reviewed_slide_once(facts: Run) -> None:
    found = weeks(facts)
    assert sum(week.slides for week in found) == len(facts.reviewed) == 15
    assert all((b.monday - a.monday).days == 7 for a, b in pairwise(found))
    assert all(week.monday.weekday() == 0 for week in found)
    chart = trend(facts)
    assert chart is not None
    assert chart.n == "15 reviewed slides"


def test_without_a_log_there_is_no_trend_and_no_date(folder: Path) -> None:
    run = load_run(build_run(folder, replace(STUDY, timed=False)))
    assert trend(run) is None
    figure = left_figure(run)
    assert figure is not None
    assert "no date yet" in figure.note


def test_the_end_is_told_from_the_pace_of_the_last_weeks(facts: Run) -> None:
    figure = left_figure(facts)
    assert figure is not None
    assert figure.value == "15 done, 9 left"
    recent = [week for week in weeks(facts) if week.slides][-4:]
    assert f"the pace of the last {len(recent)} weeks with work" in figure.note
    assert "done about" in figure.note


def test_what_waits_is_told_by_state_and_age_up_to_the_last_log(facts: Run) -> None:
    waiting = backlog(facts)
    assert waiting is not None
    # Handed out on 27 April; the last log is of the middle of June.
    assert waiting.ages[-1] == "over 4 weeks"
    assert {state: counts[-1] for state, counts in waiting.rows} == {"to do": 6, "in progress": 3}
    assert waiting.oldest is not None
    assert waiting.oldest[1] > 28


def test_of_what_is_in_progress_the_page_says_how_many_tiles_are_judged(facts: Run) -> None:
    waiting = backlog(facts)
    assert waiting is not None
    assert waiting.tiles == (15, 36)  # three slides in progress; what nobody has begun does not count
    without = replace(
        facts,
        slides=tuple(
            replace(s, review=None if s.review is None else replace(s.review, tiles=None)) for s in facts.slides
        ),
    )
    untold = backlog(without)
    assert untold is not None
    assert untold.tiles is None


def test_a_simulated_clock_gives_neither_ages_nor_an_end(folder: Path) -> None:
    run = load_run(build_run(folder, replace(STUDY, source="simulated")))
    waiting = backlog(run)
    assert waiting is not None
    assert waiting.ages == ("not known",)
    figure = left_figure(run)
    assert figure is not None
    assert "the clock is simulated" in figure.note


def test_a_measured_saving_is_the_answer_with_its_interval(facts: Run) -> None:
    shown = screen(facts)
    assert shown.saved == "34\u202f% less time"
    assert "16\u202f% to 48\u202f% less time" in shown.saved_why
    rows = dict(saving_of(facts).rows)
    assert rows["Ratio of total hours, which is what is paid"] == "0.690 (95\u202f% interval 0.550 to 0.870)"


@pytest.mark.parametrize(
    ("changes", "answer", "words"),
    [
        ({"ci95": [0.8, 1.3]}, "34\u202f% less time", "it includes 1, so no saving is shown"),
        ({"ratio": 1.25, "ci95": [1.1, 1.4]}, "25\u202f% more time", "10\u202f% to 40\u202f% more time"),
        ({"ci95": None}, "34\u202f% less time", "too few for an interval"),
        ({"kind": "before_after"}, "Not measured", "confounded with practice and memory"),
        ({"kind": "not_measured", "ratio": None, "reason": "only one arm"}, "Not measured", "Only one arm."),
        ({"kind": "not_measured", "ratio": None}, "Not measured", "nothing to compare with"),
        ({"source": "simulated"}, "Not measured", "The times are simulated"),
    ],
)
def test_only_a_saving_that_was_measured_is_called_one(
    facts: Run, changes: Mapping[str, Any], answer: str, words: str
) -> None:
    saving = saving_of(with_saving(facts, **changes))
    assert saving.answer == answer
    assert words in saving.why


@pytest.mark.parametrize("source", ["measured", "simulated"])
def test_for_whom_the_intervals_hold_stands_beside_them(facts: Run, source: str) -> None:
    changed = with_saving(facts, source=source, label="for these 3 raters only")
    assert dict(saving_of(changed).rows)["The intervals hold"] == "for these 3 raters only"
    assert "The intervals hold" not in dict(saving_of(with_saving(facts, label=None)).rows)
    assert "The intervals hold" not in dict(saving_of(with_saving(facts, kind="before_after", label="confounded")).rows)


def test_a_comparison_in_fixed_order_is_on_the_page_but_not_its_answer(folder: Path) -> None:
    recipe = replace(STUDY, saving={**MEASURED, "kind": "before_after"})
    text = read_page(write_report(build_run(folder, recipe))).text
    assert "How much did it save? Not measured" in text
    assert "before/after, confounded" in text
    assert "0.660" in text


def test_reservations_about_the_saving_are_alarms(facts: Run) -> None:
    one = screen(with_saving(facts, warnings=["fewer than five raters"])).alarms
    assert "Fewer than five raters." in [alarm.text for alarm in one]
    two = screen(with_saving(facts, warnings=["a", "b"])).alarms
    assert "2 reservations about the saving." in [alarm.text for alarm in two]


def test_no_rater_is_on_the_page_unless_asked_for(folder_of_study: RunDir) -> None:
    path = write_report(folder_of_study)
    html = path.read_text()
    assert not any(name in html for name in RATERS)
    # The oddity of a log names two of them, under pseudonyms.
    assert re.search(r"events/Rater [ABC]-0\.jsonl", html)
    assert 'id="raters"' not in html
    asked = read_page(write_report(folder_of_study, Privacy(raters_in_report=True, purpose="To learn."))).text
    assert "To learn." in asked
    assert not any(name in asked for name in RATERS)
    assert all(f"Rater {letter}" in asked for letter in "ABC")


def test_raters_are_in_an_order_without_meaning_and_small_numbers_are_not_told(facts: Run) -> None:
    assert raters(facts) == ()
    lines = raters(replace(facts, show_raters=True))
    assert [line.name for line in lines] == ["Rater A", "Rater B", "Rater C"]
    assert sum(line.reviewed for line in lines) == 15
    few = replace(facts, show_raters=True, slides=facts.slides[:6])
    assert all(line.active_s is None and line.untouched is None for line in raters(few))
    assert set(facts.pseudonyms) == set(RATERS)


def test_a_name_within_a_sentence_gives_way_to_its_pseudonym(facts: Run) -> None:
    words = without_names("written by m.okafor, not by lindqvist", facts)
    assert not any(name in words for name in RATERS)
    assert words.count("Rater ") == 2


def test_calibration_and_risk_are_shown_where_measured_and_only_there(facts: Run) -> None:
    assert confidence_charts(facts) == ()
    shown = confidence_charts(replace(facts, metrics={**facts.metrics, "confidence": BIG.confidence}))
    assert [chart.title for chart in shown] == [
        "Does confidence mean something?",
        "What is left wrong if only sure places are accepted?",
    ]
    assert all("<svg" in chart.svg for chart in shown)


def test_what_the_flags_find_stands_beside_random_and_best_order_and_its_caveat(facts: Run) -> None:
    assert flag_table(facts) is None
    table = flag_table(replace(facts, metrics={**facts.metrics, "confidence": BIG.confidence}))
    assert table is not None
    rows = dict(table.rows)
    assert rows["Flagged tiles that were changed"] == "61\u202f% (95\u202f% interval 55\u202f% to 67\u202f%)"
    assert rows["In random order, in the best possible"] == "10\u202f%, 66\u202f%"
    assert rows["Changed tiles that were flagged, by the random check"].startswith("58\u202f%")
    assert table.n == "5920 tiles of 148 slides"
    assert "is no error" in table.caveat
    assert table.source == "simulated"


def test_each_distance_stands_beside_each_reference_with_how_many_tiles_there_are(facts: Run) -> None:
    assert unlike_table(facts).rows == ()
    assert BIG.confidence is not None
    gap = {"status": "not measured", "reason": "no tile has a distance of features"}
    blind = {
        "source": "measured",
        "out_of_distribution": {
            "appearance": {
                "reference": "blind second read",
                "tiles": 40,
                "slides": 1,
                "flagged": 0,
                "precision": None,
                "familiar_changed": 0.5,
                "area_recall": 0.0,
            },
            "structure": gap,
        },
    }
    planted = {"flags": {"out_of_distribution": {"appearance": gap, "structure": gap}}}
    metrics = {**facts.metrics, "confidence": BIG.confidence, "second_read": blind, "planted": planted}
    table = unlike_table(replace(facts, metrics=metrics))
    assert [(row.reference, row.kind) for row in table.rows] == [
        ("changed by the reviewer", "Colour and sharpness"),
        ("changed by the reviewer", "Structure"),
        ("blind second read", "Colour and sharpness"),
    ]
    assert table.rows[1].strange == "44\u202f% of 210"
    assert table.rows[1].familiar == "21\u202f% of 5690"
    assert table.rows[1].area == "12\u202f%"
    assert table.rows[1].n == "5900 tiles of 148 slides"
    assert (table.rows[2].strange, table.rows[2].familiar) == ("no such tile", "50\u202f% of 40")
    assert table.rows[2].n == "40 tiles of 1 slide"
    assert table.n == "3 comparisons, each with its own n"
    assert replace(table, rows=table.rows[1:2]).n == "5900 tiles of 148 slides"
    # What is not there is told once, however many references lack it.
    assert table.missing == (
        "Structure: no tile has a distance of features",
        "Colour and sharpness: no tile has a distance of features",
    )
    assert table.source == "simulated"


def test_the_page_shows_both_distances(folder: Path) -> None:
    page = read_page(write_report(build_run(folder, replace(BIG, slides=3, pictures=False))))
    assert "Is something wrong where a place is unlike the training slides?" in page.text
    assert "44 % of 210" in page.text
    assert "25 % of 60" in page.text


def test_more_slides_than_one_page_holds_go_to_further_pages_with_the_same_navigation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build_run(folder, Recipe(slides=7))
    step = Thrift(plates=3, side=200, quality=60, path_characters=4000, crops=2, crop_side=100)
    monkeypatch.setattr(page_module, "STEPS", (step,))
    first = write_report(run)
    pages = [first, *(first.with_name(f"page-{n}.html") for n in (2, 3))]
    read = [read_page(path) for path in pages]
    plates = [[e.attributes["id"] for e in p.all("figure") if e.attributes.get("class") == "plate"] for p in read]
    assert [len(found) for found in plates] == [3, 3, 1]
    assert len({name for found in plates for name in found}) == 7
    assert not any(page.unclosed for page in read)
    assert {"index.html#gallery", "page-2.html#gallery", "page-3.html#gallery"} <= set(read[1].addresses)
    assert "index.html#summary" in read[2].addresses
    monkeypatch.undo()
    write_report(run)
    assert not pages[1].exists(), "a page of a longer report would show what is no longer true"


@pytest.mark.slow
@pytest.mark.browser
def test_the_simulated_study_of_two_hundred_slides_in_a_browser(chromium: str, tmp_path: Path) -> None:
    run = build_run(tmp_path / "study", BIG)
    path = write_report(run)
    assert path.stat().st_size < LIMIT_BYTES
    assert [p.name for p in path.parent.glob("*.html")] == ["index.html"]
    with browser(chromium) as page:
        assert_sound_in_every_look(page, path)
        page.open(path)
        assert page.run("document.querySelector('.questions').getBoundingClientRect().bottom") < 900
        answers = page.run("[...document.querySelectorAll('.answer')].slice(0, 2).map(e => e.textContent)")
        assert answers == ["Not measured", "Only as a rehearsal"]
        assert page.run("document.querySelectorAll('.plate').length") == 198
        broken = page.run(
            "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash)).length"
        )
        assert broken == 0
        links = page.run("[...document.querySelectorAll('a:not([href^=\"#\"])')].map(a => a.getAttribute('href'))")
        assert links
        assert all((path.parent / link).exists() for link in links)
        page.run("document.querySelector('#all input[value=\"correction\"]').click()")
        shown = "[...document.querySelectorAll('.layer-correction')].filter(e => getComputedStyle(e).display != 'none')"
        assert page.run(f"{shown}.length") == 148 + 8
        page.run("document.querySelector('#c-1 .enlarge').click()")
        page.run("document.querySelector('#c-1 .zoom button').click()")
        box = "document.querySelector('#c-1 .stage > svg').getAttribute('viewBox').split(' ').map(Number)"
        before = page.run("document.querySelector('#c-2 .stage > svg').getAttribute('viewBox')").split(" ")
        after = page.run(box)
        assert after[2] == pytest.approx(float(before[2]) / 1.5, rel=0.01)
        assert after[0] > 0
        page.run("document.querySelector('#c-1 .enlarge').click()")
        assert page.run(box)[0] == 0
        page.pdf(tmp_path / "study.pdf")
        assert os.path.getsize(tmp_path / "study.pdf") > 100_000
        assert page.complaints() == []
