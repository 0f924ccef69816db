"""The page as a file: complete, honest about gaps, safe, self-contained, the same every time."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.report.build_run import Recipe, build_run
from tests.report.reading_html import read_page
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.report import page as page_module
from wsi_pipeline.report import write_report
from wsi_pipeline.report.thrift import LIMIT_BYTES, STEPS
from wsi_pipeline.rundir import RunDir

N = "\u202f"
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def test_the_page_lies_in_the_run_directory_and_is_well_formed(study: RunDir) -> None:
    page = read_page(study.report)
    assert not page.unclosed
    assert len(page.ids) == len(set(page.ids))
    assert [e.attributes.get("lang") for e in page.all("html")] == ["en"]


def test_nothing_is_loaded_from_anywhere_and_every_link_leads_to_a_file_that_is_there(study: RunDir) -> None:
    page = read_page(study.report)
    links = [a for a in page.addresses if not a.startswith(("#", "data:image/"))]
    assert links
    assert all(a.startswith(("../", "tables/")) for a in links)
    assert all((study.report.parent / unquote(a)).exists() for a in links)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert "http:" not in study.report.read_text().replace("http://www.w3.org/", "")


def test_the_same_run_gives_the_same_bytes(study: RunDir, tmp_path: Path) -> None:
    copy = RunDir(tmp_path / "study")
    shutil.copytree(study.root, copy.root, ignore=shutil.ignore_patterns("report"))
    shutil.copytree(study.root.parent / "slides", tmp_path / "slides")
    assert write_report(copy).read_bytes() == study.report.read_bytes()


def test_every_switch_and_picture_has_a_name_for_those_who_do_not_see_it(study: RunDir) -> None:
    page = read_page(study.report)
    pictures = [e for e in page.all("svg") if "aria-hidden" not in e.attributes]
    assert pictures
    assert all(e.attributes["role"] == "img" for e in pictures)
    assert all(e.attributes["aria-label"] for e in pictures if e.attributes.get("class") != "chart")
    assert len(page.all("fieldset")) == len(page.all("legend"))
    assert all(e.attributes.get("scope") in {"col", "row"} for e in page.all("th"))


def test_a_measured_run_says_what_was_kept_what_it_took_and_where_that_comes_from(study: RunDir) -> None:
    text = read_page(study.report).text
    metrics = read_json(study.metrics)
    counts = metrics["totals"]["counts"]
    assert f"{counts['untouched']} kept as predicted" in text
    assert f"{counts['deleted']} deleted" in text
    assert "How much did it save? Not measured" in text
    assert "source: QuPath event log" in text
    assert "5 reviewed slides" in text
    assert "reviewed 12–14 May 2026" in text
    assert "Simulated" not in text


def test_simulated_figures_are_called_so_before_anything_else(folder: Path) -> None:
    run = build_run(folder, Recipe(slides=2, source="simulated", pictures=False))
    text = read_page(write_report(run)).text
    assert text.index("Simulated Corrections and times") < text.index("How much did it save?")
    assert "Source: simulated" in text
    assert "Only as a rehearsal" in text


def test_one_simulated_row_among_measured_ones_is_enough_for_the_banner(pair: RunDir) -> None:
    run = pair
    table = pq.read_table(run.corrections)
    sources = pa.array(["simulated", *table["source"].to_pylist()[1:]])
    index = table.schema.get_field_index("source")
    pq.write_table(table.set_column(index, "source", sources), run.corrections)
    assert "Simulated Corrections on this page" in read_page(write_report(run)).text


def test_a_run_that_was_only_predicted_claims_nothing(folder: Path) -> None:
    run = build_run(folder, Recipe(slides=3, pictures=False, collected=False, queued=frozenset({2})))
    text = read_page(write_report(run)).text
    assert "3 slides, pre-annotated study" in text
    assert "Too early to say" in text
    assert "Reviewing time not measured" in text
    assert "Cost not measured" in text
    assert "2 not handed out" in text
    assert "Not yet: no slide has been reviewed." in text
    assert "Not yet: no new model has been compared" in text
    assert "Dice 0" not in text


def test_time_that_nobody_logged_is_not_measured_and_costs_nothing_known(folder: Path) -> None:
    run = build_run(folder, Recipe(slides=2, timed=False, pictures=False))
    text = read_page(write_report(run)).text
    assert "Reviewing time not measured No event log was found in the project." in text
    assert "Cost not measured" in text
    assert "Active min" not in text


@pytest.mark.parametrize(
    "gap",
    [
        "review/metrics.json",
        "review/corrections.parquet",
        "review/time.parquet",
        "review/corrected",
        "handout",
        "slides/{first}/summary.json",
        "slides/{first}/thumbnail.jpg",
        "slides/{first}/regions.geojson",
        "slides/{first}/tiles.parquet",
        "slides/{first}",
        "slides",
    ],
)
def test_every_missing_piece_is_survived(pair: RunDir, gap: str) -> None:
    path = pair.root / gap.format(first=Recipe().slide_id(0))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = read_page(write_report(pair))
    assert not page.unclosed
    assert "None" not in page.text.replace("None: ", "").replace("None.", "").replace("None raised", "")
    assert "nan" not in page.text.split()


@pytest.mark.parametrize(
    "damaged",
    [
        "review/metrics.json",
        "review/corrections.parquet",
        "slides/{first}/tiles.parquet",
        "learning/x.json",
        "review/corrected/{first}.geojson",
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(pair: RunDir, damaged: str) -> None:
    name = damaged.format(first=Recipe().slide_id(0))
    path = pair.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"{damaged")
    text = read_page(write_report(pair)).text
    assert f"Files left out 1 {name}" in text
    assert str(pair.root) not in text


def test_a_file_of_a_newer_version_is_left_out_by_name(pair: RunDir) -> None:
    write_json(pair.metrics, {**read_json(pair.metrics), "schema": 99})
    text = read_page(write_report(pair)).text
    assert "review/metrics.json has schema 99" in text
    assert "Too early to say" in text


def test_a_folder_without_a_run_and_a_newer_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run"):
        write_report(RunDir(tmp_path))
    write_json(tmp_path / "run.json", {"schema": 99, "slides": {}})
    with pytest.raises(StoreError, match="newer version"):
        write_report(RunDir(tmp_path))


def test_a_run_without_slides_still_has_a_page(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"schema": 1, "run_id": "0", "slides": {}})
    assert "0 slides, pre-annotated" in read_page(write_report(RunDir(tmp_path))).text


def test_a_hostile_slide_name_or_reason_is_only_text(pair: RunDir) -> None:
    record = read_json(pair.run_json)
    for slide in record["slides"].values():
        slide.update(name=HOSTILE, patient=HOSTILE)
    record["slides"]["failed"] = {"state": "failed", "reason": HOSTILE}
    record["model"]["name"] = HOSTILE
    record["model"]["classes"][0]["name"] = HOSTILE
    write_json(pair.run_json, record)
    page = read_page(write_report(pair))
    assert not page.unclosed
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not any(name.startswith("on") for e in page.elements for name in e.attributes)
    assert "alert(1)" in page.text


def test_a_hostile_slide_id_is_only_text_in_tables_charts_and_pictures(folder: Path) -> None:
    hostile = "<b onload=alert(1)>'\"&$x^2$"
    run = build_run(folder, Recipe(slides=1, names={0: hostile}))
    page = read_page(write_report(run))
    assert not page.unclosed
    assert not any("onload" in e.attributes for e in page.elements)
    assert hostile in page.text
    labels = [e.attributes.get("aria-label", "") for e in page.elements]
    assert any(label.startswith(hostile) for label in labels)


def test_notes_of_the_run_stand_at_its_top_as_text(pair: RunDir) -> None:
    (pair.root / "notes.txt").write_text("Laid out from single tiles,\nsee `docs`.\n\n<b>Two</b> patients.\n")
    text = read_page(write_report(pair)).text
    assert "Laid out from single tiles, see docs . <b>Two</b> patients." in text
    assert text.index("<b>Two</b>") < text.index("How much did it save?")


def test_paths_of_the_slides_stay_out_of_the_page(study: RunDir) -> None:
    assert str(study.root.parent) not in study.report.read_text()


def test_a_page_that_would_be_too_large_gets_smaller_pictures(pair: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_report(pair).stat().st_size
    assert whole < LIMIT_BYTES
    monkeypatch.setattr(page_module, "LIMIT_BYTES", whole * 3 // 4)
    assert write_report(pair).stat().st_size <= whole * 3 // 4


def test_every_step_of_thrift_is_smaller_than_the_one_before() -> None:
    sizes = [step.plates * step.side**2 * step.quality + step.crops * step.crop_side**2 for step in STEPS]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.slow
def test_two_hundred_slides_fit_on_one_page(folder: Path) -> None:
    run = build_run(folder, Recipe(slides=200, picture_size=(320, 224)))
    path = write_report(run)
    page = read_page(path)
    assert path.stat().st_size < LIMIT_BYTES
    assert "200 reviewed slides, the 40 most changed shown" in page.text
    plates = [e for e in page.all("figure") if e.attributes.get("class") == "plate"]
    assert len(plates) == 200
    assert not list(path.parent.glob("page-*.html"))


def test_what_waits_says_how_many_tiles_of_it_are_judged(study: RunDir) -> None:
    text = " ".join(read_page(study.report).text.split())
    assert "Of the review tiles of what is in progress, 5 of 12 are judged." in text
