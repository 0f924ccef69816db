"""What the shell is told: 0 all done, 1 usage or configuration, 2 some slides failed, 130 interrupted."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.stages.made import files_of, run_of, small_slide, start, states_of, write_config
from tests.watching import files_below
from wsi_pipeline.cli.app import app, run
from wsi_pipeline.stages.lock import exclusive

COMMANDS = [
    ("demo",),
    ("init",),
    ("doctor",),
    ("slides",),
    ("predict",),
    ("handout",),
    ("run",),
    ("collect",),
    ("report",),
    ("status",),
    ("train",),
    ("evaluate",),
    ("project",),
    ("project", "dump"),
    ("project", "copy"),
    ("project", "diff"),
]


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """Standard output, and the lines of standard error."""
    out, err = capsys.readouterr()
    return out, err.splitlines()


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one error line that was said."""
    _, lines = said(capsys)
    errors = [line for line in lines if line.startswith("error ")]
    assert len(errors) == 1, lines
    return errors[0]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_explains_itself(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    text, _ = said(capsys)
    assert f"Usage: wsi-pipeline {' '.join(command)} " in text
    lines = [line for line in text.splitlines() if line.strip()]
    # A sentence after the usage line, and words for each option and argument.
    assert {".", "?"} & set(lines[1] + lines[2])
    for line in lines:
        if line.startswith("│ --"):
            assert any(word[:1].isupper() for word in line.split()[2:]), line


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text, _ = said(capsys)
    named = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert named == {command[0] for command in COMMANDS} - {"project"}
    for name in (*named, "project"):
        assert f"│ {name} " in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["predcit"], "predcit"),
        (["predict"], "CONFIG"),
        (["predict", "--fast", "wsi.yaml"], "--fast"),
        (["predict", "wsi.yaml", "--limit", "0"], "--limit"),
        (["predict", "wsi.yaml", "--limit", "two"], "--limit"),
        (["project", "open"], "open"),
    ],
)
def test_a_wrong_command_line_is_usage(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 1
    out, err = said(capsys)
    assert not out
    assert any(line.startswith("Error: ") and named in line for line in err)


def test_a_missing_configuration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("slides", "predict", "run", "handout", "collect", "report", "status", "train", "evaluate"):
        assert run([command, str(tmp_path / "none.yaml")]) == 1
        assert "none.yaml: No such file" in complaint(capsys)


def test_an_unknown_key_comes_with_a_suggestion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, ["*.tif"], regions={"treshold": 0.4})
    assert run(["predict", str(config)]) == 1
    assert "regions.treshold: unknown key; did you mean `threshold`?" in complaint(capsys)
    assert not run_of(config).root.exists()


def test_each_problem_of_a_configuration_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, ["*.tif"], regions={"threshold": 1.5}, inference={"block": 100})
    assert run(["predict", str(config)]) == 1
    _, err = said(capsys)
    assert len(err) == 2
    assert all(line.startswith(f"error {config}: ") for line in err)


def test_all_slides_done_is_zero_and_some_failed_is_two(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, [slides[0]])
    assert run(["predict", str(config)]) == 0
    assert "1 slides done, 0 failed, 0 left" in said(capsys)[0]
    (tmp_path / "broken.svs").write_text("no slide")
    write_config(tmp_path, [*slides, "broken.svs"])
    for command in ("predict", "run"):
        assert run([command, str(config)]) == 2
        out, _ = said(capsys)
        assert "2 slides done, 1 failed, 0 left" in out
        assert "  failed broken-" in out
    assert states_of(config) == {"even.tif": "done", "odd.tif": "done", "broken.svs": "failed"}


def test_an_output_that_cannot_be_written_is_one_line(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Below a file nobody can write, whatever the permissions.
    config = write_config(tmp_path, [slides[0]])
    run_of(config).root.write_text("a file")
    for command in ("predict", "run", "handout", "collect", "train"):
        assert run([command, str(config)]) == 1
        line = complaint(capsys)
        assert f"cannot write {run_of(config).root}" in line
        assert "give another `output` or mend its permissions" in line
    assert run_of(config).root.read_text() == "a file"


def test_a_run_that_another_process_works_on_is_refused(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, [slides[0]])
    with exclusive(run_of(config).lock):
        for command in ("predict", "handout", "collect"):
            assert run([command, str(config)]) == 1
            line = complaint(capsys)
            assert "is being written by process" in line
            assert "wait for it, or give another `output`" in line
    assert run(["predict", str(config)]) == 0


def test_commands_that_need_a_run_say_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, ["*.tif"])
    for command in ("status", "handout", "collect", "report"):
        assert run([command, str(config)]) == 1
        assert "wsi-pipeline" in complaint(capsys)


def test_a_model_that_is_not_there_is_named(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, [slides[0]], model="models/none")
    for command in ("slides", "predict"):
        assert run([command, str(config)]) == 1
        assert str(tmp_path / "models" / "none") in complaint(capsys)


def test_the_program_ends_with_the_code(tmp_path: Path) -> None:
    process = start("status", tmp_path / "none.yaml")
    out, err = process.communicate()
    assert process.returncode == 1
    assert not out
    assert err.count("\n") == 1
    assert "cannot read the configuration" in err


def test_an_interrupt_is_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    small_slide(tmp_path / "slide.tif", width=2000, height=1800)
    config = write_config(tmp_path, ["slide.tif"], model="baseline:stain-density?mpp=0.5&threshold=0.05")
    process = start("predict", config)
    while not files_below(run_of(config).root, "prediction.zarr/probability/c/0/*/*"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; the same command goes on from here"
    assert "Traceback" not in err
    assert run(["predict", str(config)]) == 0
    resumed = files_of(run_of(config))
    assert run(["predict", str(config)]) == 0
    assert files_of(run_of(config)) == resumed


def test_two_places_to_run_at_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, [small_slide(tmp_path / "a.tif")])
    assert run(["predict", str(config), "--scheduler", "tcp://127.0.0.1:9", "--cluster", "slurm"]) == 1
    assert "--scheduler and --cluster are two places to run at; give one of them" in complaint(capsys)


@pytest.mark.slow
def test_the_place_of_the_command_line_goes_before_that_of_the_file(tmp_path: Path) -> None:
    # Nobody listens there.
    config = write_config(tmp_path, [small_slide(tmp_path / "a.tif")], inference={"scheduler": "tcp://127.0.0.1:9"})
    assert run(["predict", str(config), "--workers", "1"]) == 0


def test_the_name_of_a_function_is_told_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`:factory:` is the name of a picture to rich, which prints the errors."""
    config = write_config(tmp_path, [small_slide(tmp_path / "a.tif")], model="no.such.module:factory")
    assert run(["predict", str(config)]) == 1
    assert "no.such.module:factory:" in complaint(capsys)
