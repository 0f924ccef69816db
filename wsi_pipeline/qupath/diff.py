"""What differs between two projects, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.qupath.beside import beside_the_dump
from wsi_pipeline.qupath.dump import dump_project
from wsi_pipeline.qupath.shapes import same_region

# QuPath's WKT is rounded to 0.01 px, the file's polygons to 32-bit floats.
TOLERANCE = 0.02
_IMAGE_FIELDS = {
    "entry_id": "id",
    "uri": "slide",
    "image_type": "image type",
    "width": "width",
    "height": "height",
    "pixel_size": "pixel size",
    "metadata": "metadata",
    "description": "description",
    "tags": "tags",
    "stains": "stains",
    "has_data": "whether it was ever opened",
}
_OBJECT_FIELDS = {
    "type": "type",
    "path_class": "class",
    "class_color": "colour of the class",
    "name": "name",
    "locked": "lock",
    "parent": "parent",
    "roi": "kind of region",
    "plane": "plane",
    "color": "colour",
    "class_probability": "class probability",
    "metadata": "metadata",
    "missing": "whether the core is missing",
}


def diff_projects(a: Path, b: Path) -> list[str]:
    """One sentence for each difference between two projects; none when they say the same.

    Shapes are compared as regions (0.02 px times the perimeter), numbers to 1e-6, the order of objects as such.
    Beside them the list of classes, and of each image TMA grid, properties and workflow.

    Raises
    ------
    ProjectError, QuPathFormatError
        One of the projects cannot be read.
    """
    return [*diff_dumps(dump_project(a), dump_project(b)), *_beside(a, b)]


def diff_dumps(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """As `diff_projects`, on what `dump_project` gave."""
    found = [f"image {name!r} is only in the first project" for name in a if name not in b]
    found += [f"image {name!r} is only in the second project" for name in b if name not in a]
    for name in a:
        if name in b:
            found += [f"image {name!r}: {what}" for what in _image(a[name], b[name])]
    return found


def _beside(a: Path, b: Path) -> Iterator[str]:
    (project_a, images_a), (project_b, images_b) = beside_the_dump(a), beside_the_dump(b)
    yield from _fields(project_a, project_b, {key: key for key in project_a})
    for name in (key for key in images_a if key in images_b):
        first, second = images_a[name], images_b[name]
        for key in (k for k in first if k != "workflow"):
            yield from (f"image {name!r}: {text}" for text in _fields(first, second, {key: key}))
        if first["workflow"] != second["workflow"]:
            yield f"image {name!r}: the steps of its workflow differ"


def _image(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    yield from _fields(a, b, _IMAGE_FIELDS)
    first = {o["id"]: o for o in a["objects"]}
    second = {o["id"]: o for o in b["objects"]}
    yield from (f"object {i} ({_short(o)}) is only in the first project" for i, o in first.items() if i not in second)
    yield from (f"object {i} ({_short(o)}) is only in the second project" for i, o in second.items() if i not in first)
    common = [i for i in first if i in second]
    if common != [i for i in second if i in first]:
        yield "the objects stand in another order"
    for identity in common:
        yield from (f"object {identity}: {what}" for what in diff_objects(first[identity], second[identity]))


def diff_objects(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What differs between two objects of a dump; keys that only one of them has count as None."""
    found = list(_fields(a, b, _OBJECT_FIELDS))
    found += _measurements(a.get("measurements") or {}, b.get("measurements") or {})
    found += _shape("shape", a.get("wkt"), b.get("wkt"))
    first, second = a.get("nucleus") or {}, b.get("nucleus") or {}
    found += _shape("nucleus", first.get("wkt"), second.get("wkt"))
    return found


def _fields(a: Mapping[str, Any], b: Mapping[str, Any], fields: Mapping[str, str]) -> Iterator[str]:
    for key, word in fields.items():
        first, second = a.get(key), b.get(key)
        if _equal(first, second):
            continue
        if first and second and isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from _entries(word, first, second)
        else:
            yield f"{word} {first!r} is {second!r} in the second project"


def _entries(word: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """Of two mappings only what differs: of an image's metadata it is mostly the state."""
    for name in [*a, *(n for n in b if n not in a)]:
        if name not in b or name not in a:
            value, where = (a[name], "first") if name in a else (b[name], "second")
            yield f"{word} {name!r} ({value!r}) is only in the {where} project"
        elif not _equal(a[name], b[name]):
            yield f"{word} {name!r} {a[name]!r} is {b[name]!r} in the second project"


def _measurements(a: Mapping[str, float], b: Mapping[str, float]) -> Iterator[str]:
    for name in [*a, *(n for n in b if n not in a)]:
        if name not in b or name not in a:
            yield f"measurement {name!r} is only in the {'first' if name in a else 'second'} project"
        elif not _equal(a[name], b[name]):
            yield f"measurement {name!r} {a[name]:g} is {b[name]:g} in the second project"


def _shape(word: str, a: str | None, b: str | None) -> Iterator[str]:
    if a == b:
        return
    if a is None or b is None:
        yield f"its {word} is only in the {'first' if b is None else 'second'} project"
        return
    first, second = shapely.from_wkt(a), shapely.from_wkt(b)
    if not same_region(first, second, TOLERANCE):
        yield f"its {word} differs ({_extent(first)}; {_extent(second)} in the second project)"


def _extent(shape: BaseGeometry) -> str:
    dimensions = int(shapely.get_dimensions(shape))
    if dimensions == 2:
        return f"{shape.area:.6g} px²"
    return f"{shape.length:.6g} px" if dimensions == 1 else f"{shapely.get_num_coordinates(shape)} points"


def _short(item: Mapping[str, Any]) -> str:
    return f"{item['path_class'] or 'unclassified'} {item['type'].removeprefix('Path').removesuffix('Object').lower()}"


def _equal(a: Any, b: Any) -> bool:
    """Equality in which NaN is itself and numbers may differ by 1e-6 of their size."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return (math.isnan(a) and math.isnan(b)) or a == b or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)
