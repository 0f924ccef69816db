"""What the documentation tells people to type: the Python in it runs, and commands and options are there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages.made import record_of, small_slide, write_config
from wsi_pipeline import open_prediction
from wsi_pipeline.config import load_config
from wsi_pipeline.models import load_card
from wsi_pipeline.stages.predict import predict_cohort

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def typed() -> list[tuple[str, str]]:
    """Page and command line of each `wsi-pipeline ...` in a block or between backticks."""
    found = []
    for page in PAGES:
        lines = [line for block in blocks(page, "") for line in block.split("\n")]
        lines += re.findall(r"`(wsi-pipeline [^`]+)`", page.read_text(encoding="utf-8"))
        # What is explained behind a command stands two spaces away.
        found += [(page.name, line.split("  ")[0]) for line in lines if line.startswith("wsi-pipeline ")]
    return found


def in_a_process(code: str, folder: Path) -> None:
    """Run it as somebody would who pasted it into a file in `folder`: a module stays imported."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_net_saved_as_the_readme_says_is_a_model_that_runs(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    in_a_process(code, tmp_path)
    assert load_card(tmp_path / "models" / "mine").architecture == "unet"
    small_slide(tmp_path / "a.tif", width=500, height=400)
    config = write_config(tmp_path, ["a.tif"], model="models/mine")
    assert predict_cohort(load_config(config)).done == 1
    (slide_id,) = record_of(config)["slides"]
    maps = open_prediction(str(tmp_path / "run"), slide_id)
    assert maps.classes == ("Tumor",)
    assert maps.probability.compute().shape == (1, 200, 250)


def test_a_function_as_the_docs_say_is_a_model_that_runs(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "docs" / "models.md", "python")
    (tmp_path / "mymodels").mkdir()
    (tmp_path / "mymodels" / "nuclei.py").write_text(code, encoding="utf-8")
    small_slide(tmp_path / "a.tif", width=500, height=400)
    config = write_config(tmp_path, ["a.tif"], model="mymodels.nuclei:make?threshold=0.4")
    in_a_process(f"from wsi_pipeline.cli.app import run; raise SystemExit(run(['predict', {str(config)!r}]))", tmp_path)
    (slide,) = record_of(config)["slides"].values()
    assert slide["state"] == "done"


@pytest.mark.parametrize(("page", "line"), typed())
def test_every_command_of_the_docs_is_there_with_its_options(page: str, line: str) -> None:
    from typer.main import get_command

    from wsi_pipeline.cli.app import app

    words = shlex.split(re.sub(r"[\[\]]", "", line))[1:]
    command = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    assert not words or not hasattr(command, "commands") or words[0].startswith("-"), f"{page}: {line}: no such command"
    known = {name for parameter in command.params for name in parameter.opts} | {"--help", "--version"}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, f"{page}: {line}"
