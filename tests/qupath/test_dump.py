"""Dumping, comparing and copying whole projects."""

from __future__ import annotations

import json
import math
import struct
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import shapely

from tests.qupath.test_native_project import _object, _project
from wsi_pipeline.errors import ProjectError, QuPathFormatError
from wsi_pipeline.objects import Kind, PathClass, PathObject, Roi
from wsi_pipeline.qupath.copying import copy_project
from wsi_pipeline.qupath.diff import diff_dumps, diff_objects, diff_projects
from wsi_pipeline.qupath.dump import dump_object, dump_project, geojson_of_project, roi_of
from wsi_pipeline.qupath.geojson import read_geojson
from wsi_pipeline.qupath.native.data import TmaGrid
from wsi_pipeline.qupath.native.descriptors import WORKFLOW
from wsi_pipeline.qupath.native.java_model import JavaObject, JavaString
from wsi_pipeline.qupath.native.qpdata import QpData, read_qpdata, write_qpdata
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.qupath.project_file import gson

REAL = [
    "q044",
    "q051",
    "q060",
    "more/q060_rois",
    "more/q060_names",
    "more/q044_measurements",
    "more/q051_measurements",
    "more/q051_cells2k",
    "more/q060_project",
]


@pytest.mark.testdata
@pytest.mark.parametrize("name", REAL)
def test_a_dump_is_what_qupath_itself_said_of_its_project(testdata: Path, name: str) -> None:
    folder = testdata / "qupath" / name
    expected = json.loads((folder / "project.expected.json").read_text(encoding="utf-8"))
    dumped = dump_project(folder / "project")
    assert list(dumped) == list(expected)
    for key, wanted in expected.items():
        got = dumped[key]
        for field in wanted.keys() - {"objects"}:
            if field in {"width", "height"} and got[field] is None:
                # The project states no size of this slide, and QuPath had the slide itself.
                assert orjson.loads((folder / "project/project.qpproj").read_bytes())["images"][2]["imageName"] == key
                continue
            assert got[field] == wanted[field], field
        assert [o["id"] for o in got["objects"]] == [o["id"] for o in wanted["objects"]]
        for read, said in zip(got["objects"], wanted["objects"], strict=True):
            # The older expectations say less of an object.
            assert diff_objects({k: v for k, v in read.items() if k in said}, said) == []


@pytest.mark.testdata
@pytest.mark.parametrize("name", REAL)
def test_a_copy_says_the_same_and_copies_what_is_not_understood(testdata: Path, tmp_path: Path, name: str) -> None:
    source = testdata / "qupath" / name / "project"
    assert copy_project(source, tmp_path / "copy") == len(dump_project(source))
    assert diff_projects(source, tmp_path / "copy") == []
    for path in source.rglob("*"):
        copied = tmp_path / "copy" / path.relative_to(source)
        assert copied.exists()
        if path.is_file() and path.name != "data.qpdata":
            assert copied.read_bytes() == path.read_bytes()


def test_a_copy_needs_an_empty_place_outside_of_the_project(tmp_path: Path) -> None:
    _project(tmp_path / "p")
    with pytest.raises(ProjectError, match="inside"):
        copy_project(tmp_path / "p", tmp_path / "p" / "q")
    with pytest.raises(ProjectError, match="not an empty folder"):
        copy_project(tmp_path / "p", tmp_path)
    with pytest.raises(ProjectError, match="not an empty folder"):
        copy_project(tmp_path / "p", tmp_path / "p" / "project.qpproj")


def test_a_project_that_cannot_be_read_in_full_is_not_copied_in_part(tmp_path: Path) -> None:
    _project(tmp_path / "p")
    (tmp_path / "p/data/1/data.qpdata").write_bytes(b"\xac\xed\x00\x05")
    with pytest.raises(QuPathFormatError, match=r"a\.svs"):
        copy_project(tmp_path / "p", tmp_path / "q")
    assert not (tmp_path / "q" / "project.qpproj").exists()
    with pytest.raises(QuPathFormatError, match=r"a\.svs"):
        dump_project(tmp_path / "p")


def test_images_of_one_name_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    project = _project(tmp_path)
    project.add_image("file:///slides/b.svs", "b.svs", size=(7, 8), mpp=0.5, mpp_source="config")
    project.save()
    raw = orjson.loads(project.path.read_bytes())
    raw["images"][1]["imageName"] = "a.svs"
    raw["images"][1]["serverBuilder"]["uri"] = raw["images"][0]["serverBuilder"]["uri"]
    project.path.write_bytes(gson(raw))
    dumped = dump_project(tmp_path)
    assert list(dumped) == ["a.svs", "a.svs#2"]
    # The second entry states the size of the slide that both show.
    assert [(v["width"], v["pixel_size"]) for v in dumped.values()] == [(7, [0.5, 0.5, "µm"])] * 2


