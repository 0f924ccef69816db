"""What every backend does, through the protocol alone. The paquo ones need a QuPath (marker `qupath`)."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import pytest
import shapely
import tifffile
from PIL import Image

from tests.qupath.strategies import CLASSES, equal_numbers
from wsi_pipeline.errors import ProjectChanged, ProjectError
from wsi_pipeline.objects import META_CONFIDENCE, META_RUN, Kind, PathClass, PathObject, Plane, Roi
from wsi_pipeline.qupath import Project, create_project, open_project
from wsi_pipeline.qupath.native.stored_roi import ellipse
from wsi_pipeline.qupath.shapes import same_region
from wsi_pipeline.tiling import Bounds

BACKENDS = ["native", pytest.param("paquo", marks=pytest.mark.qupath)]
SIZE = (600, 400)


class Size(NamedTuple):
    width: int
    height: int
    downsample: float


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small tiled slides that OpenSlide opens, one with a name that must be encoded."""
    folder = tmp_path_factory.mktemp("slides")
    pixels = np.full((SIZE[1], SIZE[0], 3), 230, np.uint8)
    for name in ("a.tif", "b.tif", "ünï 壊死.tif"):
        tifffile.imwrite(folder / name, pixels, tile=(256, 256), photometric="rgb", compression="zlib")
    return folder


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def project(backend: str, tmp_path: Path, slides: Path) -> Project:
    """A saved project with one H&E slide and four classes."""
    made = create_project(tmp_path / "project", backend)
    made.path_classes = CLASSES
    made.add_image(
        slides.joinpath("a.tif").as_uri(),
        "a.tif",
        size=SIZE,
        mpp=0.5,
        image_type="brightfield_h_e",
        metadata={"patient": "P-1", "réf": "ünï"},
        thumbnail=np.full((40, 60, 3), 200, np.uint8),
    )
    made.save()
    return made


def _again(project: Project, *, read_only: bool = True) -> Project:
    return open_project(project.path, project.backend, read_only=read_only)


def _object(number: int, geometry: shapely.Geometry | None = None, **more: object) -> PathObject:
    item = PathObject(
        uuid=str(uuid.UUID(int=number, version=4)),
        kind=Kind.ANNOTATION,
        geometry=shapely.box(10 * number, 5, 10 * number + 8, 15),
        path_class="Tumor",
        measurements={"Probability: mean": 0.5},
        metadata={META_RUN: "run-1", META_CONFIDENCE: "0.5"},
    )
    return replace(item, **({"geometry": geometry} if geometry is not None else {}), **more)  # type: ignore[arg-type]


def _various() -> list[PathObject]:
    holed = shapely.box(100, 100, 200, 200) - shapely.box(120, 120, 140, 160)
    parts = shapely.MultiPolygon([shapely.box(300, 100, 320, 120), shapely.box(340, 100, 360, 130)])
    return [
        _object(1, name="nämed", locked=True),
        _object(2, holed, path_class="Tumor: Positive"),
        _object(3, parts, path_class="Nécrose – 壊死", measurements={"nan": float("nan"), "x": 1.25}),
        _object(4, shapely.Polygon([(10, 50), (40.25, 50), (20, 80.5)]), path_class=None, measurements={}, metadata={}),
        _object(5, shapely.Point(33, 44), kind=Kind.ANNOTATION, measurements={}),
        _object(6, shapely.LineString([(0, 0), (50, 50), (80, 20)]), measurements={}),
        _object(7, shapely.box(64, 64, 128, 128), kind=Kind.TILE, path_class="Review", name="Review 1"),
        _object(8, shapely.Point(400, 300).buffer(20), kind=Kind.CELL, nucleus=shapely.Point(400, 300).buffer(8)),
        _object(9, shapely.box(101, 101, 110, 110), kind=Kind.DETECTION),
    ]


def _assert_same(read: list[PathObject], written: list[PathObject]) -> None:
    found = {o.uuid: o for o in read}
    assert found.keys() == {o.uuid for o in written}
    for before in written:
        after = found[before.uuid]
        for name in ("kind", "path_class", "name", "locked", "parent"):
            assert getattr(after, name) == getattr(before, name)
        assert dict(after.metadata) == dict(before.metadata)
        assert equal_numbers(dict(after.measurements), dict(before.measurements), 1e-6)
        assert same_region(before.geometry, after.geometry, 0.02)
        assert same_region(before.nucleus, after.nucleus, 0.02)


