"""Arbitrary contents of a data.qpdata: every kind of object and region, odd texts and numbers, nesting."""

from __future__ import annotations

import uuid
from dataclasses import replace

import numpy as np
import shapely
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import Kind, PathObject, Plane, Roi
from wsi_pipeline.qupath.native.qpdata import QpData, TmaGrid
from wsi_pipeline.qupath.native.stored_roi import ellipse
from wsi_pipeline.qupath.native.writing import DEFAULT_STAINS

# Any UTF-16 text, as Java has it: U+0000, characters beyond the BMP, surrogates without a partner.
texts = st.text(st.characters(), max_size=12).map(
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
class_names = st.sampled_from(
    ["Tumor", "Stroma", "Tumor: Positive", "Tumor: Positive: Strong", "Nécrose – 壊死", "a:b"]
)
numbers = st.one_of(st.floats(), st.floats(width=32), st.sampled_from([0.0, -0.0, 0.1, 1e300]))
coordinates = st.floats(-1e6, 1e6, width=32)
corners = st.floats(-1e6, 1e6)
colors = st.tuples(*[st.integers(0, 255)] * 3)
uuids = st.uuids().map(str)
planes = st.builds(Plane, st.integers(-1, 3), st.integers(0, 9), st.integers(0, 9))
Shape = tuple[BaseGeometry | None, Roi | None]


@st.composite
def rings(draw: st.DrawFn, least: int = 3) -> list[tuple[float, float]]:
    """Vertices in any place: rings may cross themselves, be flat or repeat a vertex."""
    return draw(st.lists(st.tuples(coordinates, coordinates), min_size=least, max_size=8))


@st.composite
def holed(draw: st.DrawFn) -> BaseGeometry:
    """One or two valid polygons, the first with a hole."""
    x, y, size = draw(corners), draw(corners), draw(st.floats(10, 1000))
    inner = shapely.box(x + size / 4, y + size / 4, x + size / 2, y + size / 2)
    outer = shapely.Polygon(shapely.box(x, y, x + size, y + size).exterior, [inner.exterior])
    beside = shapely.box(x + 2 * size, y, x + 3 * size, y + size)
    return shapely.MultiPolygon([outer, beside]) if draw(st.booleans()) else outer


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x, y, x2, y2 = (draw(corners) for _ in range(4))
    return min(x, x2), min(y, y2), max(x, x2), max(y, y2)


shapes: st.SearchStrategy[Shape] = st.one_of(
    st.just((None, None)),
    rings().map(lambda ring: (shapely.Polygon(ring), Roi.POLYGON)),
    boxes().map(lambda box: (shapely.box(*box), Roi.RECTANGLE)),
    boxes().map(lambda box: (ellipse(*box), Roi.ELLIPSE)),
    holed().map(lambda shape: (shape, Roi.GEOMETRY)),
    st.tuples(*[corners] * 4).map(lambda c: (shapely.LineString([c[:2], c[2:]]), Roi.LINE)),
    rings(2).map(lambda line: (shapely.LineString(line), Roi.POLYLINE)),
    st.tuples(coordinates, coordinates).map(lambda at: (shapely.Point(at), Roi.POINTS)),
    rings(2).map(lambda points: (shapely.MultiPoint(points), Roi.POINTS)),
    st.just((shapely.MultiPoint(), Roi.POINTS)),
    st.just((shapely.MultiLineString([[(0, 0), (1, 2)], [(3, 3), (4, 4)]]), Roi.GEOMETRY)),
)
# Few sets of names and keys, so that objects of one form follow each other as in real files.
measurements = st.one_of(
    st.dictionaries(st.sampled_from(["Area µm^2", "Probability: mean", ""]), numbers),
    st.dictionaries(texts, numbers, max_size=3),
)
metadata: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"wsi_run": st.sampled_from(["run-1", "run-2"]), "wsi_confidence": texts}),
    st.dictionaries(texts.filter(lambda key: key != "Object ID"), texts, max_size=3),
)


@st.composite
def path_objects(draw: st.DrawFn) -> PathObject:
    """One object without parent; QuPath gives names and own colours seldom, and so does this."""
    kind = draw(st.sampled_from(list(Kind)))
    geometry, roi = draw(shapes)
    nucleus, nucleus_roi = draw(shapes) if kind is Kind.CELL else (None, None)
    return PathObject(
        uuid=draw(uuids),
        kind=kind,
        geometry=geometry,
        path_class=draw(st.none() | class_names),
        name=draw(st.none() | st.none() | texts),
        measurements=draw(measurements),
        metadata=draw(metadata),
        color=draw(st.none() | st.none() | colors),
        locked=draw(st.booleans()),
        plane=draw(st.just(Plane()) | planes) if geometry is not None else Plane(),
        roi=roi,
        class_probability=draw(st.just(float("nan")) | numbers),
        nucleus=nucleus,
        nucleus_roi=nucleus_roi,
        missing=kind is Kind.TMA_CORE and draw(st.booleans()),
    )


@st.composite
def nested(draw: st.DrawFn, most: int = 12) -> list[PathObject]:
    """Objects depth first, some inside others."""
    items = draw(st.lists(path_objects(), max_size=most, unique_by=lambda item: item.uuid))
    above: list[str] = []
    placed = []
    for item in items:
        del above[draw(st.integers(0, len(above))) :]
        placed.append(replace(item, parent=above[-1] if above else None))
        above.append(item.uuid)
    return placed


@st.composite
def qpdatas(draw: st.DrawFn, most: int = 12) -> QpData:
    objects = draw(nested(most))
    cores = tuple(item.uuid for item in objects if item.kind is Kind.TMA_CORE)
    return QpData(
        image_type=draw(st.sampled_from([*DEFAULT_STAINS, "FLUORESCENCE", "OTHER", "UNSET"])),
        server_json=draw(st.none() | st.fixed_dictionaries({"server": st.dictionaries(texts, texts, max_size=2)})),
        objects=objects,
        class_colors=draw(st.dictionaries(class_names, st.none() | colors, max_size=3)),
        tma_grid=draw(st.none() | st.just(TmaGrid(len(cores), 1, cores))) if cores else None,
        root_uuid=draw(st.none() | uuids),
    )


def many_alike(count: int, kind: Kind = Kind.ANNOTATION, vertices: int = 12) -> list[PathObject]:
    """Objects of one form, as a model makes them, with one now and then that is different."""
    random = np.random.default_rng(7)
    turn = np.arange(vertices) * 2 * np.pi / vertices
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    made = []
    for index in range(count):
        ring = np.float32(random.uniform(0, 5000, 2) + random.uniform(5, 9) * circle)
        made.append(
            PathObject(
                uuid=str(uuid.UUID(bytes=random.bytes(16))),
                kind=kind,
                geometry=shapely.Polygon(ring),
                path_class="Tumor" if index % 3 else None,
                name="seldom" if index % 11 == 10 else None,
                measurements={"mean": float(np.float32(random.random())), "area": float(index)},
                metadata={"wsi_run": "r", "wsi_confidence": f"{random.random():.3f}"} if index % 2 else {},
                locked=index % 7 == 0,
                roi=Roi.POLYGON,
                nucleus=shapely.Polygon(ring / 2) if kind is Kind.CELL else None,
                nucleus_roi=Roi.POLYGON if kind is Kind.CELL else None,
            )
        )
    return made
