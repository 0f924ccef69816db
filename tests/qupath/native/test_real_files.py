"""Files that real QuPath 0.4.4 to 0.6.0 wrote, object by object against what QuPath itself said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shapely

from tests.qupath.native.comparing import differences, same_numbers, same_region
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.native.java_reader import JavaReader
from wsi_pipeline.qupath.native.java_writer import JavaWriter
from wsi_pipeline.qupath.native.pieces import Pieces
from wsi_pipeline.qupath.native.qpdata import QpData, read_qpdata, write_qpdata
from wsi_pipeline.qupath.native.reading import read_by

pytestmark = pytest.mark.testdata

PROJECTS = [
    "q044",
    "q051",
    "q060",
    "more/q044_measurements",
    "more/q051_cells2k",
    "more/q051_measurements",
    "more/q060_names",
    "more/q060_project",
    "more/q060_rois",
]
TYPES = {
    Kind.ANNOTATION: "PathAnnotationObject",
    Kind.DETECTION: "PathDetectionObject",
    Kind.TILE: "PathTileObject",
    Kind.CELL: "PathCellObject",
}
DESCRIPTION = "ANNOTATION_DESCRIPTION"


def images(testdata: Path, project: str) -> list[tuple[dict[str, Any], bytes]]:
    """What QuPath says of each image that has data, and the data."""
    folder = testdata / "qupath" / project
    expected = json.loads((folder / "project.expected.json").read_text())
    listed = json.loads((folder / "project/project.qpproj").read_text())["images"]
    found = []
    names: set[str] = set()
    for image in listed:
        key = image["imageName"] if image["imageName"] not in names else f"{image['imageName']}#{image['entryID']}"
        names.add(image["imageName"])
        path = folder / "project/data" / str(image["entryID"]) / "data.qpdata"
        if path.exists():
            found.append((expected[key], path.read_bytes()))
        else:
            assert not expected[key]["objects"]
    return found


def argb(color: tuple[int, int, int] | None) -> int | None:
    return None if color is None else ((0xFF << 24) | color[0] << 16 | color[1] << 8 | color[2]) - (1 << 32)


def check_object(data: QpData, item: PathObject, expected: dict[str, Any]) -> None:
    assert item.uuid == expected["id"]
    assert TYPES[item.kind] == expected["type"]
    assert (item.name, item.locked, item.path_class) == (expected["name"], expected["locked"], expected["path_class"])
    assert item.parent == expected["parent"]
    assert same_numbers(item.measurements, expected["measurements"], 1e-6), item.uuid
    assert item.roi is not None
    assert item.roi.value == expected["roi"]
    assert item.geometry is not None
    assert same_region(item.geometry, shapely.from_wkt(expected["wkt"])), item.name
    if "plane" in expected:
        check_rare(data, item, expected)


def check_rare(data: QpData, item: PathObject, expected: dict[str, Any]) -> None:
    """What only the projects below `more` state."""
    assert list(item.plane) == expected["plane"]
    assert argb(item.color) == expected["color"]
    assert item.path_class is None or argb(data.class_colors[item.path_class]) == expected["class_color"]
    assert expected["class_probability"] is None or item.class_probability == expected["class_probability"]
    assert dict(item.metadata) == (expected.get("metadata") or {})
    assert item.metadata.get(DESCRIPTION) == expected.get("description")
    nucleus = expected.get("nucleus") or {"roi": None}
    assert (item.nucleus is None) == (nucleus["roi"] is None)
    if item.nucleus is not None:
        assert item.nucleus_roi is not None
        assert item.nucleus_roi.value == nucleus["roi"]
        assert same_region(item.nucleus, shapely.from_wkt(nucleus["wkt"]))


@pytest.mark.parametrize("project", PROJECTS)
def test_every_object_is_what_qupath_says_it_is(testdata: Path, project: str) -> None:
    for expected, raw in images(testdata, project):
        data = read_qpdata(raw)
        assert f"QuPathImageType.{data.image_type}" == expected["image_type"]
        assert len(data.objects) == len(expected["objects"])
        for item, said in zip(data.objects, expected["objects"], strict=True):
            check_object(data, item, said)


@pytest.mark.parametrize("project", PROJECTS)
def test_the_general_parser_alone_reads_the_same(testdata: Path, project: str) -> None:
    for _, raw in images(testdata, project):
        data, plainly = read_qpdata(raw), read_by(Pieces, raw)
        assert differences(data.objects, plainly.objects) == []
        assert data.class_colors == plainly.class_colors


@pytest.mark.parametrize("project", PROJECTS)
def test_a_stream_is_written_back_byte_for_byte(testdata: Path, project: str) -> None:
    for _, raw in images(testdata, project):
        reader, writer = JavaReader(raw), JavaWriter()
        while reader.pos < reader.size:
            block = reader.block()
            if block:
                writer.block(block)
            else:
                writer.write(reader.read())
        assert writer.getvalue() == raw


@pytest.mark.parametrize("project", PROJECTS)
def test_a_file_that_is_read_and_written_holds_the_same(testdata: Path, project: str) -> None:
    for expected, raw in images(testdata, project):
        data = read_qpdata(raw)
        written = write_qpdata(data)
        again = read_qpdata(written)
        assert differences(data.objects, again.objects) == []
        assert (again.server_json, again.image_type, again.stains) == (data.server_json, data.image_type, data.stains)
        assert (again.class_colors, again.properties) == (data.class_colors, data.properties)
        assert again.root_uuid == data.root_uuid
        assert write_qpdata(again) == written
        for item, said in zip(again.objects, expected["objects"], strict=True):
            check_object(again, item, said)


@pytest.mark.parametrize("project", PROJECTS)
def test_what_lies_before_the_hierarchy_is_kept_byte_for_byte(testdata: Path, project: str) -> None:
    mark = b"qupath.lib.objects.hierarchy.PathObjectHierarchy"
    for _, raw in images(testdata, project):
        before = raw.index(mark)
        assert write_qpdata(read_qpdata(raw))[:before] == raw[:before]


@pytest.mark.parametrize("project", ["more/q060_project", "more/q060_names"])
def test_stains_are_read_as_qupath_shows_them(testdata: Path, project: str) -> None:
    for expected, raw in images(testdata, project):
        stains = read_qpdata(raw).stains
        assert (stains is None) == (expected["stains"] is None)
        assert stains is None or stains["Name"] == expected["stains"].split("|")[0]
