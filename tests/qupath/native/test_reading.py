"""What is read from files that QuPath and scripts write, and what is refused; files made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import shapely

from tests.qupath.native.comparing import differences
from tests.qupath.native.handmade import (
    HEADER,
    TRIANGLE,
    Made,
    array_list,
    boolean,
    default_list,
    file_of,
    file_with,
    hierarchy,
    image_type,
    immutable,
    integer,
    metadata,
    numeric_list,
    path_class,
    roi,
    uid,
    unmodifiable,
)
from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.objects import Kind, PathObject, Plane, Roi
from wsi_pipeline.qupath.native import descriptors as d
from wsi_pipeline.qupath.native.java_model import ClassDesc, JavaArray, JavaObject, JavaString, Node, Part
from wsi_pipeline.qupath.native.pieces import Pieces
from wsi_pipeline.qupath.native.qpdata import QpData, TmaGrid, read_qpdata, write_qpdata
from wsi_pipeline.qupath.native.reading import read_by


def only(made: Made) -> PathObject:
    (item,) = read_qpdata(file_with(made)).objects
    return item


def rewritten(raw: bytes) -> QpData:
    """Read, write and read again; everything must have come along."""
    data = read_qpdata(raw)
    written = write_qpdata(data)
    again = read_qpdata(written)
    assert differences(data.objects, again.objects) == []
    assert (again.class_colors, again.tma_grid, again.root_uuid) == (
        data.class_colors,
        data.tma_grid,
        data.root_uuid,
    )
    assert again.kept.objects.rois.keys() == data.kept.objects.rois.keys()
    assert [kept.stored for kept in again.kept.objects.rois.values()] == [
        kept.stored for kept in data.kept.objects.rois.values()
    ]
    assert write_qpdata(again) == written
    return again


# ---- measurements ----

Names = Callable[[Sequence[Node]], JavaObject]


@pytest.mark.parametrize("names", [array_list, unmodifiable, immutable])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("spare", [0, 7])
def test_numeric_lists_are_read_open_and_closed_and_with_spare_room(names: Names, double: bool, spare: int) -> None:
    shared = names([JavaString("a"), JavaString("b")])
    objects = [
        Made(uid(i), Kind.DETECTION, measurements=numeric_list(shared, [i, 0.5] + [9.0] * spare, double=double))
        for i in range(2, 9)
    ]
    data = rewritten(file_with(*objects))
    assert [o.measurements for o in data.objects] == [{"a": float(i), "b": 0.5} for i in range(2, 9)]


def test_lists_of_single_measurements_are_read_by_the_names_they_refer_to() -> None:
    names = ["a", "µ", ""]
    objects = []
    for i in range(2, 12):
        order = names if i % 2 else names[::-1]
        objects.append(Made(uid(i), measurements=default_list([(name, i + len(name)) for name in order])))
    shared = default_list([])
    objects.append(Made(uid(20), measurements=shared))
    data = rewritten(file_with(*objects))
    assert data.objects[0].measurements == {"": 2.0, "µ": 3.0, "a": 3.0}
    assert list(data.objects[1].measurements) == names
    assert data.objects[-1].measurements == {}


@pytest.mark.parametrize("value", [0.1, -0.0, 5e-324, math.inf, -math.inf])
def test_values_are_exact(value: float) -> None:
    assert only(Made(uid(2), measurements=default_list([("x", value)]))).measurements["x"] == value


def test_float_values_come_back_as_qupath_shows_them() -> None:
    item = only(Made(uid(2), measurements=numeric_list(array_list([JavaString("x")]), [0.91])))
    assert item.measurements["x"] == 0.9100000262260437


@pytest.mark.parametrize(
    ("measurements", "counts"),
    [
        (numeric_list(array_list([JavaString("x"), JavaString("x")]), [1.0, 2.0]), 2.0),
        (default_list([("x", 1.0), ("x", 2.0)]), 1.0),
    ],
)
def test_a_name_that_is_there_twice_counts_as_in_qupath_and_is_kept(measurements: Node, counts: float) -> None:
    raw = file_with(Made(uid(2), measurements=measurements))
    data = rewritten(raw)
    assert data.kept.objects.repeated[uid(2)].values == (1.0, 2.0)
    assert data.objects[0].measurements == {"x": counts}


# ---- names, ids, metadata ----


def test_old_files_without_metadata_and_lock_are_read() -> None:
    measured = default_list([("x", 1.0)])
    old = [Made(uid(2), measurements=measured, omit=("metadata", "locked"), path_class=path_class("Tumor"))]
    data = rewritten(file_with(*old))
    (item,) = data.objects
    assert (item.measurements, item.locked, item.path_class) == ({"x": 1.0}, False, "Tumor")


@pytest.mark.parametrize("key", [None, "", "no uuid", "1-2-3-4", "{00000000-0000-0000-0000-000000000002}", "1" * 36])
def test_an_object_without_a_usable_id_gets_one_that_lasts_as_long_as_the_file(key: str | None) -> None:
    raw = file_with(Made(key), Made(key))
    first, second = read_qpdata(raw).objects
    assert first.uuid != second.uuid
    assert [o.uuid for o in read_qpdata(raw).objects] == [first.uuid, second.uuid]
    assert [o.uuid for o in rewritten(raw).objects] == [first.uuid, second.uuid]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ABCDEF00-0000-0000-0000-00000000000A", "abcdef00-0000-0000-0000-00000000000a"),
        ("1-2-3-4-5", "00000001-0002-0003-0004-000000000005"),
    ],
)
def test_ids_are_read_as_leniently_as_java_reads_them(text: str, key: str) -> None:
    alike = [Made(uid(i)) for i in range(2, 9)]
    assert [o.uuid for o in read_qpdata(file_with(*alike, Made(text))).objects][-1] == key


def test_metadata_in_lists_instead_of_arrays_are_read() -> None:
    made = [Made(uid(i), texts={"k": "v"}).node() for i in range(2, 9)]
    for node in made:
        texts = node.content[2]
        assert isinstance(texts, JavaObject)
        texts.content[1:] = [array_list(part.values) for part in texts.content[1:]]  # type: ignore[union-attr, arg-type]
    top = Made(uid(1), desc=d.ROOT).node()
    top.content[4:] = [len(made).to_bytes(4, "big"), *made]
    data = rewritten(file_of(JavaObject(d.HIERARCHY, [Part([top, None], [])])))
    assert [o.metadata for o in data.objects] == [{"k": "v"}] * 7


def test_a_key_without_value_is_kept() -> None:
    data = rewritten(file_with(Made(uid(2), texts={"a": None, "b": "x"})))
    assert data.objects[0].metadata == {"b": "x"}
    assert data.kept.objects.empty_metadata == {uid(2): ("a",)}


def test_colours_that_are_not_opaque_are_kept() -> None:
    half = 0x40102030
    data = rewritten(file_with(Made(uid(2), color=half, path_class=path_class("A", half))))
    assert data.objects[0].color == (0x10, 0x20, 0x30)
    assert data.kept.objects.colors == {uid(2): half}
    assert data.kept.class_colors == {"A": half}


def test_two_objects_with_one_id_are_read_and_written_where_they_were() -> None:
    inside = [Made(uid(7)), Made(uid(8))]
    raw = file_with(Made(uid(2), children=inside[:1]), Made(uid(2), children=inside[1:]))
    data = rewritten(raw)
    assert data.kept.objects.duplicates == {uid(2)}
    assert [(o.uuid, o.parent) for o in data.objects] == [
        (uid(2), None),
        (uid(7), uid(2)),
        (uid(2), None),
        (uid(8), uid(2)),
    ]


def test_an_object_inside_another_with_the_same_id_is_refused() -> None:
    with pytest.raises(QuPathFormatError, match="inside another one with the same id"):
        read_qpdata(file_with(Made(uid(2), children=[Made(uid(3)), Made(uid(2))])))


# ---- classes ----


def test_levels_of_a_class_are_joined_and_all_colours_are_noted() -> None:
    tumor = path_class("Tumor", -1)
    positive = path_class("Positive", None, tumor)
    strong = path_class("1+", -16777216, positive)
    data = rewritten(file_with(Made(uid(2), path_class=strong), Made(uid(3), path_class=tumor)))
    assert [o.path_class for o in data.objects] == ["Tumor: Positive: 1+", "Tumor"]
    assert data.class_colors == {
        "Tumor": (255, 255, 255),
        "Tumor: Positive": None,
        "Tumor: Positive: 1+": (0, 0, 0),
    }


def test_the_class_that_means_none_is_none() -> None:
    assert only(Made(uid(2), path_class=path_class(None))).path_class is None


def test_the_first_colour_of_a_class_counts() -> None:
    objects = [Made(uid(2), path_class=path_class("A", -1)), Made(uid(3), path_class=path_class("A", -2))]
    assert read_qpdata(file_with(*objects)).class_colors == {"A": (255, 255, 255)}


def test_a_class_of_endless_levels_is_refused() -> None:
    level = None
    for _ in range(70):
        level = path_class("x", None, level)
    with pytest.raises(QuPathFormatError, match="more than 64 levels"):
        only(Made(uid(2), path_class=level))


# ---- regions ----


@pytest.mark.parametrize(
    ("kind", "numbers", "wkt"),
    [
        (Roi.RECTANGLE, [1.1, 3.3, 2.2, 4.4], "POLYGON ((3.3 2.2, 3.3 4.4, 1.1 4.4, 1.1 2.2, 3.3 2.2))"),
        (Roi.LINE, [1.1, 3.3, 4.4, 2.2], "LINESTRING (1.1 4.4, 3.3 2.2)"),
        (Roi.POLYGON, TRIANGLE, "POLYGON ((0 0, 10 0, 0 10, 0 0))"),
        (Roi.POLYGON, [0, 4, 0, 0, 0, 4, 4, 0], "POLYGON ((0 0, 4 4, 0 4, 0 0, 0 0))"),
        (Roi.POLYGON, [0, 4, 0, 4, 0, 4, 4, 0], "POLYGON ((0 0, 4 4, 0 4, 4 0, 0 0))"),
        (Roi.POLYLINE, [0, 5, 2, 0, 0, 3], "LINESTRING (0 0, 5 0, 2 3)"),
        (Roi.POINTS, [1, 2], "POINT (1 2)"),
        (Roi.POINTS, [1, 2, 3, 4], "MULTIPOINT ((1 3), (2 4))"),
        (Roi.POINTS, [], "MULTIPOINT EMPTY"),
    ],
)
def test_regions_are_what_is_stored(kind: Roi, numbers: list[float], wkt: str) -> None:
    plane = Plane(1, 2, 3)
    (item,) = rewritten(file_with(Made(uid(2), roi=roi(kind, numbers, plane)))).objects
    assert (item.roi, item.plane) == (kind, plane)
    assert shapely.equals_identical(item.geometry, shapely.from_wkt(wkt))


def test_an_ellipse_touches_its_corners_exactly() -> None:
    x, x2, y, y2 = 0.1, 0.7, -1e5 / 3, 1e6 / 7
    item = only(Made(uid(2), roi=roi(Roi.ELLIPSE, [x, x2, y, y2])))
    assert item.geometry is not None
    assert item.geometry.bounds == (x, y, x2, y2)
    assert shapely.get_num_coordinates(item.geometry) == 101
    assert item.geometry.area == pytest.approx(math.pi / 4 * (x2 - x) * (y2 - y), rel=1e-3)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(
    "wkt",
    [
        "POLYGON ((0 0, 9 0, 9 9, 0 9, 0 0), (1 1, 2 1, 2 2, 1 1))",
        "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)), ((5 5, 6 5, 6 6, 5 5)))",
        "MULTILINESTRING ((0 0, 1 1), (2 2, 3 3))",
        "POINT (1 2)",
        "POLYGON Z ((0 0 7, 9 0 7, 9 9 7, 0 0 7))",
        "GEOMETRYCOLLECTION (POINT (1 2), MULTIPOINT ((0 0), (1 1)), LINESTRING (0 0, 1 1))",
    ],
)
def test_geometries_of_any_kind_are_read_and_keep_their_bytes(wkt: str, order: int) -> None:
    wkb = shapely.to_wkb(shapely.from_wkt(wkt), byte_order=order)
    data = rewritten(file_with(Made(uid(2), roi=roi(Roi.GEOMETRY, wkb))))
    assert shapely.equals_identical(data.objects[0].geometry, shapely.from_wkt(wkt))
    assert wkb in write_qpdata(data)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (Roi.POLYGON, []),
        (Roi.POLYGON, [1, 2]),
        (Roi.POLYGON, [1, 5, 2, 2]),
        (Roi.POLYGON, [0, 1, math.nan, 0, 0, 1]),
        (Roi.POLYGON, [0, 1, math.nan, 2, 0, 0, 1, 2]),
        (Roi.POLYLINE, [1, 2]),
        (Roi.POINTS, [math.inf, 1]),
        (Roi.LINE, [math.nan, 1, 2, 3]),
        (Roi.RECTANGLE, [5, 1, 5, 1]),
        (Roi.RECTANGLE, [0, math.inf, 0, 1]),
        (Roi.ELLIPSE, [5, 1, 0, 1]),
    ],
)
def test_regions_that_no_geometry_can_hold_are_kept_as_they_are(kind: Roi, numbers: list[float]) -> None:
    other = Made(uid(3), roi=roi(Roi.POLYGON, TRIANGLE))
    data = rewritten(file_with(Made(uid(2), roi=roi(kind, numbers)), other))
    assert list(data.kept.objects.rois) == [uid(2)]
    assert data.objects[0].roi is kind


def test_the_name_of_a_region_and_a_nucleus_in_another_plane_are_kept() -> None:
    named = Made(uid(2), roi=roi(Roi.POLYGON, TRIANGLE, name="odd"))
    nucleus = roi(Roi.RECTANGLE, [0, 1, 0, 1], Plane(-1, 5, 0))
    data = rewritten(file_with(named, Made(uid(3), Kind.CELL, nucleus=nucleus)))
    assert data.kept.objects.rois[uid(2)].stored.name == "odd"
    assert data.kept.objects.nuclei[uid(3)].stored.plane == Plane(-1, 5, 0)
    assert data.objects[1].nucleus_roi is Roi.RECTANGLE


def test_an_object_without_a_region_has_no_geometry() -> None:
    (item,) = rewritten(file_with(Made(uid(2), roi=None))).objects
    assert (item.geometry, item.roi) == (None, None)


def collections(depth: int) -> bytes:
    return b"\0\0\0\0\x07\0\0\0\x01" * depth + b"\0\0\0\0\x01" + bytes(16)


@pytest.mark.parametrize(
    ("wkb", "words"),
    [
        (b"", "no WKB"),
        (b"\0\0\0\0\x03\0\0\0\x01", "no WKB"),
        (b"\0\0\0\0\x03\xff\xff\xff\xff", "no WKB"),
        (b"\x07\0\0\0\x01", "of a kind"),
        (b"\0\0\0\0\x0a\0\0\0\0", "of a kind"),
        (collections(100_000), "nested deeper"),
        # The nesting may begin behind a first member that is simple.
        ((b"\0\0\0\0\x07\0\0\0\x02" + collections(0)) * 50_000 + collections(0), "nested deeper"),
    ],
)
def test_damaged_and_bottomless_wkb_is_refused_by_the_object(wkb: bytes, words: str) -> None:
    with pytest.raises(QuPathFormatError, match=words) as caught:
        read_qpdata(file_with(Made(uid(2), roi=roi(Roi.GEOMETRY, wkb))))
    assert uid(2) in str(caught.value)


# ---- the tree ----


def test_objects_come_depth_first_with_their_parents() -> None:
    inner = Made(uid(4), children=[Made(uid(5))])
    data = rewritten(file_with(Made(uid(2), children=[Made(uid(3)), inner]), Made(uid(6))))
    assert [(o.uuid, o.parent) for o in data.objects] == [
        (uid(2), None),
        (uid(3), uid(2)),
        (uid(4), uid(2)),
        (uid(5), uid(4)),
        (uid(6), None),
    ]


def test_the_grid_of_a_tissue_microarray_refers_to_its_cores() -> None:
    cores = [
        Made(uid(i), Kind.TMA_CORE, name=f"A-{i}", missing=i == 3, texts={"Case ID": str(i)}) for i in (2, 3, 4, 5)
    ]
    top = Made(uid(1), children=cores, desc=d.ROOT)
    node = top.node()
    placed = [
        part
        for part in node.content
        if isinstance(part, JavaObject) and part.desc.name == d.BY_KIND[Kind.TMA_CORE].name
    ]
    grid = JavaObject(d.TMA_GRID, [Part([2, 2, array_list(placed)], [])])
    raw = file_of(JavaObject(d.HIERARCHY, [Part([node, grid], [])]))
    data = rewritten(raw)
    assert data.tma_grid == TmaGrid(2, 2, (uid(2), uid(3), uid(4), uid(5)))
    assert [o.missing for o in data.objects] == [False, True, False, False]
    assert data.objects[0].metadata == {"Case ID": "2"}


def test_a_core_that_is_only_in_the_grid_is_refused() -> None:
    core = Made(uid(9), Kind.TMA_CORE).node()
    grid = JavaObject(d.TMA_GRID, [Part([1, 1, array_list([core])], [])])
    with pytest.raises(QuPathFormatError, match="not in the hierarchy"):
        read_qpdata(file_of(hierarchy([], grid)))


def test_the_root_keeps_its_name_and_metadata() -> None:
    root = Made(uid(9), name="root", color=-1, texts={"k": "v"}, desc=d.ROOT)
    data = rewritten(file_of(hierarchy([], root=root)))
    assert data.kept.root._replace(measurements={}) == (uid(9), "root", -1, {"k": "v"}, {})


def test_levels_beyond_what_qupath_can_save_are_read_and_not_written() -> None:
    made = Made(uid(500))
    for number in range(400, 499):
        made = Made(uid(number), children=[made])
    assert len(rewritten(file_with(made)).objects) == 100
    deeper = read_qpdata(file_with(Made(uid(3), children=[made])))
    assert len(deeper.objects) == 101
    with pytest.raises(ValueError, match="more than 100 deep"):
        write_qpdata(deeper)


# ---- around the objects ----


def test_items_of_the_top_level_may_come_in_any_order() -> None:
    properties = JavaObject(d.HASH_MAP, [Part([0.75, 12], [b"\0\0\0\x10\0\0\0\x01", JavaString("k"), JavaString("v")])])
    stains = JavaObject(d.STAINS, content=[b"\0\0\0\1", JavaString('{"Name" : "mine"}')])
    raw = file_of(properties, hierarchy([Made(uid(2))]), stains, None, image_type("BRIGHTFIELD_H_E"))
    data = rewritten(raw)
    assert (data.image_type, data.stains, data.properties) == ("BRIGHTFIELD_H_E", {"Name": "mine"}, {"k": "v"})
    assert len(data.objects) == 1


def test_a_file_without_a_type_is_unset_and_other_items_are_kept() -> None:
    other = JavaArray(d.OBJECT_ARRAY, [JavaString("from a script")])
    data = rewritten(file_of(other, hierarchy([])))
    assert data.image_type == "UNSET"
    assert b"from a script" in write_qpdata(data)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "AC ED 00 05"),
        (file_of(hierarchy([]), version="Data file version 4"), "version '4'"),
        (file_of(hierarchy([]), version="Data file version 33"), "version '33'"),
        (file_of(hierarchy([]), version="Something else"), "no data.qpdata"),
        (file_of(hierarchy([]), header='{"dataVersion":7}'), "dataVersion 7"),
        (file_of(hierarchy([]), header='{"dataVersion":true}'), "dataVersion True"),
        (file_of(hierarchy([]), header="file:/old/server/path.svs"), "no JSON"),
        (file_of(hierarchy([]), header="[" * 100_000), "no JSON"),
        (file_of(hierarchy([]), header="[1]"), "no JSON object"),
        (file_of(image_type("OTHER")), "no hierarchy"),
        (file_of(hierarchy([]), hierarchy([])), "a second hierarchy"),
        (file_of(hierarchy([])) + b"\x70", "bytes behind the end"),
        (file_of(hierarchy([]), end=None), "cut off"),
        (file_of(JavaObject(d.HIERARCHY, [Part([None, None], [])])), "where a path object should begin"),
        (file_of(hierarchy([Made(uid(2), desc=d.ROOT)])), "a root object inside"),
        (file_of(hierarchy([], root=Made(uid(2)))), "a root object inside another, or none"),
    ],
)
def test_other_files_are_refused_by_name(raw: bytes, words: str) -> None:
    with pytest.raises(QuPathFormatError, match=words):
        read_qpdata(raw)


@pytest.mark.parametrize("version", ["0.2.0", "0.4.4", "9.9.9", None])
def test_any_version_of_qupath_is_read(version: str | None) -> None:
    header = HEADER.replace('"9.9.9"', "null" if version is None else f'"{version}"')
    assert read_qpdata(file_of(hierarchy([]), header=header)).server_json == {
        "dataVersion": 3,
        "qupathVersion": version,
        "server": {"uri": "file:/a.svs"},
        "id": "x",
    }


OTHER_KIND = ClassDesc(f"{d.OBJECTS}PathFutureObject", 1, d.EXTERNAL, (), d.ROI_OBJECT)
OTHER_ROI = ClassDesc("qupath.lib.roi.SplineROI", 1, d.PLAIN)
OTHER_LIST = ClassDesc("qupath.lib.measurements.SparseList", 1, d.PLAIN)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Made(uid(2), desc=OTHER_KIND), "PathFutureObject"),
        (Made(uid(2), roi=JavaObject(OTHER_ROI, [Part([], [])])), "SplineROI"),
        (Made(uid(2), measurements=JavaObject(OTHER_LIST, [Part([], [])])), "SparseList"),
        (Made(uid(2), measurements=JavaString("x")), "where measurements should be"),
        (Made(uid(2), measurements=numeric_list(array_list([JavaString("a")]), [])), "1 measurements with 0 values"),
        (Made(uid(2), measurements=numeric_list(array_list([None]), [1])), "without a name"),
        (Made(uid(2), measurements=numeric_list(path_class("x"), [1])), "where names of measurements"),
        (Made(uid(2), measurements=default_list([("x", 1.0)]), path_class=boolean(True)), "where a class should be"),
        (Made(uid(2), path_class=path_class(None, None, path_class("above"))), "without a name"),
        (Made(uid(2), roi=JavaString("here")), "a region of a kind"),
        (Made(uid(2), texts={"a": "b"}, omit=("metadata",), measurements=metadata({"a": "b"}, 2)), "version"),
        (Made(uid(2), omit=("metadata",), measurements=integer(5)), "measurements of the kind"),
    ],
)
def test_what_is_not_known_is_refused_by_name_and_place(made: Made, words: str) -> None:
    with pytest.raises(QuPathFormatError, match=words) as caught:
        read_qpdata(file_with(made))
    assert "byte" in str(caught.value)


def test_a_known_class_with_other_fields_is_refused() -> None:
    odd = ClassDesc(d.PATH_CLASS.name, 1, d.PLAIN, d.PATH_CLASS.fields[:2])
    made = Made(uid(2), path_class=JavaObject(odd, [Part([None, JavaString("x")], [])]))
    with pytest.raises(QuPathFormatError, match="in a form that is not known"):
        read_qpdata(file_with(made))


# ---- little that means much ----


def test_what_a_small_file_makes_of_its_references_is_limited() -> None:
    """Each object refers to one array of a million numbers, or to one long text: the file stays small."""
    names = array_list([JavaString("x")])
    shared = JavaArray(d.DOUBLE_ARRAY, bytes(8 * 100_000))
    lists = [
        Made(uid(i), measurements=JavaObject(d.DOUBLE_LIST, [Part([False, None, names], []), Part([shared], [])]))
        for i in range(2, 80)
    ]
    with pytest.raises(QuPathFormatError, match="more values than a file of this size"):
        read_qpdata(file_with(*lists))
    points = JavaArray(d.FLOAT_ARRAY, bytes(4 * 200_000))
    many = JavaObject(d.BY_ROI[Roi.POINTS], [Part([-1, 0, 0, None, points, points], [])])
    with pytest.raises(QuPathFormatError, match="more values than a file of this size"):
        read_by(Pieces, file_with(*[Made(uid(i), roi=many) for i in range(2, 80)]))
    long = path_class("y" * 60_000)
    classes = [Made(uid(i), path_class=path_class("x", None, long)) for i in range(2, 80)]
    with pytest.raises(QuPathFormatError, match="more values than a file of this size"):
        read_qpdata(file_with(*classes))


def test_a_long_name_that_many_share_is_one_text() -> None:
    text = "n" * 100_000
    node = JavaString(text)
    objects = [Made(uid(i)) for i in range(2, 40)]
    nodes = [made.node() for made in objects]
    for made in nodes:
        made.content[0] = node
    top = Made(uid(1), desc=d.ROOT).node()
    top.content[4:] = [len(nodes).to_bytes(4, "big"), *nodes]
    data = read_qpdata(file_of(JavaObject(d.HIERARCHY, [Part([top, None], [])])))
    assert {o.name for o in data.objects} == {text}
    assert len({id(o.name) for o in data.objects}) == 1
