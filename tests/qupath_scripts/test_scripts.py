"""The scripts that run inside QuPath: they parse with a real Groovy and speak our names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.qupath_scripts.running import PARSER, SCRIPTS, groovy
from wsi_pipeline import states

NAMES = {
    "wsi_event_log.groovy",
    "wsi_export.groovy",
    "wsi_import.groovy",
    "wsi_review.groovy",
    "wsi_startup.groovy",
}


@pytest.mark.groovy
def test_every_script_parses_and_a_broken_one_does_not(tmp_path: Path) -> None:
    broken = tmp_path / "broken.groovy"
    broken.write_text("def a = {")
    printed = groovy(PARSER, *SCRIPTS, broken)
    verdicts = dict(line.split(" ")[1::-1] for line in printed if line[:3] in {"ok ", "bad"})
    assert verdicts.pop(str(broken)) == "bad"
    assert verdicts == {str(script): "ok" for script in SCRIPTS}
    assert {script.name for script in SCRIPTS} == NAMES


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax_is_common_to_groovy_two_to_five(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    newer = [r"!in\b", r"!instanceof", r"\bvar \w+ =", r"\?\[", r"===", r"\brecord \w+\(", r"switch .* -> ", r"\) -> "]
    # A lambda, a method reference, try with resources, a do-while and an array in braces came with Groovy 3.
    newer += [r"\w::\w", r"\btry \(", r"\bdo \{", r"\] *\{ *\d"]
    for pattern in newer:
        assert not re.search(pattern, text), pattern
    assert text.isascii()


def test_scripts_and_program_use_the_same_names() -> None:
    text = {path.name: path.read_text(encoding="utf-8") for path in SCRIPTS}
    assert f"'{states.META_STATE}'" in text["wsi_review.groovy"]
    assert f"'{states.META_PRIORITY}'" in text["wsi_review.groovy"]
    assert f"'{states.REVIEW_CLASS}'" in text["wsi_review.groovy"]
    assert f"'{states.EVENTS}'" in text["wsi_event_log.groovy"]
    for name in ("wsi_event_log.groovy", "wsi_review.groovy"):
        assert f"'{states.MARKER}'" in text[name]
    for name in ("wsi_export.groovy", "wsi_import.groovy"):
        assert f"'{states.META_SLIDE}'" in text[name]
    for key in (states.META_RATER, states.META_BATCH, states.META_ARM):
        assert f"'{key}'" in text["wsi_export.groovy"]
    for state in ("reviewed", "in_progress", "todo"):
        assert f"'{state}'" in text["wsi_review.groovy"]
        assert states.ImageState(state)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_removes_an_object_or_changes_a_shape(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    for forbidden in ("removeObject", "clearAll", "setROI", "removeAll", "resetHierarchy"):
        assert forbidden not in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_path_is_joined_with_a_plus(script: Path) -> None:
    # A java.nio.file.Path is an Iterable: Groovy's plus makes a list of it.
    assert not re.search(r"\b(stored|folder|file|target|partial|path|place) \+ ", script.read_text(encoding="utf-8"))


def test_the_scripts_that_listen_let_go_of_what_they_listen_to() -> None:
    for name in ("wsi_event_log.groovy", "wsi_review.groovy"):
        text = next(path for path in SCRIPTS if path.name == name).read_text(encoding="utf-8")
        for kind in ("Listener", "EventFilter", "ShutdownHook"):
            assert bool(re.search(rf"\.add{kind}\(", text)) == bool(re.search(rf"\.remove{kind}\(", text)), (name, kind)
