"""Which of QuPath's API the scripts use, looked up in QuPath's sources; makes docs/qupath-api.md.

    python -m tests.qupath_scripts.api QUPATH_CLONE > docs/qupath-api.md

QUPATH_CLONE is a git directory of github.com/qupath/qupath with its tags.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

VERSIONS = ("0.4.4", "0.5.1", "0.6.0", "0.7.0")
ABSENT = "–"
_ROOTS = ("qupath-core/src/main/java", "qupath-gui-fx/src/main/java", "qupath-core-processing/src/main/java")

# Type -> members that the scripts use; a type that is imported and nothing else has no members.
USED: dict[str, tuple[str, ...]] = {
    "qupath.lib.common.GeneralTools": ("getVersion",),
    "qupath.lib.gui.QuPathGUI": (
        *("getInstance", "getProject", "getImageData", "imageDataProperty", "getStage", "getViewer", "getViewers"),
        *("getAllViewers", "openImageEntry", "refreshProject", "getMenu", "runScript"),
    ),
    "qupath.lib.gui.prefs.PathPrefs": ("startupScriptProperty",),
    "qupath.lib.gui.viewer.QuPathViewer": (
        *("getImageData", "getView", "setDownsampleFactor", "setCenterPixelLocation"),
    ),
    "qupath.lib.images.ImageData": ("getHierarchy", "getServer", "isChanged", "setChanged"),
    "qupath.lib.io.PathIO": ("exportObjectsAsGeoJSON", "readObjects", "readImageData", "GeoJsonExportOptions"),
    "qupath.lib.measurements.MeasurementList": ("get", "put"),
    "qupath.lib.objects.PathObject": (
        *("getID", "getROI", "getName", "getPathClass", "setPathClass", "getMeasurementList"),
        *("isAnnotation", "isTile", "isLocked"),
    ),
    "qupath.lib.objects.hierarchy.PathObjectHierarchy": (
        *("addListener", "removeListener", "getAnnotationObjects", "getDetectionObjects", "getFlattenedObjectList"),
        *("addObjects", "nObjects", "getSelectionModel", "fireObjectClassificationsChangedEvent"),
    ),
    "qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent": ("isChanging",),
    "qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener": ("hierarchyChanged",),
    "qupath.lib.objects.hierarchy.events.PathObjectSelectionModel": ("getSelectedObjects",),
    "qupath.lib.projects.Project": ("getPath", "getEntry", "getImageList", "getPathClasses", "syncChanges"),
    "qupath.lib.projects.ProjectImageEntry": (
        *("getID", "getImageName", "getEntryPath", "getMetadata", "getMetadataValue", "putMetadataValue"),
        *("readImageData", "readHierarchy", "saveImageData"),
    ),
    "qupath.lib.roi.interfaces.ROI": (
        *("getRoiName", "getAllPoints", "getCentroidX", "getCentroidY", "getBoundsWidth", "getBoundsHeight"),
    ),
    "qupath.lib.geom.Point2": ("getX", "getY"),
    "qupath.lib.scripting.QP": ("getProject",),
}

# Members that a type inherits, and from which.
INHERITED = {"ProjectImageEntry.getMetadata": "qupath.lib.interfaces.MinimalMetadataStore"}

# Where a version lacks a member, what the scripts do there.
NOTES = {
    "QuPathGUI.getAllViewers": "asked with `respondsTo`; 0.4 has `getViewers`",
    "QuPathGUI.getViewers": "only where `getAllViewers` is not there",
    "PathPrefs.startupScriptProperty": "`wsi_startup` needs 0.5; 0.4 runs the scripts by hand",
    "ProjectImageEntry.getMetadata": "inherited; asked with `respondsTo`, else `getMetadataValue`",
}

_HEAD = """# What the scripts use of QuPath

Each call of QuPath that the scripts in `qupath_scripts/` make, looked up in QuPath's sources at the tags v0.4.4,
v0.5.1, v0.6.0 and v0.7.0. A number is the line of the declaration in that version's file; – means that it is not
there. The scripts were not run in QuPath for this: a table of names proves that a call exists, not that it does what
is hoped for.

A test fails when a script calls something that is not in this table. The table is made by
`python -m tests.qupath_scripts.api QUPATH_CLONE`.

| call | 0.4.4 | 0.5.1 | 0.6.0 | 0.7.0 | |
| --- | --- | --- | --- | --- | --- |
"""


def table(clone: Path) -> str:
    """The page, as Markdown."""
    sources = {version: _sources(clone, version) for version in VERSIONS}
    lines = []
    for name, members in USED.items():
        short = name.rpartition(".")[2]
        found = [
            _line(sources[v].get(name, ""), rf"^\s*(?:public\s+)?[\w\s]*\b(?:class|interface) {short}\b")
            for v in VERSIONS
        ]
        lines.append(_row(f"`{name}`", found, ""))
        for member in members:
            call = f"{short}.{member}"
            owner = INHERITED.get(call, name)
            found = [_line(sources[v].get(owner, ""), _declaration(member)) for v in VERSIONS]
            lines.append(_row(f"`{call}`", found, NOTES.get(call, "")))
    return _HEAD + "\n".join(lines) + "\n"


def _row(call: str, found: list[str], note: str) -> str:
    return f"| {call} | {' | '.join(found)} | {note} |"


def _declaration(member: str) -> str:
    """A method's or nested type's declaration: after modifiers and a type, not after a dot, and no call."""
    typed = r"(?:(?:public|default|abstract|static|final|synchronized|enum)\s+)*[\w<>\[\]?,. ]+?\s+"
    return rf"^\s*(?!return\b|else\b|new\b|\*|//){typed}{member}\s*(?:\(|\{{)"


def _line(text: str, pattern: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        return ABSENT
    start = match.start() + len(match[0]) - len(match[0].lstrip())
    return str(text.count("\n", 0, start) + 1)


def _sources(clone: Path, version: str) -> dict[str, str]:
    found = {}
    for name in (*USED, *INHERITED.values()):
        for root in _ROOTS:
            path = f"v{version}:{root}/{name.replace('.', '/')}.java"
            done = subprocess.run(["git", "-C", str(clone), "show", path], capture_output=True, check=False)
            if done.returncode == 0:
                found[name] = done.stdout.decode("utf-8", errors="replace")
                break
    return found


if __name__ == "__main__":
    sys.stdout.write(table(Path(sys.argv[1])))