def _state(folder: Path) -> dict[str, str]:
    """Hash of every file, with its time of writing: what a second run must leave."""
    return {
        str(p.relative_to(folder)): f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.stat().st_mtime_ns}"
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_a_new_project_is_empty_and_has_what_qupath_needs(backend: str, tmp_path: Path) -> None:
    project = create_project(tmp_path / "p", backend)
    assert project.path == tmp_path / "p" / "project.qpproj"
    assert (project.backend, project.read_only, project.images(), project.path_classes) == (backend, False, (), ())
    project.save()
    raw = orjson.loads(project.path.read_bytes())
    assert raw["images"] == []
    assert (tmp_path / "p" / "classifiers").is_dir()
    with pytest.raises(ProjectError, match="exists already"):
        create_project(tmp_path / "p", backend)


def test_an_image_is_what_was_added(project: Project, slides: Path) -> None:
    for view in (project, _again(project)):
        (image,) = view.images()
        assert (image.entry_id, image.name, image.image_type) == (1, "a.tif", "BRIGHTFIELD_H_E")
        assert image.uri == slides.joinpath("a.tif").as_uri()
        assert dict(image.metadata) == {"patient": "P-1", "réf": "ünï"}
        assert image.affine == (1, 0, 0, 1, 0, 0)
        assert image.read_objects() == []
        assert view.image(1).name == "a.tif"


