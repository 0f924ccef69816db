"""Every call of QuPath in the scripts stands in docs/qupath-api.md, with the version in whose source it was found."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.qupath_scripts.api import ABSENT, NOTES, USED, VERSIONS, table
from tests.qupath_scripts.running import SCRIPTS

PAGE = Path(__file__).parents[2] / "docs" / "qupath-api.md"

# What the scripts call that is not QuPath's: the JDK's, Groovy's, JavaFX's, and their own.
_OTHERS = """
    accept add addAll addEventFilter addShutdownHook any append call close consume containsKey createDirectories
    currentTimeMillis delete deleteIfExists digest each encodeHex endsWith exists get getAndSet getBytes
    getCode getFileName getHeight getHostName getInstance getItems getLocalHost getName getParent getParentFile
    getProperties getProperty getRuntime getScene getText getWidth getWindows getVersion initOwner is isAltDown
    isDirectory isEmpty
    isFile isFocused isFxApplicationThread isNaN isSelected isShortcutDown join length listFiles max min move now open
    parseInt parseText poll println randomUUID read readAllBytes remove removeEventFilter removeShutdownHook replace
    replaceAll resolve respondsTo run runLater seek setDaemon setFocusTraversable setHeaderText setMaxWidth setOnAction
    setOnHidden setOnKeyPressed setOnShowing setPadding setProgress setProperty setScene setSelected setText setTitle
    setWrapText show size start stop substring toFile toJson toPath toString valueOf write
"""
OTHERS = set(_OTHERS.split())


def _code(script: Path) -> str:
    text = script.read_text(encoding="utf-8")
    return re.sub(r"//.*", "", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))


def _cells() -> dict[str, list[str]]:
    """Call -> what its row says for each version."""
    rows = [
        re.findall(r"[^|]+", line) for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    return {row[0].strip().strip("`"): [cell.strip() for cell in row[1 : 1 + len(VERSIONS)]] for row in rows}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_call_of_a_script_is_in_the_table_or_not_of_qupath(script: Path) -> None:
    called = set(re.findall(r"\.(\w+)\(", _code(script)))
    known = {member for members in USED.values() for member in members}
    assert called <= known | OTHERS
    assert set(re.findall(r"^import (qupath\.[\w.]+)", _code(script), re.MULTILINE)) <= set(USED)


def test_the_table_has_a_row_for_each_and_nothing_that_no_script_uses() -> None:
    wanted = set(USED) | {f"{name.rpartition('.')[2]}.{member}" for name, members in USED.items() for member in members}
    assert set(_cells()) == wanted
    code = "\n".join(map(_code, SCRIPTS))
    for members in USED.values():
        for member in members:
            assert re.search(rf"\b{member}\b", code) or member == "hierarchyChanged", member


def test_what_is_not_in_every_version_is_asked_for_before_it_is_called() -> None:
    for call, found in _cells().items():
        assert len(found) == len(VERSIONS)
        assert all(cell == ABSENT or cell.isdigit() for cell in found)
        if ABSENT in found:
            assert call in NOTES
            assert any(cell.isdigit() for cell in found)


def test_the_table_is_what_the_sources_say() -> None:
    clone = os.environ.get("QUPATH_SOURCES")
    if not clone:
        pytest.skip("QUPATH_SOURCES names no clone of github.com/qupath/qupath")
    assert table(Path(clone)) == PAGE.read_text(encoding="utf-8")
