"""The demo: the whole loop leaves what it promises, says what is simulated, and can be called again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from tests.report.reading_html import read_page
from tests.sources import passing_for_measured, unsourced
from wsi_pipeline.cli.app import app
from wsi_pipeline.collect import Change
from wsi_pipeline.config import Privacy, load_config
from wsi_pipeline.demo import MADE, RECIPE, UNFINISHED, DemoOutcome, DemoSteps, make_room, run_demo
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.models import load_card
from wsi_pipeline.qupath import open_project
from wsi_pipeline.report import write_report
from wsi_pipeline.report.export import metrics_schema, write_csv
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.spent import read_spent
from wsi_pipeline.states import META_SLIDE, META_SOURCE, META_STATE
from wsi_pipeline.synthetic.camelyon import PLANS, Role

FEW = DemoSteps(first=16, second=4)


def ids(role: Role) -> set[str]:
    return {plan.slide_id for plan in PLANS if plan.role is role}


def contents(root: Path) -> dict[str, bytes]:
    """All files but the lock and the log, which may differ from call to call."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "run.lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files if "log" not in path.parts}


def test_another_run_is_not_touched(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"schema": 1})
    with pytest.raises(ConfigError, match="not the demo's"):
        run_demo(tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.name != "run.lock"] == ["run.json"]


def test_the_same_recipe_goes_on_and_another_moves_the_old_demo_aside(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    make_room(run, DemoSteps(seed=1))
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "work.txt").write_text("somebody's")
    (tmp_path / "mine.txt").write_text("not the demo's")
    make_room(run, DemoSteps(seed=1))
    assert (tmp_path / "project" / "work.txt").exists()
    make_room(run, DemoSteps(seed=2))
    assert (tmp_path / "earlier-1" / "project" / "work.txt").read_text() == "somebody's"
    assert not (tmp_path / "project").exists()
    assert (tmp_path / "mine.txt").exists()
    assert read_json(tmp_path / RECIPE)["seed"] == 2
    make_room(run, DemoSteps(seed=1))
    assert (tmp_path / "earlier-2" / RECIPE).exists()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoOutcome:
    return run_demo(tmp_path_factory.mktemp("demo"), steps=FEW)


@pytest.mark.slow
def test_everything_that_the_demo_promises_is_there(demo: DemoOutcome) -> None:
    root = demo.run.root
    for name in ("report/index.html", "project/project.qpproj", "review/metrics.json", "run.json"):
        assert (root / name).is_file()
    # Nothing lies outside of what is moved aside when another demo comes.
    assert {p.name for p in root.iterdir()} <= {*MADE, "run.lock", "log"}
    states = {k: v["state"] for k, v in read_json(demo.run.run_json)["slides"].items()}
    assert states == dict.fromkeys(sorted(ids(Role.REVIEW)), "done")


@pytest.mark.slow
def test_no_slide_is_both_trained_on_and_judged_on(demo: DemoOutcome) -> None:
    first = load_card(str(demo.run.root / "demo" / "models" / "first")).trained_on
    second = load_card(str(demo.run.root / "learning" / "models" / "second")).trained_on
    assert set(first.slides) == ids(Role.TRAIN)
    assert set(second.slides) == ids(Role.TRAIN) | ids(Role.REVIEW) - {UNFINISHED}
    judged = {score["slide_id"] for score in read_json(demo.run.root / "learning" / "promotion.json")["new"]}
    assert judged == ids(Role.HELD_OUT)
    assert demo.decision.left_out == {}


@pytest.mark.slow
def test_one_image_is_left_unfinished_and_counts_as_not_seen(demo: DemoOutcome) -> None:
    images = {image.metadata[META_SLIDE]: image.metadata for image in open_project(demo.run.project).images()}
    assert {k for k, m in images.items() if m[META_STATE] == "in_progress"} == {UNFINISHED}
    assert {k for k, m in images.items() if m[META_STATE] == "reviewed"} == ids(Role.REVIEW) - {UNFINISHED}
    rows = pq.read_table(demo.run.corrections)
    here = rows.filter(pc.field("slide_id") == UNFINISHED)
    untouched = here.filter(pc.field("change") == str(Change.UNTOUCHED))
    assert set(untouched["status"].to_pylist()) <= {"not_seen"}


@pytest.mark.slow
def test_everything_simulated_says_so_in_the_data_and_on_the_page(demo: DemoOutcome) -> None:
    run = demo.run
    metrics = read_json(run.metrics)
    assert list(Draft202012Validator(json.loads(metrics_schema())).iter_errors(metrics)) == []
    assert metrics["source"] == "simulated"
    assert metrics["time"]["source"] == "simulated"
    assert metrics["saving"]["status"] == "not measured"
    assert set(pq.read_table(run.corrections)["source"].to_pylist()) == {"simulated"}
    assert set(pq.read_table(run.time)["source"].to_pylist()) == {"simulated"}
    assert {image.metadata[META_SOURCE] for image in open_project(run.project).images()} == {"simulated"}
    assert read_json(run.root / "learning" / "promotion.json")["decision"]["source"] == "simulated"
    assert load_card(str(run.root / "learning" / "models" / "second")).trained_on.source == "simulated"
    page = run.report.read_text()
    assert "of one patient may be on both sides" in page
    assert "simulated" in page


