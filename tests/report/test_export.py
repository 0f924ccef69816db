"""Tables, CSV, the schema of metrics.json and MLflow: what others read is what the documents say."""

from __future__ import annotations

import csv
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest

from tests.handout.made import CLASSES, SETTINGS, set_state, slide
from tests.report.big_study import BIG
from tests.report.build_run import Recipe, _metrics, build_run
from wsi_pipeline.cli.app import run as command
from wsi_pipeline.collect import collect
from wsi_pipeline.collect.changed import TYPES as CHANGED_TILES
from wsi_pipeline.collect.judged import TYPES as JUDGED_TILES
from wsi_pipeline.collect.region_times import TYPES as REGION_TIMES
from wsi_pipeline.collect.tables import write_corrections, write_table
from wsi_pipeline.collect.times import write_times
from wsi_pipeline.config import Costs, Review
from wsi_pipeline.errors import ConfigError, StoreError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.handout import hand_out
from wsi_pipeline.regions.tiles import write_tiles
from wsi_pipeline.report.export import CLASSES as CLASSES_SCHEMA
from wsi_pipeline.report.export import SLIDES, figures_of, metrics_schema, write_csv
from wsi_pipeline.report.figure_tables import CONFLICTS, MODELLED, SPLITS
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.report.page import write_report
from wsi_pipeline.report.tracking import log_run
from wsi_pipeline.rundir import RunDir

DOCS = Path(__file__).parents[2] / "docs"


def documented() -> dict[str, dict[str, str]]:
    """Columns and types by table, as docs/tables.md has them."""
    tables: dict[str, dict[str, str]] = {}
    for section in (DOCS / "tables.md").read_text().split("\n## ")[1:]:
        rows = re.findall(r"^\| (\w+) \| ([\w\[\]]+) \|", section, re.MULTILINE)
        tables[section.split("\n")[0]] = {name: kind for name, kind in rows if name != "column"}
    return {name: columns for name, columns in tables.items() if columns}


def written(folder: Path) -> dict[str, dict[str, str]]:
    """Columns and types as they are written."""
    write_corrections(folder / "corrections.parquet", [])
    write_times(folder / "time.parquet", [])
    write_tiles(folder / "tiles.parquet", [])
    write_table(folder / "region_time.parquet", [], REGION_TIMES)
    write_table(folder / "changed_tiles.parquet", [], CHANGED_TILES)
    write_table(folder / "judged_tiles.parquet", [], JUDGED_TILES)
    schemas = {path.stem: pq.read_schema(path) for path in folder.glob("*.parquet")}
    schemas |= {"slides": SLIDES, "classes": CLASSES_SCHEMA, "splits": SPLITS, "conflicts": CONFLICTS}
    schemas["modelled_time"] = MODELLED
    return {name: {field.name: str(field.type) for field in schema} for name, schema in schemas.items()}


def test_every_column_is_documented_with_its_type_and_every_documented_column_is_written(tmp_path: Path) -> None:
    assert written(tmp_path) == documented()


def test_the_schema_in_the_documents_is_the_one_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert (DOCS / "metrics.schema.json").read_text() == metrics_schema()
    assert command(["report", "--schema"]) == 0
    assert capsys.readouterr().out == metrics_schema()
    jsonschema.Draft202012Validator.check_schema(json.loads(metrics_schema()))


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(metrics_schema()))


def test_what_collect_writes_is_valid(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    hand_out(run, SETTINGS, CLASSES, [slide(tmp_path, "s1"), slide(tmp_path, "s2")])
    set_state(run, "reviewed")
    collect(run, Review(), Costs(pathologist_per_hour=120))
    assert list(validator().iter_errors(read_json(run.metrics))) == []


@pytest.mark.parametrize("recipe", [Recipe(slides=2), Recipe(slides=2, timed=False), BIG])
def test_the_metrics_that_the_reports_tests_use_are_valid(recipe: Recipe, tmp_path: Path) -> None:
    metrics = _metrics(recipe, {}) if recipe is BIG else read_json(build_run(tmp_path / "study", recipe).metrics)
    assert list(validator().iter_errors(metrics)) == []


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("saving", {"kind": "measured"}),
        ("saving", {"kind": "guessed", "ratio": 0.5}),
        ("saving", {"status": "not measured"}),
        ("source", "assumed"),
        ("tolerance_um", 0),
        ("time", {"active_s": 3}),
        ("schema", "1"),
        ("slides", {"a": {"reviewed": "yes", "counts": {}, "classes": {}}}),
        ("slides", {"a": {"reviewed": True, "counts": {"touched": 1}, "classes": {}}}),
    ],
)
def test_what_is_wrong_is_not_valid(key: str, wrong: Any, small: RunDir) -> None:
    assert not validator().is_valid({**read_json(small.metrics), key: wrong})