def test_a_dump_says_everything_of_an_object() -> None:
    item = PathObject(
        uuid="u",
        kind=Kind.CELL,
        geometry=shapely.box(0, 0, 2, 2),
        path_class="Tumor",
        color=(1, 2, 3),
        nucleus=shapely.Point(1, 1).buffer(0.5),
        measurements={"a": math.nan},
        class_probability=0.25,
    )
    dumped = dump_object(item, {"Tumor": (200, 0, 0)})
    assert dumped["roi"] == "Rectangle"
    assert dumped["nucleus"]["roi"] == "Polygon"
    assert (dumped["color"], dumped["class_color"]) == (-16711165, -3670016)
    assert (dumped["class_probability"], dumped["plane"]) == (0.25, [-1, 0, 0])
    assert "metadata" not in dumped
    core = dump_object(PathObject(uuid="c", kind=Kind.TMA_CORE, geometry=None, missing=True), {})
    assert (core["roi"], core["wkt"], core["missing"], core["type"]) == (None, None, True, "TMACoreObject")


@pytest.mark.parametrize(
    ("wkt", "roi"),
    [
        ("POINT (1 1)", Roi.POINTS),
        ("MULTIPOINT ((1 1), (2 2))", Roi.POINTS),
        ("LINESTRING (0 0, 1 1)", Roi.LINE),
        ("LINESTRING (0 0, 1 1, 2 0)", Roi.POLYLINE),
        ("POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0))", Roi.RECTANGLE),
        ("POLYGON ((0 0, 1 0, 1 1, 0 0))", Roi.POLYGON),
        ("POLYGON ((0 0, 9 0, 9 9, 0 9, 0 0), (1 1, 2 1, 2 2, 1 1))", Roi.GEOMETRY),
        ("MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)))", Roi.GEOMETRY),
    ],
)
def test_a_shape_of_no_stated_kind_gets_the_kind_that_qupath_would_give_it(wkt: str, roi: Roi) -> None:
    assert roi_of(shapely.from_wkt(wkt)) is roi


def test_equal_projects_have_no_difference(tmp_path: Path) -> None:
    for name in ("a", "b"):
        project = _project(tmp_path / name)
        project.add_objects(1, [_object(1)])
    assert diff_projects(tmp_path / "a", tmp_path / "b") == []


def test_every_difference_is_named_once(tmp_path: Path) -> None:
    first, second = _project(tmp_path / "a"), _project(tmp_path / "b")
    first.add_objects(1, [_object(1), _object(2, 20)])
    second.path_classes = [PathClass("Tumor", (9, 9, 9))]
    second.set_metadata(1, {"state": "reviewed"})
    second.save()
    second.add_objects(1, [_object(1, 3), _object(3, 50)])
    said = "\n".join(diff_projects(tmp_path / "a", tmp_path / "b"))
    assert "metadata {} is {'state': 'reviewed'}" in said
    assert f"{_object(2).uuid} (Tumor annotation) is only in the first" in said
    assert f"{_object(3).uuid} (Tumor annotation) is only in the second" in said
    assert f"{_object(1).uuid}: its shape differs (80 px²; 80 px² in the second project)" in said
    assert "colour of the class" in said
    assert "list of classes [] is [['Tumor', (9, 9, 9)]] in the second project" in said
    assert len(said.splitlines()) == 6


def rewritten(project: NativeProject, change: Callable[[QpData], QpData]) -> None:
    path = project.path.parent / "data" / "1" / "data.qpdata"
    path.write_bytes(write_qpdata(change(read_qpdata(path.read_bytes()))))


def test_what_lies_beside_the_objects_is_compared_too(tmp_path: Path) -> None:
    first, second = _project(tmp_path / "a"), _project(tmp_path / "b")
    for number, project in enumerate((first, second)):
        project.add_objects(1, [_object(1)])
        place = {"PROJECT_ENTRY_ID": f"place {number}::1"}
        rewritten(project, partial(QpData.with_properties, texts=place))
    # Where a project lies is no difference.
    assert diff_projects(tmp_path / "a", tmp_path / "b") == []
    rewritten(second, lambda d: d.with_properties({"mark": "x"}))
    (said,) = diff_projects(tmp_path / "a", tmp_path / "b")
    assert said == "image 'a.svs': properties {} is {'mark': 'x'} in the second project"
    rewritten(first, lambda d: d.with_properties({"mark": "x"}))
    step = JavaObject(WORKFLOW, content=[struct.pack(">ii", 1, 1), JavaString("a step")])
    rewritten(second, lambda d: replace(d, kept=replace(d.kept, workflow=step)))
    assert diff_projects(tmp_path / "a", tmp_path / "b") == ["image 'a.svs': the steps of its workflow differ"]


def test_a_grid_of_cores_that_is_lost_is_named(tmp_path: Path) -> None:
    core = PathObject(str(uuid.UUID(int=7)), Kind.TMA_CORE, shapely.Point(5, 5).buffer(4))
    for name, grid in (("a", TmaGrid(1, 1, (core.uuid,))), ("b", None)):
        project = _project(tmp_path / name)
        project.add_objects(1, [core])
        rewritten(project, partial(replace, tma_grid=grid))
    (said,) = diff_projects(tmp_path / "a", tmp_path / "b")
    assert said == f"image 'a.svs': TMA grid [1, 1, ('{core.uuid}',)] is None in the second project"


