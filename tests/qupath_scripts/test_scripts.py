"""The scripts that run inside QuPath: they parse with a real Groovy and speak our names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from wsi_pipeline import states
from wsi_pipeline.resources import resource

SCRIPTS = sorted(resource("qupath_scripts").glob("*.groovy"))
PARSER = Path(__file__).with_name("parse.groovy")


def _with_java_home() -> dict[str, str]:
    """Debian's groovy looks for the distribution's default Java only."""
    java = shutil.which("java")
    if "JAVA_HOME" in os.environ or java is None:
        return dict(os.environ)
    return {**os.environ, "JAVA_HOME": str(Path(java).resolve().parent.parent)}


@pytest.mark.groovy
def test_every_script_parses_and_a_broken_one_does_not(tmp_path: Path) -> None:
    broken = tmp_path / "broken.groovy"
    broken.write_text("def a = {")
    command = ["groovy", str(PARSER), *map(str, SCRIPTS), str(broken)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_with_java_home())
    verdicts = dict(line.split(" ")[1::-1] for line in done.stdout.splitlines() if line[:3] in {"ok ", "bad"})
    assert verdicts.pop(str(broken)) == "bad"
    assert verdicts == {str(script): "ok" for script in SCRIPTS}
    assert len(SCRIPTS) >= 4


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax_is_common_to_groovy_two_to_five(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    for newer in (r"!in\b", r"!instanceof", r"\bvar \w+ =", r"\?\[", r"===", r"\brecord \w+\(", r"switch .* -> "):
        assert not re.search(newer, text), newer
    assert text.isascii()


def test_scripts_and_program_use_the_same_names() -> None:
    text = {path.name: path.read_text(encoding="utf-8") for path in SCRIPTS}
    assert f"'{states.META_STATE}'" in text["wsi_review.groovy"]
    assert f"'{states.META_PRIORITY}'" in text["wsi_review.groovy"]
    assert f"'{states.REVIEW_CLASS}'" in text["wsi_review.groovy"]
    assert f"'{states.MARKER}'" in text["wsi_event_log.groovy"]
    assert f"'{states.EVENTS}'" in text["wsi_event_log.groovy"]
    for name in ("wsi_export.groovy", "wsi_import.groovy"):
        assert f"'{states.META_SLIDE}'" in text[name]
    for state in ("reviewed", "in_progress", "todo"):
        assert f"'{state}'" in text["wsi_review.groovy"]
        assert states.ImageState(state)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_removes_an_object_or_asks_quPath_to_save_everything(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert "removeObject" not in text
    assert "clearAll" not in text