def test_a_thumbnail_lies_beside_the_image_as_jpeg(project: Project) -> None:
    with Image.open(project.path.parent / "data/1/thumbnail.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (60, 40))


def test_images_are_found_by_address_and_by_name(project: Project, slides: Path) -> None:
    odd = project.add_image(slides / "ünï 壊死.tif", "renamed", size=SIZE, mpp=0.5)  # type: ignore[arg-type]
    for view in (project,):
        assert view.find(uri=str(slides / "ünï 壊死.tif")) is odd
        assert view.find(uri=(slides / "a.tif").as_uri().replace("file:///", "file:/")) is view.image(1)
        assert view.find(name="renamed") is odd
        assert view.find(name="renamed", uri=(slides / "a.tif").as_uri()) is None
        assert view.find(name="gone") is None
    with pytest.raises(ProjectError, match="address or the name"):
        project.find()
    with pytest.raises(ProjectError, match="id 9"):
        project.image(9)


def test_classes_keep_their_order_and_colours(project: Project) -> None:
    assert _again(project).path_classes == CLASSES
    project.path_classes = (PathClass("Other", (1, 2, 3)), *CLASSES[:1])
    project.save()
    assert _again(project).path_classes == (PathClass("Other", (1, 2, 3)), CLASSES[0])


def test_metadata_is_set_key_by_key(project: Project) -> None:
    project.set_metadata(1, {"wsi_state": "todo"})
    project.set_metadata(project.image(1), {"patient": "P-2"})
    project.save()
    assert dict(_again(project).image(1).metadata) == {"patient": "P-2", "réf": "ünï", "wsi_state": "todo"}


def test_objects_come_back_as_they_were_added(project: Project) -> None:
    written = _various()
    assert project.add_objects(1, written) == len(written)
    project.save()
    _assert_same(project.image(1).read_objects(), written)
    _assert_same(_again(project).image(1).read_objects(), written)


def test_kinds_of_regions_planes_and_numbers_come_back_exactly(project: Project) -> None:
    written = [
        _object(1, shapely.box(1.5, 2.25, 30, 40), roi=Roi.RECTANGLE, measurements={"p": 0.1, "inf": float("inf")}),
        _object(2, ellipse(10, 10, 50, 30), roi=Roi.ELLIPSE, plane=Plane(c=1, z=2, t=3)),
        _object(3, shapely.box(0.0625, 0, 9, 9), roi=Roi.POLYGON, kind=Kind.DETECTION, measurements={"p": 0.1}),
        _object(4, shapely.LineString([(0, 0), (50, 50)]), roi=Roi.LINE, color=(1, 2, 3)),
        _object(5, shapely.MultiLineString([[(0, 0), (1, 2)], [(3, 3), (4, 4)]]), roi=Roi.GEOMETRY),
        _object(6, shapely.box(0, 0, 256, 256), roi=Roi.RECTANGLE, kind=Kind.TILE, class_probability=0.7),
    ]
    project.add_objects(1, written)
    for view in (project, _again(project)):
        for before, after in zip(written, view.image(1).read_objects(), strict=True):
            for name in ("kind", "roi", "plane", "color"):
                assert getattr(after, name) == getattr(before, name)
            assert dict(after.metadata) == dict(before.metadata)
            assert dict(after.measurements) == dict(before.measurements)
            assert shapely.equals_identical(after.geometry, before.geometry)
            assert equal_numbers({"p": after.class_probability}, {"p": before.class_probability}, 0)


def test_an_object_stays_inside_the_one_it_lies_in(project: Project) -> None:
    outer = _object(1, shapely.box(0, 0, 100, 100))
    inner = _object(2, shapely.box(10, 10, 20, 20), parent=outer.uuid)
    project.add_objects(1, [outer, inner])
    project.add_objects(1, [_object(3, shapely.box(12, 12, 14, 14), parent=inner.uuid)])
    read = {o.uuid: o.parent for o in _again(project).image(1).read_objects()}
    assert list(read.values()) == [None, outer.uuid, inner.uuid]


def test_an_object_that_is_there_is_not_added_again(project: Project) -> None:
    project.add_objects(1, [_object(1)])
    edited = _object(1, shapely.box(300, 300, 310, 310))
    assert project.add_objects(1, [edited, _object(2)]) == 1
    _assert_same(project.image(1).read_objects(), [_object(1), _object(2)])


def test_a_second_run_changes_no_byte(project: Project, slides: Path) -> None:
    project.add_objects(1, _various())
    project.save()
    before = _state(project.path.parent)
    time.sleep(0.01)
    again = _again(project, read_only=False)
    again.path_classes = CLASSES
    assert again.find(uri=(slides / "a.tif").as_uri()) is not None
    again.set_metadata(1, {"patient": "P-1"})
    assert again.add_objects(1, _various()) == 0
    assert again.replace_run_objects(1, "run-1", _various(), _various()) == (0, 0)
    again.save()
    assert _state(project.path.parent) == before


def test_reading_only_creates_and_changes_nothing(project: Project) -> None:
    project.add_objects(1, _various())
    project.save()
    before = _state(project.path.parent)
    view = _again(project)
    assert view.read_only
    view.image(1).read_objects()
    assert view.image(1).image_type == "BRIGHTFIELD_H_E"
    calls: list[Callable[[], object]] = [
        lambda: view.add_objects(1, [_object(50)]),
        lambda: view.replace_run_objects(1, "run-1", [], []),
        lambda: view.set_metadata(1, {"a": "b"}),
        lambda: view.add_image("file:///x.svs", "x", size=(1, 1), mpp=1),
        view.save,
    ]
    for call in calls:
        with pytest.raises(ProjectError, match="read only"):
            call()
    with pytest.raises(ProjectError, match="read only"):
        view.path_classes = ()
    assert _state(project.path.parent) == before


def test_only_untouched_objects_of_the_run_are_replaced(project: Project) -> None:
    handed_out = [_object(1), _object(2), _object(3)]
    foreign = _object(20, metadata={}, name="by hand", measurements={})
    edited = _object(2, shapely.box(20, 5, 29, 15), measurements={})
    project.add_objects(1, [_object(1), edited, foreign])  # number 3 was deleted
    new = [_object(40, metadata={META_RUN: "run-2"}), _object(3)]
    assert project.replace_run_objects(1, "run-1", new, handed_out) == (1, 1)
    _assert_same(_again(project).image(1).read_objects(), [edited, foreign, new[0]])


def test_properties_are_written_with_the_objects_and_stay(project: Project) -> None:
    assert project.add_objects(1, _various(), properties={"mark": "one"}) == len(_various())
    objects, properties = _again(project).image(1).read()
    assert properties["mark"] == "one"
    _assert_same(objects, _various())
    project.replace_run_objects(1, "run-1", [_object(40)], [_object(1)], properties={"mark": "two", "réf": "ünï"})
    project.add_objects(1, [_object(41)])
    for view in (project, _again(project)):
        objects, properties = view.image(1).read()
        assert (properties["mark"], properties["réf"]) == ("two", "ünï")
        assert {_object(40).uuid, _object(41).uuid} <= {o.uuid for o in objects}


def test_properties_alone_are_written_and_the_same_ones_change_no_byte(project: Project) -> None:
    assert project.add_objects(1, [], properties={"mark": "one"}) == 0
    assert _again(project).image(1).read() == ([], {**project.image(1).read().properties, "mark": "one"})
    project.save()
    before = _state(project.path.parent)
    again = _again(project, read_only=False)
    assert again.add_objects(1, [], properties={"mark": "one"}) == 0
    assert again.replace_run_objects(1, "run-1", [], [], properties={"mark": "one"}) == (0, 0)
    again.save()
    assert _state(project.path.parent) == before


def test_objects_that_somebody_saved_meanwhile_are_not_overwritten(project: Project) -> None:
    project.add_objects(1, [_object(1)])
    project.save()
    data = project.path.parent / "data/1/data.qpdata"
    view = _again(project, read_only=False)
    view.image(1).read_objects()
    other = _again(project, read_only=False)
    other.add_objects(1, [_object(2)])
    theirs = data.read_bytes()
    for write in (
        lambda: view.add_objects(1, [_object(3)]),
        lambda: view.replace_run_objects(1, "run-1", [_object(3)], [_object(1)]),
    ):
        with pytest.raises(ProjectChanged, match=r"a\.tif"):
            write()
    assert data.read_bytes() == theirs
    assert _again(project, read_only=False).add_objects(1, [_object(3)]) == 1


def test_a_name_that_is_there_is_refused(project: Project, slides: Path) -> None:
    with pytest.raises(ProjectError, match=r"a\.tif"):
        project.add_image((slides / "b.tif").as_uri(), "a.tif", size=SIZE, mpp=0.5)
    with pytest.raises(ProjectError, match="no image type"):
        project.add_image((slides / "b.tif").as_uri(), "b.tif", size=SIZE, mpp=0.5, image_type="xray")
    assert len(project.images()) == 1


def test_a_given_calibration_is_what_qupath_is_told(project: Project, slides: Path) -> None:
    levels = [Size(*SIZE, 1.0)]
    project.add_image((slides / "b.tif").as_uri(), "b.tif", size=SIZE, mpp=0.25, mpp_source="config", levels=levels)
    project.save()
    entry = orjson.loads(project.path.read_bytes())["images"][1]
    metadata = entry["serverBuilder"]["metadata"]
    assert metadata["pixelCalibration"]["pixelWidth"] == {"value": 0.25, "unit": "µm"}
    assert (metadata["width"], metadata["height"], metadata["levels"][0]["downsample"]) == (*SIZE, 1.0)
    assert _again(project).image(2).size == SIZE


def test_a_slide_with_bounds_is_shown_whole_and_objects_stay_in_level_0(project: Project, slides: Path) -> None:
    image = project.add_image((slides / "b.tif").as_uri(), "b.tif", size=SIZE, mpp=0.5, crop=Bounds(100, 50, 500, 350))
    project.add_objects(image, [_object(1)])
    project.save()
    builder = orjson.loads(project.path.read_bytes())["images"][1]["serverBuilder"]
    assert builder["args"] == ["--no-crop"]
    assert builder["providerClassName"].endswith("OpenslideServerBuilder")
    _assert_same(_again(project).image(2).read_objects(), [_object(1)])


def test_the_summary_counts_what_is_in_the_image(project: Project) -> None:
    project.add_objects(1, _various())
    summary = orjson.loads((project.path.parent / "data/1/summary.json").read_bytes())
    assert summary["imageType"] == "BRIGHTFIELD_H_E"
    assert summary["server"]["width"] == SIZE[0]
    assert summary["hierarchy"]["nObjects"] == 10
    assert summary["hierarchy"]["objectTypeCounts"] == {
        "Root objects": 1,
        "Annotations": 6,
        "Tiles": 1,
        "Cells": 1,
        "Detections": 1,
    }
    assert summary["hierarchy"]["annotationClassificationCounts"]["Unclassified"] == 1


def test_damaged_data_are_an_error_and_never_an_empty_image(project: Project) -> None:
    project.add_objects(1, _various())
    project.save()
    data = project.path.parent / "data/1/data.qpdata"
    whole = data.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"x" + whole[1:]):
        data.write_bytes(damaged)
        view = _again(project, read_only=False)
        for call in (view.image(1).read_objects, lambda v=view: v.add_objects(1, [_object(99)])):
            with pytest.raises(ProjectError, match=r"a\.tif"):
                call()
        assert data.read_bytes() == damaged
