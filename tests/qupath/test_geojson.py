"""QuPath's GeoJSON, written and read."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import orjson
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.qupath.strategies import COLORS, equal_numbers, object_lists
from wsi_pipeline.errors import QuPathFormatError, StoreError
from wsi_pipeline.objects import Kind, PathObject, Plane, Roi
from wsi_pipeline.qupath.geojson import features, parse_geojson, read_geojson, write_geojson
from wsi_pipeline.qupath.shapes import same_region

UUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"


def _written(objects: list[PathObject]) -> bytes:
    return b'{"type":"FeatureCollection","features":[' + b",".join(features(objects, COLORS)) + b"]}"


@given(object_lists)
def test_objects_survive_writing_and_reading(objects: list[PathObject]) -> None:
    read = parse_geojson(_written(objects))
    assert [o.uuid for o in read.objects] == [o.uuid for o in objects]
    for before, after in zip(objects, read.objects, strict=True):
        for name in ("kind", "path_class", "name", "color", "locked", "parent", "plane", "missing"):
            assert getattr(after, name) == getattr(before, name)
        assert dict(after.metadata) == dict(before.metadata)
        assert equal_numbers(dict(after.measurements), dict(before.measurements))
        assert same_region(before.geometry, after.geometry, 0.02)
        assert same_region(before.nucleus, after.nucleus, 0.02)
        assert (after.roi is Roi.ELLIPSE) == (before.roi is Roi.ELLIPSE)
    assert all(read.colors[name] == COLORS[name] for name in read.colors)


@given(object_lists)
def test_what_is_written_is_strict_json_with_valid_shapes(objects: list[PathObject]) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    for feature in json.loads(_written(objects), parse_constant=refuse)["features"]:
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert shape.is_valid
        assert not shape.is_empty


def test_the_same_objects_give_the_same_bytes_and_one_line_each(tmp_path: Path) -> None:
    objects = [
        PathObject(uuid=UUID[:-4] + f"{i:04d}", kind=Kind.DETECTION, geometry=shapely.box(i, 0, i + 1, 1))
        for i in range(2500)
    ]
    first, second = tmp_path / "a.geojson", tmp_path / "b.geojson"
    assert write_geojson(first, iter(objects), COLORS) == 2500
    write_geojson(second, objects, COLORS)
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_text().splitlines()) == 2502
    assert [o.uuid for o in read_geojson(first)] == [o.uuid for o in objects]


def test_no_objects_are_an_empty_collection(tmp_path: Path) -> None:
    path = tmp_path / "none.geojson"
    assert write_geojson(path, [], {}) == 0
    assert orjson.loads(path.read_bytes()) == {"type": "FeatureCollection", "features": []}
    assert read_geojson(path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.geojson"
    path.write_text("old")
    broken = [PathObject(uuid=UUID, kind=Kind.ANNOTATION, geometry=shapely.Polygon())]
    with pytest.raises(QuPathFormatError, match=UUID):
        write_geojson(path, broken, {})
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.geojson"]


def test_the_form_is_the_one_that_qupath_writes() -> None:
    cell = PathObject(
        uuid=UUID,
        kind=Kind.CELL,
        geometry=shapely.box(0, 0, 4, 4),
        path_class="Tumor: Positive",
        name="c",
        measurements={"a": 1.0, "b": math.nan},
        metadata={"k": "v"},
        locked=True,
        plane=Plane(-1, 1, 2),
        roi=Roi.ELLIPSE,
        nucleus=shapely.box(1, 1, 2, 2),
    )
    feature = orjson.loads(next(features([cell], COLORS)))
    assert feature["id"] == UUID
    assert feature["geometry"]["isEllipse"] is True
    assert feature["geometry"]["plane"] == {"c": -1, "z": 1, "t": 2}
    assert feature["nucleusGeometry"]["type"] == "Polygon"
    assert feature["properties"] == {
        "objectType": "cell",
        "name": "c",
        "classification": {"names": ["Tumor", "Positive"], "color": [200, 50, 50]},
        "isLocked": True,
        "measurements": {"a": 1.0, "b": "NaN"},
        "metadata": {"k": "v"},
    }


def test_a_class_without_colour_is_a_text_since_qupath_refuses_an_object_without_color() -> None:
    for name in ("Tumor", "Tumor: Positive"):
        item = PathObject(uuid=UUID, kind=Kind.ANNOTATION, geometry=shapely.box(0, 0, 4, 4), path_class=name)
        assert orjson.loads(next(features([item])))["properties"]["classification"] == name
        assert parse_geojson(_written([item])).objects[0].path_class == name


def test_an_object_without_a_region_is_written_as_qupath_does() -> None:
    bare = PathObject(uuid=UUID, kind=Kind.ANNOTATION, geometry=None)
    assert orjson.loads(next(features([bare])))["geometry"] == {}
    assert parse_geojson(_written([bare])).objects[0].geometry is None


def _feature(**properties: Any) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 0]]]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _one(feature: dict[str, Any]) -> PathObject:
    return parse_geojson(json.dumps([feature]).encode()).objects[0]


def test_the_forms_of_old_versions_and_other_tools_are_read() -> None:
    old = _feature(classification={"name": "Tumor", "colorRGB": -3670016}, measurements=[{"name": "a", "value": 2}])
    old["id"] = "PathDetectionObject"
    read = parse_geojson(json.dumps([old]).encode())
    assert read.colors == {"Tumor": (200, 0, 0)}
    assert read.objects[0].kind is Kind.DETECTION
    assert read.objects[0].measurements == {"a": 2.0}
    assert _one(_feature(object_type="tile")).kind is Kind.TILE
    assert _one(_feature(type="cell")).kind is Kind.CELL
    assert _one(_feature(objectType="annotation", classification="Stroma")).path_class == "Stroma"
    assert _one(_feature(objectType="something")).kind is Kind.ANNOTATION
    assert _one(_feature(measurements={"a": "-Infinity", "b": "nan", "c": None})).measurements["a"] == -math.inf
    assert _one({"type": "Feature", "geometry": None, "properties": None}).geometry is None
    single = parse_geojson(json.dumps(_feature()).encode("utf-8-sig")).objects
    assert len(single) == 1


def test_a_repeated_metadata_key_and_bare_nan_are_read() -> None:
    text = b"""[{"type": "Feature", "id": "%s", "geometry": {"type": "Point", "coordinates": [1, 2, 3]}, "properties":
    {"metadata": {"model": "u"}, "measurements": {"p": NaN}, "metadata": {"model": "u"}}}]""" % UUID.encode()
    read = parse_geojson(text).objects[0]
    assert read.metadata == {"model": "u"}
    assert math.isnan(read.measurements["p"])
    assert read.geometry == shapely.Point(1, 2)


def test_children_inside_a_feature_come_after_their_parent() -> None:
    parent = _feature(objectType="annotation", childObjects=[_feature(objectType="detection")])
    parent["id"] = UUID
    root = {"type": "Feature", "properties": {"objectType": "root", "childObjects": [parent]}}
    read = parse_geojson(json.dumps([root]).encode()).objects
    assert [o.kind for o in read] == [Kind.ANNOTATION, Kind.DETECTION]
    assert [o.parent for o in read] == [None, UUID]


def test_an_object_without_id_gets_the_same_id_at_every_reading() -> None:
    text = json.dumps([_feature(), _feature()]).encode()
    first, second = parse_geojson(text).objects, parse_geojson(text).objects
    assert [o.uuid for o in first] == [o.uuid for o in second]
    assert first[0].uuid != first[1].uuid


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"type": "Topology"}', "neither"),
        (b"[3]", "not a JSON object"),
        (b'[{"properties": [1]}]', "not a JSON object"),
        (b'[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}}]', "feature 1"),
        (b'[{"geometry": {"type": "Blob", "coordinates": []}}]', "feature 1"),
        (b'[{"properties": {"measurements": {"a": "many"}}}]', "feature 1"),
        (b'[{"properties": {"measurements": 5}}]', "feature 1"),
        (b'[{"properties": {"classification": 5}}]', "feature 1"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_feature_at_fault(text: bytes, says: str) -> None:
    with pytest.raises(QuPathFormatError, match=says):
        parse_geojson(text, source="x.geojson")


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(QuPathFormatError):
        parse_geojson(data)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gone\.geojson"):
        read_geojson(tmp_path / "gone.geojson")


@pytest.mark.testdata
def test_everything_that_real_qupath_exported_is_read_and_written_again(testdata: Path, tmp_path: Path) -> None:
    files = [*(testdata / "qupath").rglob("*.geojson"), *(testdata / "polygons").glob("*json")]
    assert len(files) > 15
    for path in files:
        raw = json.loads(path.read_bytes())
        listed = raw if isinstance(raw, list) else raw.get("features", [raw])
        read = parse_geojson(path.read_bytes())
        assert len(read.objects) == len(listed)
        for item, feature in zip(read.objects, listed, strict=True):
            assert item.uuid == feature["id"] or feature["id"].count("-") != 4
            assert same_region(
                item.geometry, shapely.force_2d(shapely.from_geojson(json.dumps(feature["geometry"]))), 0
            )
        copy = tmp_path / "copy.geojson"
        write_geojson(copy, read.objects, read.colors)
        again = parse_geojson(copy.read_bytes())
        assert again.colors == read.colors
        for before, after in zip(read.objects, again.objects, strict=True):
            assert (after.uuid, after.path_class, after.name) == (before.uuid, before.path_class, before.name)
            assert after.name in {"flat", "line 2"} or same_region(before.geometry, after.geometry, 0.02)