@pytest.mark.slow
def test_nothing_that_the_demo_wrote_passes_for_measured_but_what_was(demo: DemoOutcome, tmp_path: Path) -> None:
    """Tables, JSON, logs, CSV and page: people drew the masks of the first model, and machines took their time."""
    copy = tmp_path / "demo"
    shutil.copytree(demo.run.root, copy)
    run = RunDir(copy)
    assert {path.stem for path in write_csv(run, load_run(run))} >= {"slides", "corrections", "time", "region_time"}
    found = passing_for_measured(copy)
    data = [line for line in found if not line.startswith("report/index.html")]
    assert data == [
        "demo/models/first/card.json.trained_on.source: measured ()",
        "review/metrics.json.cost.ledger[3].basis: measured (compute)",
    ]
    (page,) = (line for line in found if line.startswith("report/index.html"))
    assert re.search(r"Computing (under )?\S+ EUR measured predicting took", page)


@pytest.mark.slow
def test_every_figure_has_its_number_definition_source_and_data(demo: DemoOutcome, tmp_path: Path) -> None:
    copy = tmp_path / "demo"
    shutil.copytree(demo.run.root, copy)
    found = unsourced(write_report(RunDir(copy), Privacy(raters_in_report=True)))
    # Where nothing was measured, there is nothing to count and no source: the words beside it say so.
    text = " ".join(read_page(copy / "report" / "index.html").text.split())
    assert "Break-even and forecast Not measured." in text
    assert "Saving Not measured." in text
    assert [
        line for line in found if not re.match(r"saving: n, source missing in: (A ratio|Saved per slide)", line)
    ] == []


@pytest.mark.slow
def test_the_ledger_of_the_demo_counts_machines_and_room(demo: DemoOutcome) -> None:
    cost = read_json(demo.run.metrics)["cost"]
    lines = {line["name"]: line for line in cost["ledger"]}
    assert {name: line["basis"] for name, line in lines.items()} == {
        "pathologist": "simulated",
        "reviewer": "not counted",
        "adjudicator": "not counted",
        "compute": "measured",
        "storage": "modelled",
        "set_up": "not counted",
    }
    prices = load_config(demo.run.root / "demo" / "config.yaml").costs
    assert prices.compute_per_hour is not None
    spent = read_spent(demo.run.compute_log)
    assert lines["compute"]["amount"] == pytest.approx(sum(s.wall_s for s in spent) / 3600 * prices.compute_per_hour)
    assert 0 < lines["storage"]["amount"] < 1
    shown = sum(line.get("amount", 0.0) for line in lines.values())
    assert cost["total"] == pytest.approx(shown)


@pytest.mark.slow
def test_both_models_know_what_they_have_seen_and_tiles_say_how_far_they_lie_from_it(demo: DemoOutcome) -> None:
    run = demo.run
    for folder in (run.root / "demo" / "models" / "first", run.root / "learning" / "models" / "second"):
        card = load_card(str(folder))
        assert card.appearance is not None
        assert card.structure is not None
        assert card.structure.windows >= 30
        assert (folder / card.structure.file).is_file()
    found = read_json(run.metrics)["confidence"]["out_of_distribution"]
    # Which are known depends on the tissue in the middle alone, and so is the same for both.
    assert found["structure"]["tiles"] == found["appearance"]["tiles"] > 0
    assert "Is something wrong where a place is unlike the training slides?" in run.report.read_text()


@pytest.mark.slow
def test_the_lines_for_people_say_how_the_models_compare(demo: DemoOutcome) -> None:
    text = "\n".join(demo.lines)
    assert f"{demo.decision.old_dice:.3f} before the corrections, {demo.decision.new_dice:.3f} after" in text
    assert demo.decision.reason in text
    assert "simulated" in text


@pytest.mark.slow
def test_a_second_call_changes_no_byte(demo: DemoOutcome) -> None:
    before = contents(demo.run.root)
    again = run_demo(demo.run.root, steps=FEW)
    assert again.decision == demo.decision
    after = contents(demo.run.root)
    assert sorted(after) == sorted(before)
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.slow
def test_single_steps_can_be_called_with_the_demos_configuration(demo: DemoOutcome) -> None:
    path = demo.run.root / "demo" / "config.yaml"
    assert load_config(path).output == demo.run.root
    before = demo.run.metrics.read_bytes()
    for command in ("collect", "report"):
        result = CliRunner().invoke(app, [command, str(path)])
        assert result.exit_code == 0, result.output
    assert demo.run.metrics.read_bytes() == before


@pytest.mark.slow
def test_further_corrections_in_qupath_mean_a_new_second_model(demo: DemoOutcome) -> None:
    """Somebody opens the demo's project, finishes the image that was left, and calls the demo again."""
    before = load_card(str(demo.run.root / "learning" / "models" / "second"))
    project = open_project(demo.run.project, "native")
    image = next(i for i in project.images() if i.metadata[META_SLIDE] == UNFINISHED)
    project.set_metadata(image, {META_STATE: "reviewed"})
    project.save()
    run_demo(demo.run.root, steps=FEW)
    after = load_card(str(demo.run.root / "learning" / "models" / "second"))
    assert UNFINISHED in after.trained_on.slides
    assert after.model_id != before.model_id
