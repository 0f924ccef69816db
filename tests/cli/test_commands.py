"""What each command says and leaves behind, and the way from slides to the report."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.stages.made import CLASS, files_of, record_of, run_of, write_config
from tests.stages.test_learn import reviewed_run
from wsi_pipeline.cli.app import run
from wsi_pipeline.cohort import load_cohort
from wsi_pipeline.config import load_config
from wsi_pipeline.qupath import open_project
from wsi_pipeline.states import META_SLIDE, META_STATE

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def handed_out(slides: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a run whose project was written; not to be changed."""
    config = write_config(tmp_path_factory.mktemp("run"), slides, handout={"backend": "native", "classes": ["Stroma"]})
    assert run(["run", str(config)]) == 0
    return config


def output(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    """Standard output of a command that ends with `code`."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == code
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> Any:
    return orjson.loads(output(capsys, *arguments, "--json", code=code))


def test_slides_lists_the_cohort_for_people_and_for_programs(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, slides)
    rows = as_json(capsys, "slides", config)
    assert [(row["uri"], row["width"], row["height"], row["mpp"], row["mpp_source"]) for row in rows] == [
        (str(slides[0]), 1200, 1000, 0.5, "file"),
        (str(slides[1]), 1100, 1300, 0.42, "file"),
    ]
    assert all(row["problems"] == [] and row["reader"] for row in rows)
    lines = output(capsys, "slides", config).splitlines()
    assert lines[0].split()[:4] == ["slide", "width", "height", "mpp"]
    assert [line.split()[0] for line in lines[1:3]] == [row["slide_id"] for row in rows]
    assert lines[-1] == "2 slides, 0 that cannot be used"
    assert not run_of(config).root.exists()


def test_status_follows_a_run(slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, slides)
    for command, prediction, review in (
        (("predict", config, "--limit", "1"), ["done", "queued"], [None, None]),
        (("predict", config), ["done", "done"], [None, None]),
        (("handout", config), ["done", "done"], ["todo", "todo"]),
    ):
        output(capsys, *command)
        found = as_json(capsys, "status", config)
        assert found["run_id"] == record_of(config)["run_id"]
        assert [slide["prediction"] for slide in found["slides"]] == prediction
        assert [slide["review"] for slide in found["slides"]] == review
        assert found["problems"] == []
    table = output(capsys, "status", config)
    assert "2 done; 2 todo" in table.splitlines()[-1]
    assert all(f"\n{slide_id} " in "\n" + table for slide_id in record_of(config)["slides"])


def test_looking_changes_nothing(handed_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(run_of(handed_out))
    for command in ("status", "slides"):
        output(capsys, command, handed_out)
    output(capsys, "project", "dump", run_of(handed_out).project)
    assert files_of(run_of(handed_out)) == before


def test_run_says_each_thing_once_in_its_log(handed_out: Path) -> None:
    lines = (run_of(handed_out).log / "wsi-pipeline.log").read_text().splitlines()
    assert len([line for line in lines if " handout: 2 to do" in line]) == 1
    assert len([line for line in lines if " predict: 2 to do" in line]) == 1


def test_handing_out_twice_changes_no_byte(handed_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(run_of(handed_out))
    output(capsys, "handout", handed_out)
    assert files_of(run_of(handed_out)) == before


def test_init_writes_a_configuration_that_loads_and_never_overwrites_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "wsi-pipeline run wsi.yaml" in output(capsys, "init")
    config = load_config(Path("wsi.yaml"))
    assert (config.output, config.cohort.slides) == (tmp_path / "run", ("slides/*",))
    written = (tmp_path / "wsi.yaml").read_bytes()
    assert run(["init"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "wsi.yaml").read_bytes() == written


def test_init_takes_slides_and_model(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "mine.yaml"
    model = "baseline:stain-density?threshold=0.05"
    output(capsys, "init", path, "--slides", slides[0], "--slides", str(slides[1]), "--model", model)
    config = load_config(path)
    assert config.cohort.slides == (str(slides[0]), str(slides[1]))
    assert config.model.path == model
    assert len(as_json(capsys, "slides", path)) == 2


def test_init_takes_paths_as_they_were_given_here_whatever_is_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = 'Schnitte "Müller" \\ 1'
    output(
        capsys, "init", "a/b/wsi.yaml", "--slides", f"{odd}/*.svs", "--slides", "s3://b/*.svs", "--model", "models/m"
    )
    config = load_config(Path("a/b/wsi.yaml"))
    assert config.resolve(config.cohort.slides[0]).resolve() == tmp_path / odd / "*.svs"
    assert config.cohort.slides[1] == "s3://b/*.svs"
    assert config.resolve(config.model.path).resolve() == tmp_path / "models" / "m"
    output(capsys, "init", "a/named.yaml", "--model", "mymodels.nuclei:make?threshold=0.4")
    assert load_config(Path("a/named.yaml")).model.path == "mymodels.nuclei:make?threshold=0.4"


def test_init_names_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["init", str(tmp_path / "file" / "wsi.yaml")]) == 1
    assert f"cannot write {tmp_path / 'file' / 'wsi.yaml'}" in capsys.readouterr().err


def test_doctor_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    facts = as_json(capsys, "doctor")
    assert {"wsi-pipeline", "python", "torch", "openvino", "machine", "CUDA", "QuPath", "model cache"} <= facts.keys()
    assert {"Java", "paquo", "jpype", "paquo with QuPath", "QuPath projects by"} <= facts.keys()
    table = output(capsys, "doctor")
    assert all(line == line.rstrip() for line in table.splitlines()), "no blanks behind the text of a pipe"
    assert all(name in table for name in facts)


def test_doctor_measures_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    model = "baseline:stain-density"
    assert as_json(capsys, "doctor", "--model", model)[f"runtime for {model}"]["runtime"] == "numpy"
    assert run(["doctor", "--model", "none"]) == 1


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_configurations_that_come_along_load(path: Path) -> None:
    config = load_config(path)
    assert config.output.is_absolute()


@pytest.mark.parametrize("kind", ["slurm", "kubernetes"])
def test_the_configuration_of_a_cluster_says_which(kind: str) -> None:
    cluster = load_config(CONFIGS / f"{kind}.yaml").inference.cluster
    assert cluster is not None
    assert cluster.kind == kind


def test_every_value_of_the_quickstart_is_the_default_it_is_said_to_be() -> None:
    config = load_config(CONFIGS / "quickstart.yaml")
    for section in ("tissue", "inference", "regions", "review"):
        assert getattr(config, section) == type(getattr(config, section))()


def test_a_project_is_dumped_whole(handed_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dumped = json.loads(output(capsys, "project", "dump", run_of(handed_out).root / "project"))
    assert dumped == json.loads(output(capsys, "project", "dump", run_of(handed_out).project))
    record = record_of(handed_out)
    as_geojson = json.loads(output(capsys, "project", "dump", run_of(handed_out).project, "--format", "geojson"))
    assert {k: len(v["features"]) for k, v in as_geojson.items()} == {k: len(v["objects"]) for k, v in dumped.items()}
    text = json.dumps(dumped)
    for slide_id, slide in record["slides"].items():
        assert slide_id in text
        assert slide["name"] in text
    assert text.count(CLASS) > 2


def test_the_log_is_found_by_the_configuration_or_by_the_output(
    handed_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_of(handed_out).root
    text = output(capsys, "audit", "verify", handed_out)
    assert text == output(capsys, "audit", "verify", folder)
    assert "all as they were written" in text
    assert as_json(capsys, "audit", "verify", handed_out)["problem"] is None
    copied = shutil.copytree(folder, tmp_path / "copied")
    log = copied / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"seq":1', b'"seq":2', 1))
    assert "line 1" in output(capsys, "audit", "verify", copied, code=2)


def test_a_copy_of_a_project_does_not_differ(
    handed_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = run_of(handed_out).project
    output(capsys, "project", "copy", project, tmp_path / "copy")
    assert output(capsys, "project", "diff", project, tmp_path / "copy").strip() == "no difference"
    copied = open_project(tmp_path / "copy", backend="native")
    image = copied.images()[0]
    copied.set_metadata(image, {META_STATE: "reviewed"})
    copied.save()
    said = output(capsys, "project", "diff", project, tmp_path / "copy", code=2)
    assert META_STATE in said
    assert "reviewed" in said


def test_a_copy_goes_nowhere_that_is_there_already(
    handed_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    assert run(["project", "copy", str(run_of(handed_out).project), str(tmp_path / "there")]) == 1
    assert str(tmp_path / "there") in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("command", ["dump", "copy", "diff"])
def test_what_is_no_project_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [] if command == "dump" else [str(tmp_path / "other")]
    assert run(["project", command, str(tmp_path / "none"), *more]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error ")]
    assert len(errors) == 1
    assert str(tmp_path / "none") in errors[0]


def test_the_way_from_slides_to_the_report(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, slides, handout={"backend": "native"})
    for command in ("predict", "handout"):
        output(capsys, command, config)
    # Somebody looks at one slide and deletes a region.
    project = open_project(run_of(config).project, backend="native")
    image = project.images()[0]
    regions = [item for item in image.read_objects() if item.path_class == CLASS]
    tiles = [item for item in image.read_objects() if item.path_class != CLASS]
    project.save_objects(image, [*regions[1:], *tiles])  # type: ignore[attr-defined]
    project.set_metadata(image, {META_STATE: "reviewed"})
    project.save()

    assert "1 of 2 slides reviewed" in output(capsys, "collect", config)
    metrics = orjson.loads(run_of(config).metrics.read_bytes())
    facts = metrics["slides"][image.metadata[META_SLIDE]]
    assert facts["reviewed"]
    assert facts["counts"]["deleted"] == 1
    assert facts["counts"].get("untouched", 0) == len(regions) - 1
    review = files_of(run_of(config), below="review")
    output(capsys, "collect", config)
    assert files_of(run_of(config), below="review") == review

    assert str(run_of(config).report) in output(capsys, "report", config)
    page = run_of(config).report.read_text()
    assert "not measured" in page
    for slide_id in metrics["slides"]:
        assert slide_id in page
    assert {"reviewed", "todo"} == {slide["review"] for slide in as_json(capsys, "status", config)["slides"]}
    # Nothing is left to do, and what the pathologist did stays.
    before = files_of(run_of(config), below="project")
    assert run(["run", str(config)]) == 0
    assert files_of(run_of(config), below="project") == before


def test_evaluating_without_corrections_says_what_is_missing(
    handed_out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("train", "evaluate"):
        assert run([command, str(handed_out)]) == 1
        assert "run `wsi-pipeline collect` first" in capsys.readouterr().err


def test_evaluating_before_training_names_the_command_that_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reviewed_run(tmp_path, 2, [])
    (held_out, _) = (ref.slide_id for ref in load_cohort(load_config(tmp_path / "wsi.yaml")).slides)
    reviewed_run(tmp_path, 2, [held_out])
    assert run(["evaluate", str(tmp_path / "wsi.yaml")]) == 1
    said = capsys.readouterr().err
    assert f"learning/models/unet; run `wsi-pipeline train {tmp_path / 'wsi.yaml'}` first" in said


def test_verbose_also_says_what_happens_inside(handed_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--verbose", "status", str(handed_out)]) == 0
    assert logging.getLogger("wsi_pipeline").level == logging.DEBUG
    assert run(["status", str(handed_out)]) == 0
    assert logging.getLogger("wsi_pipeline").level == logging.INFO