def test_csv_holds_every_row_and_nothing_for_a_gap(pair: RunDir) -> None:
    paths = {path.stem: path for path in write_csv(pair, load_run(pair))}
    assert set(paths) == {"slides", "classes", "corrections", "time", "tiles"}
    with paths["corrections"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(pair.corrections)
    assert [row["uuid_before"] or None for row in rows] == table["uuid_before"].to_pylist()
    assert [float(row["kept_um2"]) for row in rows] == table["kept_um2"].to_pylist()
    with paths["tiles"].open(encoding="utf-8", newline="") as file:
        assert len({row["slide_id"] for row in csv.DictReader(file)}) == 2


SPLIT = {
    "name": "order",
    "label": "exploratory",
    "refused": None,
    "parts": [{"group": "first", "ratio": 0.5, "ci95": None, "raters": 1, "slides": 2, "readings": 4}],
}


def set_splits(run: RunDir, *splits: dict[str, Any]) -> None:
    metrics = read_json(run.metrics)
    write_json(run.metrics, {**metrics, "saving": {**metrics["saving"], "splits": list(splits)}})


def test_csv_of_an_earlier_report_never_contradict_a_new_page(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", Recipe(slides=2))
    set_splits(run, SPLIT)
    folder = run.report.parent / "tables"
    paths = write_csv(run, load_run(run))
    assert "splits" in {path.stem for path in paths}
    (folder / "classes.csv").unlink()
    before = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    write_report(run)
    assert {path.name: path.read_bytes() for path in folder.glob("*.csv")} == before, "the same run, the same bytes"
    rows = pq.read_table(run.corrections).slice(1)
    pq.write_table(rows, run.corrections)
    set_splits(run)
    write_report(run)
    with (folder / "corrections.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == rows.num_rows
    left = {path.name for path in folder.glob("*.csv")}
    assert left == set(before) - {"splits.csv"}, "a table that nobody asked for is not made, one without rows goes"


def test_a_users_own_files_stay_whatever_they_are_called(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", Recipe(slides=2))
    write_report(run)
    folder = run.report.parent / "tables"
    own = {
        folder / "notes.csv": "slide_id,note\nx,mine\n",
        folder / "splits.csv": "my column,other\n1,2\n",
        folder / "corrections.csv": "",
        folder / "mine.parquet": "no table at all",
        run.report.with_name("page-notes.html"): "<p>mine</p>",
    }
    for path, text in own.items():
        path.write_text(text)
    write_report(run)
    assert {path: path.read_text() for path in own} == own


def test_csv_alone_takes_an_older_page_along(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", Recipe(slides=2))
    config = tmp_path / "wsi.yaml"
    config.write_text("output: run\ncohort: {slides: '*.tif'}\nmodel: {path: 'baseline:stain-density'}\n")
    assert command(["report", str(config), "--format", "csv"]) == 0
    assert not run.report.exists(), "nobody asked for a page"
    write_report(run)
    before = run.report.read_text()
    metrics = read_json(run.metrics)
    write_json(run.metrics, {**metrics, "cost": {**metrics["cost"], "total": 98_765.0}})
    assert command(["report", str(config), "--format", "csv"]) == 0
    assert run.report.read_text() != before
    assert "98\u202f765" in run.report.read_text()


def test_the_slides_table_has_figures_of_review_for_reviewed_slides_only(study: RunDir) -> None:
    rows = pq.read_table(study.report.parent / "tables" / "slides.parquet").to_pylist()
    metrics = read_json(study.metrics)["slides"]
    assert len(rows) == 8
    for row in rows:
        reviewed = metrics.get(row["slide_id"], {}).get("reviewed", False)
        assert (row["untouched"] is not None) == reviewed
        assert (row["week"] is not None) == reviewed
        if reviewed:
            assert row["untouched"] == metrics[row["slide_id"]]["counts"]["untouched"]
            assert str(row["week"]) == "2026-05-11"


class Tracker(BaseHTTPRequestHandler):
    """The four end points of MLflow's REST API that are used, as its server answers them."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012 - one server at a time
    answers = {  # noqa: RUF012
        "experiments/search": {},
        "experiments/create": {"experiment_id": "7"},
        "runs/create": {"run": {"info": {"run_id": "abc"}}},
        "runs/log-batch": {},
        "runs/update": {},
    }

    def do_POST(self) -> None:
        name = self.path.removeprefix("/api/2.0/mlflow/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.calls.append((name, body))
        known = name in self.answers
        value = self.answers[name] if known else {"message": "no such end point"}
        data = json.dumps(value).encode()
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def tracker() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tracker)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Tracker.calls.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_mlflow_gets_every_figure_and_neither_slides_nor_raters(tracker: str, small: RunDir) -> None:
    facts = load_run(small)
    assert log_run(tracker, facts) == "abc"
    names = [name for name, _ in Tracker.calls]
    assert names == ["experiments/search", "experiments/create", "runs/create", "runs/log-batch", "runs/update"]
    batch = Tracker.calls[3][1]
    assert {m["key"]: m["value"] for m in batch["metrics"]} == figures_of(facts)
    assert figures_of(facts)["totals.reviewed"] == 2
    sent = json.dumps([body for _, body in Tracker.calls])
    assert not any(word in sent for word in ("rater-1", str(small.root), *(s.slide_id for s in facts.slides)))


def test_a_server_that_is_not_there_or_no_server_is_one_clear_line(small: RunDir, tracker: str) -> None:
    with pytest.raises(StoreError, match="cannot be reached"):
        log_run("http://127.0.0.1:9", load_run(small))
    with pytest.raises(ConfigError, match="address of a tracking server"):
        log_run("file:///etc/passwd", load_run(small))
    with pytest.raises(StoreError, match="no such end point"):
        log_run(f"{tracker}/elsewhere", load_run(small))


def test_mlflow_is_imported_nowhere() -> None:
    root = Path(__file__).parents[2] / "wsi_pipeline"
    assert not [p for p in root.rglob("*.py") if re.search(r"^\s*(import|from) mlflow", p.read_text(), re.MULTILINE)]
