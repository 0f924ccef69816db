"""The simulated study from its first painted slide to its report in a browser: everything says that it is simulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest
import shapely

from benchmarks.simulated_study import COSTS, RATERS, REVIEW, collected, simulate
from tests.report.browser import assert_sound_in_every_look, browser
from tests.report.reading_html import read_page
from tests.sources import passing_for_measured
from wsi_pipeline.config import Privacy
from wsi_pipeline.report import write_report
from wsi_pipeline.report.export import metrics_schema, write_csv
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.report.thrift import LIMIT_BYTES
from wsi_pipeline.rundir import RunDir

pytestmark = pytest.mark.slow

SLIDES = 12


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Twelve slides, three raters, both arms, the second round done up to two thirds; with its report."""
    run = RunDir(tmp_path_factory.mktemp("simulated") / "study")
    simulate(run, SLIDES, done=2 / 3)
    collected(run)
    write_report(run, Privacy(raters_in_report=True))
    return run


@pytest.fixture(scope="module")
def metrics(study: RunDir) -> Any:
    return json.loads(study.metrics.read_bytes())


def sources(value: Any) -> set[str]:
    """Every value that stands under the key `source`."""
    if isinstance(value, dict):
        own = {value["source"]} if isinstance(value.get("source"), str) else set()
        return own.union(*(sources(inner) for inner in value.values()))
    return set().union(*(sources(inner) for inner in value)) if isinstance(value, list) else set()


def test_every_source_says_simulated(study: RunDir, metrics: Any) -> None:
    assert sources(metrics) == {"simulated"}
    for name in ("time", "region_time", "changed_tiles"):
        assert set(pq.read_table(study.review / f"{name}.parquet")["source"].to_pylist()) == {"simulated"}
    # Images that nobody, and no program, has opened yet have rows too.
    rows = pq.read_table(study.corrections).to_pylist()
    assert {row["reviewed"] for row in rows} == {True, False}
    assert {row["source"] for row in rows} == {"simulated"}


def test_nothing_in_the_whole_folder_passes_for_measured(study: RunDir) -> None:
    for path in write_csv(study, load_run(study)):
        assert path.suffix == ".csv"
    assert passing_for_measured(study.root) == []


def test_all_of_it_is_measured_as_a_study_of_people_would_be(metrics: Any) -> None:
    jsonschema.Draft202012Validator(json.loads(metrics_schema())).validate(metrics)
    # Both rounds of every rater: twelve readings, then eight.
    assert len(metrics["images"]) == 2 * SLIDES * len(RATERS)
    assert sum(image["reviewed"] for image in metrics["images"]) == (SLIDES + 8) * len(RATERS)
    saving = metrics["saving"]
    assert saving["kind"] == "measured"
    assert saving["pairs"] > 0
    assert saving["ratio_of_totals_ci95"][0] < saving["ratio_of_totals"] < saving["ratio_of_totals_ci95"][1]
    assert {split["name"] for split in saving["splits"]} == {"tissue kind", "false-positive area", "week", "order"}
    assert all(part["ci95"] is None for split in saving["splits"] for part in split["parts"]), "three raters"
    assert saving["break_even"]["currency"] == COSTS.currency
    assert saving["forecast"]["slides"] == sum(
        not image["reviewed"] for image in metrics["images"] if image["arm"] == "assisted"
    )
    assert metrics["quality"]["harmed"] <= metrics["quality"]["right"]
    assert metrics["cost"]["per_mm2"] > 0


def test_the_regions_of_each_image_add_up_to_its_time(study: RunDir) -> None:
    whole = {
        (row["slide_id"], row["batch"], row["rater"]): row["active_s"] for row in pq.read_table(study.time).to_pylist()
    }
    shared: dict[tuple[str, str, str], float] = {}
    for row in pq.read_table(study.region_time).to_pylist():
        key = (row["slide_id"], row["batch"], row["rater"])
        shared[key] = shared.get(key, 0.0) + row["active_s"]
    assert shared
    assert {key: whole[key] for key in shared} == pytest.approx(shared)
    assert REVIEW.idle_s == 300


def test_suggestions_are_valid_on_tissue_and_not_all_right(study: RunDir) -> None:
    found = [
        feature
        for path in study.root.glob("slides/*/regions.geojson")
        for feature in json.loads(path.read_bytes())["features"]
    ]
    assert len(found) > SLIDES
    assert all(shapely.from_geojson(json.dumps(feature["geometry"])).is_valid for feature in found)
    changes = set(pq.read_table(study.corrections)["change"].to_pylist())
    assert {"untouched", "edited", "deleted", "added"} <= changes


def test_nothing_is_mixed_with_what_is_there(study: RunDir) -> None:
    with pytest.raises(FileExistsError, match="not empty"):
        simulate(study, 1)


def test_page_one_calls_it_a_rehearsal_and_no_rater_by_name(study: RunDir) -> None:
    page = read_page(study.report)
    assert "How much did it save? Not measured" in page.text
    assert "Only as a rehearsal" in page.text
    assert "Dice" in page.text
    assert "exploratory" in page.text
    assert not any(name in page.text for name in RATERS)
    assert not page.unclosed


@pytest.mark.browser
def test_the_report_in_a_browser(study: RunDir, chromium: str, tmp_path: Path) -> None:
    path = study.report
    assert path.stat().st_size < LIMIT_BYTES
    with browser(chromium) as page:
        assert_sound_in_every_look(page, path)
        page.open(path)
        assert page.run("document.querySelectorAll('main > section').length") == 13
        assert page.run("document.querySelector('.alarms').getBoundingClientRect().bottom") < 900
        broken = "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash)).length"
        assert page.run(broken) == 0
        links = page.run("[...document.querySelectorAll('a:not([href^=\"#\"])')].map(a => a.getAttribute('href'))")
        assert {Path(link).name for link in links} >= {"splits.parquet", "conflicts.parquet", "region_time.parquet"}
        assert all((path.parent / link).exists() for link in links)
        # The first stop of the keyboard leads past the navigation.
        press(page, "Tab", 9)
        assert page.run("document.activeElement.className") == "skip"
        press(page, "Enter", 13)
        assert page.run("document.activeElement.id") == "main"
        # A head of the table is a button: Enter sorts.
        page.run("document.querySelector('table.sortable thead th:nth-child(1) button').focus()")
        press(page, "Enter", 13)
        assert (
            page.run("document.querySelector('table.sortable th[aria-sort]').getAttribute('aria-sort')") == "ascending"
        )
        # Every wide table can be scrolled from the keyboard, and is named for a screen reader.
        unnamed = "[...document.querySelectorAll('.scroll')].filter(e => e.tabIndex !== 0 || !e.ariaLabel).length"
        assert page.run(unnamed) == 0
        page.pdf(tmp_path / "study.pdf")
        assert page.complaints() == []


def press(page: Any, key: str, code: int) -> None:
    text = {"text": "\r"} if key == "Enter" else {}
    for kind in ("keyDown", "keyUp"):
        page.call(
            "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
            **(text if kind == "keyDown" else {}),
        )  # fmt: skip
