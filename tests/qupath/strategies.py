"""Arbitrary path objects, as a pathologist's QuPath may hold them; level-0 px below 5,000."""

from __future__ import annotations

import math
import uuid

import shapely
from hypothesis import strategies as st
from shapely import affinity

from wsi_pipeline.objects import Kind, PathClass, PathObject, Plane, Roi

CLASSES = (
    PathClass("Tumor", (200, 0, 0)),
    PathClass("Stroma", (150, 200, 150)),
    PathClass("Tumor: Positive", (200, 50, 50)),
    PathClass("Nécrose – 壊死", (108, 105, 14)),
)
COLORS = {c.name: c.color for c in CLASSES if c.color is not None}

# QuPath stores floats of 32 bits: quarters below 5,000 come back exactly.
quarters = st.integers(min_value=4, max_value=4 * 5000 - 4).map(lambda n: n / 4)
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
    max_size=20,
)
keys = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Cs"]), min_size=1, max_size=12)


@st.composite
def polygons(draw: st.DrawFn) -> shapely.Polygon:
    """A star-shaped polygon, sometimes with a hole; valid, with coordinates of quarters of a px."""
    x, y = draw(quarters), draw(quarters)
    corners = draw(st.integers(min_value=3, max_value=9))
    radii = draw(st.lists(st.integers(min_value=8, max_value=60), min_size=corners, max_size=corners))
    angles = [2 * math.pi * i / corners for i in range(corners)]
    ring = [
        (round(4 * (x + r * math.cos(a))) / 4, round(4 * (y + r * math.sin(a))) / 4)
        for r, a in zip(radii, angles, strict=True)
    ]
    hole = [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x, y + 0.5)] if draw(st.booleans()) else None
    return shapely.Polygon(ring, [hole] if hole else None)


@st.composite
def rectangles(draw: st.DrawFn) -> shapely.Polygon:
    x, y = draw(quarters), draw(quarters)
    return shapely.box(x, y, x + draw(st.integers(1, 500)), y + draw(st.integers(1, 500)))


@st.composite
def ellipses(draw: st.DrawFn) -> shapely.Polygon:
    x, y = draw(quarters), draw(quarters)
    circle = shapely.Point(0, 0).buffer(1, quad_segs=16)
    return affinity.translate(affinity.scale(circle, draw(st.integers(2, 99)), draw(st.integers(2, 99))), x, y)


points = st.builds(shapely.Point, quarters, quarters)
multipoints = st.lists(st.tuples(quarters, quarters), min_size=2, max_size=5).map(shapely.MultiPoint)
polylines = st.lists(st.tuples(quarters, quarters), min_size=3, max_size=6, unique=True).map(shapely.LineString)


@st.composite
def multipolygons(draw: st.DrawFn) -> shapely.MultiPolygon:
    x, y = draw(quarters), draw(quarters)
    return shapely.MultiPolygon([shapely.box(x, y, x + 9, y + 7), shapely.box(x + 20, y, x + 31, y + 40)])


shapes = st.one_of(
    polygons().map(lambda g: (g, Roi.GEOMETRY if g.interiors else Roi.POLYGON)),
    rectangles().map(lambda g: (g, Roi.RECTANGLE)),
    ellipses().map(lambda g: (g, Roi.ELLIPSE)),
    multipolygons().map(lambda g: (g, Roi.GEOMETRY)),
    points.map(lambda g: (g, Roi.POINTS)),
    multipoints.map(lambda g: (g, Roi.POINTS)),
    polylines.map(lambda g: (g, Roi.POLYLINE)),
)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.just(float("nan")),
    st.just(float("inf")),
    st.just(-float("inf")),
)


@st.composite
def path_objects(draw: st.DrawFn, kinds: tuple[Kind, ...] = tuple(Kind)) -> PathObject:
    """One object without parent."""
    kind = draw(st.sampled_from([k for k in kinds if k is not Kind.TMA_CORE]))
    geometry, roi = draw(shapes)
    nucleus = draw(st.none() | polygons()) if kind is Kind.CELL else None
    return PathObject(
        uuid=str(uuid.UUID(int=draw(st.integers(min_value=1, max_value=2**128 - 1)))),
        kind=kind,
        geometry=geometry,
        path_class=draw(st.none() | st.sampled_from([c.name for c in CLASSES])),
        name=draw(st.none() | texts),
        measurements=draw(st.dictionaries(keys, numbers, max_size=4)),
        metadata=draw(st.dictionaries(keys, texts, max_size=3)),
        color=draw(st.none() | st.tuples(*[st.integers(0, 255)] * 3)),
        locked=draw(st.booleans()),
        plane=draw(st.sampled_from([Plane(), Plane(-1, 2, 1), Plane(0, 0, 0)])),
        roi=roi,
        nucleus=nucleus,
        nucleus_roi=None if nucleus is None else Roi.GEOMETRY if nucleus.interiors else Roi.POLYGON,
    )


object_lists = st.lists(path_objects(), max_size=6, unique_by=lambda o: o.uuid)


def equal_numbers(a: dict[str, float], b: dict[str, float], tolerance: float = 0.0) -> bool:
    """Whether measurements are the same, in the same order, with NaN equal to NaN."""
    if list(a) != list(b):
        return False
    return all((math.isnan(x) and math.isnan(b[k])) or x == b[k] or abs(x - b[k]) <= tolerance for k, x in a.items())
