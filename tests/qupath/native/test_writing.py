"""What is written: the same values come back, the same bytes come out, and what the format cannot hold is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely import affinity
from shapely.geometry.base import BaseGeometry

from tests.qupath.native.comparing import differences
from tests.qupath.native.handmade import uid
from tests.qupath.native.strategies import boxes, many_alike, qpdatas
from wsi_pipeline.errors import ProjectError, QuPathFormatError
from wsi_pipeline.objects import Kind, PathObject, Roi
from wsi_pipeline.qupath.native.pieces import Pieces
from wsi_pipeline.qupath.native.qpdata import QpData, TmaGrid, read_qpdata, write_qpdata
from wsi_pipeline.qupath.native.reading import read_by
from wsi_pipeline.qupath.native.roi_encoding import is_ellipse, is_rectangle
from wsi_pipeline.qupath.native.stored_roi import ellipse
from wsi_pipeline.qupath.native.writing import DEFAULT_STAINS

SQUARE = shapely.Polygon([(0, 0), (9, 0), (9, 9), (0, 9)])
RING = shapely.Polygon(SQUARE.exterior, [[(1, 1), (2, 1), (2, 2), (1, 2)]])


def annotation(number: int, geometry: BaseGeometry | None = SQUARE, **fields: object) -> PathObject:
    return replace(PathObject(uid(number), Kind.ANNOTATION, geometry), **fields)  # type: ignore[arg-type]


def written_and_read(*objects: PathObject) -> list[PathObject]:
    return read_qpdata(write_qpdata(QpData(objects=list(objects)))).objects


# ---- round trips ----


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(qpdatas())
def test_arbitrary_hierarchies_survive_writing_reading_and_writing(data: QpData) -> None:
    raw = write_qpdata(data)
    back = read_qpdata(raw)
    assert differences(data.objects, back.objects) == []
    assert (back.image_type, back.tma_grid) == (data.image_type, data.tma_grid)
    used = {name for name in data.class_colors if name in back.class_colors}
    assert {name: back.class_colors[name] for name in used} == {name: data.class_colors[name] for name in used}
    assert write_qpdata(back) == raw


def test_half_a_surrogate_pair_in_the_server_is_written_and_read() -> None:
    data = QpData(objects=[annotation(1)], server_json={"server": {"": "\ud800"}})
    back = read_qpdata(write_qpdata(data)).server_json
    assert back is not None
    assert back["server"] == {"": "\ud800"}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(qpdatas(30))
def test_the_quick_reader_and_the_general_parser_agree(data: QpData) -> None:
    raw = write_qpdata(data)
    assert differences(read_qpdata(raw).objects, read_by(Pieces, raw).objects) == []


@pytest.mark.parametrize("kind", [k for k in Kind if k is not Kind.TMA_CORE])
@pytest.mark.parametrize("count", [1, 2, 3, 300])
def test_many_objects_of_one_form_come_back_exactly(kind: Kind, count: int) -> None:
    objects = many_alike(count, kind)
    raw = write_qpdata(QpData(objects=objects))
    assert differences(objects, read_qpdata(raw).objects) == []
    assert differences(objects, read_by(Pieces, raw).objects) == []


def test_more_objects_than_one_batch_holds_come_back_exactly() -> None:
    objects = many_alike(9_000, vertices=4)
    parent = replace(objects[0], name="around them")
    inside = [parent, *[replace(item, parent=parent.uuid) for item in objects[1:5_000]], *objects[5_000:]]
    assert differences(inside, written_and_read(*inside)) == []


@settings(deadline=None)
@given(st.permutations(range(12)))
def test_parents_may_come_after_their_children(order: list[int]) -> None:
    objects = [annotation(i + 2, parent=uid((i - 1) // 2 + 2) if i else None) for i in range(12)]
    back = written_and_read(*[objects[i] for i in order])
    assert {o.uuid: o.parent for o in back} == {o.uuid: o.parent for o in objects}
    seen: set[str] = set()
    for item in back:
        assert item.parent is None or item.parent in seen
        seen.add(item.uuid)


def test_siblings_keep_their_order() -> None:
    objects = [annotation(i) for i in (9, 3, 7, 5)]
    assert [o.uuid for o in written_and_read(*objects)] == [o.uuid for o in objects]


def test_changing_one_object_leaves_the_others_and_the_rest_of_the_file() -> None:
    data = read_qpdata(write_qpdata(QpData("BRIGHTFIELD_H_E", {"server": {"uri": "a"}, "more": 1}, many_alike(30))))
    changed = replace(data, objects=[replace(data.objects[0], path_class="Other"), *data.objects[1:-1]])
    back = read_qpdata(write_qpdata(changed))
    assert differences(changed.objects, back.objects) == []
    assert (back.server_json, back.stains, back.root_uuid) == (data.server_json, data.stains, data.root_uuid)


# ---- a new file ----


def test_the_same_values_give_the_same_bytes() -> None:
    data = QpData("BRIGHTFIELD_H_E", {"server": {}}, many_alike(50))
    assert write_qpdata(data) == write_qpdata(replace(data, objects=list(data.objects)))


@pytest.mark.parametrize("image_type", [*DEFAULT_STAINS, "FLUORESCENCE", "OTHER", "UNSET"])
def test_a_new_file_has_the_stains_that_qupath_would_give_it(image_type: str) -> None:
    back = read_qpdata(write_qpdata(QpData(image_type)))
    assert (back.image_type, back.objects, back.properties) == (image_type, [], {})
    assert (back.stains is not None) == (image_type in DEFAULT_STAINS)
    if back.stains is not None:
        assert back.stains["Stain 2"] == ("Eosin" if image_type == "BRIGHTFIELD_H_E" else "DAB")


def test_another_image_type_gets_its_own_stains() -> None:
    data = read_qpdata(write_qpdata(QpData("BRIGHTFIELD_H_E")))
    assert data.stains is not None
    assert replace(data, image_type="FLUORESCENCE").stains is None
    back = read_qpdata(write_qpdata(replace(data, image_type="BRIGHTFIELD_H_DAB")))
    assert back.stains is not None
    assert back.stains["Name"] == "H-DAB default"


def test_the_header_says_version_3_and_what_the_caller_adds() -> None:
    back = read_qpdata(write_qpdata(QpData(server_json={"server": {"uri": "file:/ü.svs"}})))
    assert back.server_json == {"dataVersion": 3, "qupathVersion": "0.6.0", "server": {"uri": "file:/ü.svs"}}


def test_a_class_without_a_colour_of_its_own_gets_a_lasting_one() -> None:
    raw = write_qpdata(QpData(objects=[annotation(2, path_class="New: Kind")]))
    colors = read_qpdata(raw).class_colors
    assert list(colors) == ["New", "New: Kind"]
    assert all(color is not None and all(64 <= part <= 192 for part in color) for color in colors.values())
    assert write_qpdata(QpData(objects=[annotation(2, path_class="New: Kind")])) == raw


def test_given_colours_are_written_and_none_stays_none() -> None:
    colors = {"A": (1, 2, 3), "A: B": None}
    data = QpData(objects=[annotation(2, path_class="A: B")], class_colors=colors)
    assert read_qpdata(write_qpdata(data)).class_colors == colors


# ---- regions ----


@pytest.mark.parametrize(
    ("geometry", "wish", "kind"),
    [
        (SQUARE, None, Roi.POLYGON),
        (SQUARE, Roi.POLYGON, Roi.POLYGON),
        (SQUARE, Roi.RECTANGLE, Roi.RECTANGLE),
        (SQUARE, Roi.GEOMETRY, Roi.GEOMETRY),
        (SQUARE, Roi.ELLIPSE, Roi.POLYGON),
        (affinity.rotate(SQUARE, 10), Roi.RECTANGLE, Roi.POLYGON),
        (shapely.segmentize(SQUARE, 5), Roi.RECTANGLE, Roi.POLYGON),
        (RING, None, Roi.GEOMETRY),
        (RING, Roi.RECTANGLE, Roi.GEOMETRY),
        (RING, Roi.POLYGON, Roi.GEOMETRY),
        (ellipse(0, 0, 9, 5), Roi.ELLIPSE, Roi.ELLIPSE),
        (ellipse(0, 0, 9, 5), None, Roi.POLYGON),
        (affinity.rotate(ellipse(0, 0, 90, 5), 30), Roi.ELLIPSE, Roi.POLYGON),
        (shapely.Point(0, 0).buffer(50, quad_segs=16), Roi.ELLIPSE, Roi.ELLIPSE),
        (shapely.MultiPolygon([SQUARE]), None, Roi.POLYGON),
        (shapely.MultiPolygon([SQUARE]), Roi.GEOMETRY, Roi.GEOMETRY),
        (shapely.MultiPolygon([RING]), None, Roi.GEOMETRY),
        (shapely.MultiPolygon([SQUARE, affinity.translate(SQUARE, 20)]), None, Roi.GEOMETRY),
        (shapely.LineString([(0, 0), (1, 1)]), None, Roi.LINE),
        (shapely.LineString([(0, 0), (1, 1)]), Roi.POLYLINE, Roi.POLYLINE),
        (shapely.LineString([(0, 0), (1, 1), (2, 0)]), Roi.LINE, Roi.POLYLINE),
        (shapely.MultiLineString([[(0, 0), (1, 1)]]), None, Roi.LINE),
        (shapely.MultiLineString([[(0, 0), (1, 1)], [(2, 2), (3, 3)]]), None, Roi.GEOMETRY),
        (shapely.Point(1, 1), None, Roi.POINTS),
        (shapely.Point(1, 1), Roi.GEOMETRY, Roi.GEOMETRY),
        (shapely.MultiPoint([(1, 1), (2, 2)]), Roi.POLYGON, Roi.POINTS),
        (shapely.GeometryCollection([shapely.Point(1, 1), SQUARE]), None, Roi.GEOMETRY),
    ],
)
def test_the_kind_of_region_follows_the_wish_as_far_as_the_geometry_is_one(
    geometry: BaseGeometry, wish: Roi | None, kind: Roi
) -> None:
    (back,) = written_and_read(annotation(2, geometry, roi=wish))
    assert back.roi is kind
    assert back.geometry is not None
    assert shapely.hausdorff_distance(back.geometry, geometry) < 0.1


@settings(deadline=None)
@given(boxes())
def test_corners_of_rectangles_and_ellipses_are_exact(corners: tuple[float, float, float, float]) -> None:
    objects = [
        annotation(2, shapely.box(*corners), roi=Roi.RECTANGLE),
        annotation(3, ellipse(*corners), roi=Roi.ELLIPSE),
    ]
    for item in written_and_read(*objects):
        assert item.geometry is not None
        assert item.geometry.bounds == corners
    assert [o.roi for o in written_and_read(*objects)] == [Roi.RECTANGLE, Roi.ELLIPSE]


@settings(deadline=None)
@given(boxes(), st.integers(0, 3), st.booleans())
def test_a_rectangle_may_begin_at_any_corner_and_run_either_way(
    corners: tuple[float, float, float, float], start: int, backwards: bool
) -> None:
    ring = shapely.get_coordinates(shapely.box(*corners))[:4]
    ring = np.roll(ring[:: -1 if backwards else 1], start, axis=0)
    assert is_rectangle(shapely.Polygon([*ring, ring[0]]))


def test_half_an_ellipse_and_a_star_are_no_ellipses() -> None:
    whole = ellipse(0, 0, 100, 60)
    half = whole.intersection(shapely.box(0, 0, 100, 30))
    assert is_ellipse(whole)
    assert is_ellipse(affinity.affine_transform(whole, [2, 0, 0, -1, 7, 9]))
    assert not is_ellipse(half)
    assert not is_ellipse(whole.buffer(-1).union(shapely.box(49, 0, 51, 60)))
    assert not is_ellipse(SQUARE)


def test_coordinates_are_as_fine_as_float32() -> None:
    fine = shapely.Polygon([(199_999.013, 0.1), (200_000.37, 0), (199_999.5, 3.3)])
    (back,) = written_and_read(annotation(2, fine))
    assert back.geometry is not None
    stored = np.float32(shapely.get_coordinates(fine))
    assert np.array_equal(shapely.get_coordinates(back.geometry), stored)


def test_third_coordinates_stay_in_geometries_only() -> None:
    flat, kept = written_and_read(
        annotation(2, shapely.Polygon([(0, 0, 7), (9, 0, 7), (9, 9, 7)])),
        annotation(3, shapely.Polygon([(0, 0, 7), (9, 0, 7), (9, 9, 7)]), roi=Roi.GEOMETRY),
    )
    assert not shapely.has_z(flat.geometry)
    assert shapely.has_z(kept.geometry)


# ---- refused ----


@pytest.mark.parametrize("name", ["A: CK5:6", "A: ", "A:  : B", "A: B\nC", "A: B: \r"])
def test_a_derived_class_that_qupath_cannot_read_is_refused(name: str) -> None:
    with pytest.raises(ProjectError, match="cannot be read by QuPath"):
        write_qpdata(QpData(objects=[annotation(2, path_class=name)]))


def test_a_colon_in_a_class_of_one_level_is_written_and_read() -> None:
    assert [o.path_class for o in written_and_read(annotation(2, path_class="CK5:6"))] == ["CK5:6"]


def with_vertex(geometry: BaseGeometry, value: float) -> BaseGeometry:
    """The geometry with this as the y of its second vertex."""

    def change(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        coordinates[1, 1] = value
        return coordinates

    return shapely.transform(geometry, change)


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        (shapely.Polygon(), "is empty"),
        (shapely.LineString(), "is empty"),
        (with_vertex(SQUARE, math.nan), "not a finite number"),
        (with_vertex(SQUARE, math.inf), "not a finite number"),
        (with_vertex(SQUARE, 1e39), "not a finite number"),
        (with_vertex(shapely.LineString([(0, 0), (1, 0)]), -math.inf), "not a finite number"),
        (with_vertex(shapely.MultiPolygon([RING, affinity.translate(RING, 20)]), math.nan), "not a finite number"),
    ],
)
def test_regions_that_qupath_could_not_use_are_refused(geometry: BaseGeometry, words: str) -> None:
    with np.errstate(all="ignore"), pytest.raises(QuPathFormatError, match=words) as caught:
        write_qpdata(QpData(objects=[annotation(3), annotation(2, geometry)]))
    assert uid(2) in str(caught.value)


def chain(length: int) -> list[PathObject]:
    return [annotation(i, parent=uid(i - 1) if i > 2 else None) for i in range(2, length + 2)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (QpData("BRIGHTFIELD"), "no image type"),
        (QpData(objects=[annotation(2), annotation(2)]), "two objects have the id"),
        (QpData(objects=[annotation(2, parent=uid(9))]), "which is not there"),
        (QpData(objects=[annotation(2, parent=uid(3)), annotation(3, parent=uid(2))]), "in a ring"),
        (QpData(objects=[annotation(2, parent=uid(2))]), "in a ring"),
        (QpData(objects=chain(101)), "more than 100 deep"),
        (QpData(objects=[annotation(2, metadata={"Object ID": "x"})]), "QuPath's own"),
        (QpData(objects=[replace(annotation(2), uuid="1")]), "no id for an object"),
        (QpData(objects=[replace(annotation(2), uuid=uid(2).upper().replace("0", "A"))]), "no id for an object"),
        (QpData(objects=[replace(annotation(2), uuid="é" * 36)]), "no id for an object"),
        (QpData(root_uuid="root"), "no id for an object"),
        (QpData(tma_grid=TmaGrid(1, 1, (uid(5),))), "not among the objects"),
        (QpData(server_json={"dataVersion": 4}), "dataVersion 4"),
    ],
)
def test_what_qupath_could_not_read_back_is_refused(data: QpData, words: str) -> None:
    with pytest.raises(ProjectError, match=words):
        write_qpdata(data)


def test_a_hundred_levels_are_written() -> None:
    assert len(written_and_read(*chain(100))) == 100