def test_images_and_measurements_that_differ_are_named() -> None:
    item: dict[str, Any] = {"id": "1", "type": "PathAnnotationObject", "path_class": None, "wkt": "POINT (1 1)"}
    a = {"x": {"objects": [{**item, "measurements": {"p": 1.0, "n": math.nan}}, {**item, "id": "2"}]}, "y": {}}
    b = {"x": {"objects": [{**item, "id": "2"}, {**item, "measurements": {"p": 1.5, "q": 2.0}}]}}
    said = diff_dumps(a, b)
    assert said[0] == "image 'y' is only in the first project"
    assert "image 'x': the objects stand in another order" in said
    assert "image 'x': object 1: measurement 'p' 1 is 1.5 in the second project" in said
    assert "image 'x': object 1: measurement 'n' is only in the first project" in said
    assert "image 'x': object 1: measurement 'q' is only in the second project" in said
    assert len(said) == 5


def test_of_metadata_only_what_differs_is_named() -> None:
    a = {"x": {"objects": [], "metadata": {"state": "todo", "rater": "ann", "old": "1"}}}
    b = {"x": {"objects": [], "metadata": {"state": "reviewed", "rater": "ann", "source": "simulated"}}}
    assert diff_dumps(a, b) == [
        "image 'x': metadata 'state' 'todo' is 'reviewed' in the second project",
        "image 'x': metadata 'old' ('1') is only in the first project",
        "image 'x': metadata 'source' ('simulated') is only in the second project",
    ]
    assert diff_dumps(a, a) == []


def test_dumping_leaves_the_project_as_it_is(tmp_path: Path) -> None:
    project = _project(tmp_path)
    (tmp_path / "classifiers").rmdir()
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    dump_project(project.path)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
    assert NativeProject.open(tmp_path, read_only=True).path_classes == ()


@pytest.mark.testdata
@pytest.mark.parametrize("project", ["q044", "q060", "more/q051_measurements", "more/q060_project", "more/q060_rois"])
def test_as_geojson_every_object_of_every_image_is_there(testdata: Path, project: str, tmp_path: Path) -> None:
    path = testdata / "qupath" / project / "project"
    dumped, collections = dump_project(path), json.loads("".join(geojson_of_project(path)))
    assert list(collections) == list(dumped)
    for key, image in dumped.items():
        assert collections[key]["type"] == "FeatureCollection"
        own = [feature["id"] for feature in collections[key]["features"]]
        assert own == [item["id"] for item in image["objects"]]
        file = tmp_path / "one.geojson"
        file.write_text(json.dumps(collections[key]))
        for item, said in zip(read_geojson(file), image["objects"], strict=True):
            assert (item.path_class, item.name, item.parent) == (said["path_class"], said["name"], said["parent"])
            assert set(item.measurements) == set(said["measurements"])
            for name, value in item.measurements.items():
                assert value == said["measurements"][name] or math.isnan(value)


def test_numbers_that_are_none_are_written_as_qupath_reads_them(tmp_path: Path) -> None:
    project = NativeProject.create(tmp_path / "p")
    project.add_image("file:///a.svs", "a.svs", size=(100, 100), mpp=0.5)
    item = _object(1)
    project.add_objects(1, [replace(item, measurements={"nan": math.nan, "low": -math.inf})])
    project.add_image("file:///b.svs", "b.svs", size=(100, 100), mpp=0.5)
    project.save()
    found = json.loads("".join(geojson_of_project(tmp_path / "p")), parse_constant=pytest.fail)
    assert found["a.svs"]["features"][0]["properties"]["measurements"] == {"nan": "NaN", "low": "-Infinity"}
    assert found["b.svs"]["features"] == []
    assert math.isnan(dump_project(tmp_path / "p")["a.svs"]["objects"][0]["measurements"]["nan"])


def test_an_empty_project_is_an_empty_object(tmp_path: Path) -> None:
    NativeProject.create(tmp_path / "p")
    assert "".join(geojson_of_project(tmp_path / "p")) == "{}\n"
    assert dump_project(tmp_path / "p") == {}


def test_a_name_that_looks_like_a_key_hides_no_image(tmp_path: Path) -> None:
    project = NativeProject.create(tmp_path / "p")
    for number, name in enumerate(("x", "x#3", "y"), start=1):
        project.add_image(f"file:///{number}.svs", name, size=(1, 1), mpp=0.5)
    project.save()
    raw = json.loads(project.path.read_text())
    raw["images"][2]["imageName"] = "x"
    project.path.write_text(json.dumps(raw))
    assert [image["entry_id"] for image in dump_project(tmp_path / "p").values()] == ["1", "2", "3"]
