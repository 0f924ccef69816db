"""Everything that a project holds, as one JSON value that people and tests can read.

The form is that of the `project.expected.json` files which QuPath itself filled: the key is the image's name, for a
later image of the same name `name#entryID`; coordinates and WKT are in QuPath's own frame, as stored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import RGB, Kind, PathObject, Plane, Roi
from wsi_pipeline.qupath.builders import Builder, builder_size, pixel_size
from wsi_pipeline.qupath.geojson import features
from wsi_pipeline.qupath.native_project import NativeImage, NativeProject
from wsi_pipeline.qupath.project_file import argb_of

_TYPES = {
    Kind.ANNOTATION: "PathAnnotationObject",
    Kind.DETECTION: "PathDetectionObject",
    Kind.CELL: "PathCellObject",
    Kind.TILE: "PathTileObject",
    Kind.TMA_CORE: "TMACoreObject",
}
DESCRIPTION = "ANNOTATION_DESCRIPTION"


def dump_project(path: Path) -> dict[str, Any]:
    """Images, their metadata and all their objects; reads only.

    Parameters
    ----------
    path
        Folder of the project, or its .qpproj.

    Returns
    -------
    One value for each image: what the project file says (entry_id, uri, metadata, description, tags, width, height,
    pixel_size), what data.qpdata says (image_type, stains) and `objects`, depth first. Measurements may be NaN or
    infinite. `uri` is the slide's file name. `width`, `height` and `pixel_size` are None where no image of the slide
    in the project states them; the slide itself is not opened.

    Raises
    ------
    ProjectError, QuPathFormatError
        The project or one of its data files cannot be read; nothing is left out.
    """
    project = NativeProject.open(path, read_only=True)
    stated = {i.uri: project.entry(i.entry_id).builder for i in project.images() if i.size is not None}
    return {key: _image(project, image, stated) for key, image in keyed_images(project).items()}


def geojson_of_project(path: Path) -> Iterator[str]:
    """One JSON object, piece by piece: by the same key the FeatureCollection of each image, which QuPath imports.

    Coordinates are as stored, rounded to 0.01 px. Reads only.

    Raises
    ------
    ProjectError, QuPathFormatError
        As `dump_project`; or an object has a shape that GeoJSON cannot hold (no points, mixed kinds).
    """
    project = NativeProject.open(path, read_only=True)
    before = "{\n"
    for key, image in keyed_images(project).items():
        data = project.read_data(image)
        colors = {} if data is None else _colors(project, data.class_colors)
        listed = {name: color for name, color in colors.items() if color is not None}
        yield f'{before}{json.dumps(key, ensure_ascii=False)}: {{"type":"FeatureCollection","features":['
        between = "\n"
        for feature in features([] if data is None else data.objects, listed):
            yield between + feature.decode()
            between = ",\n"
        yield "]}"
        before = ",\n"
    yield "{}\n" if before == "{\n" else "\n}\n"


def keyed_images(project: NativeProject) -> dict[str, NativeImage]:
    """The images in the project's order, by name, for a later one of the same name `name#entryID`."""
    keyed: dict[str, NativeImage] = {}
    for image in project.images():
        key = image.name
        while key in keyed:  # more than once where a name itself ends like such a key
            key = f"{key}#{image.entry_id}"
        keyed[key] = image
    return keyed


def _colors(project: NativeProject, own: Mapping[str, RGB | None]) -> dict[str, RGB | None]:
    """Colours of classes: those of the list win in QuPath, as they are set before any image is opened."""
    return {**own, **{c.name: c.color for c in project.path_classes if c.color}}


def _image(project: NativeProject, image: NativeImage, stated: Mapping[str, Builder]) -> dict[str, Any]:
    entry = project.entry(image.entry_id)
    data = project.read_data(image)
    colors = {} if data is None else _colors(project, data.class_colors)
    builder = entry.builder if image.size is not None else stated.get(image.uri, entry.builder)
    size, pixels = builder_size(builder), pixel_size(builder)
    return {
        "image_type": f"QuPathImageType.{'UNSET' if data is None else data.image_type}",
        "width": size[0] if size else None,
        "height": size[1] if size else None,
        "metadata": image.metadata,
        "uri": PurePosixPath(unquote(urlsplit(image.uri).path)).name,
        "entry_id": str(image.entry_id),
        "description": image.description,
        "has_data": data is not None,
        "tags": None if entry.tags is None else sorted(entry.tags),
        "pixel_size": list(pixels) if pixels else None,
        "stains": None if data is None or data.stains is None else _stains(data.stains),
        "objects": [] if data is None else [dump_object(o, colors) for o in data.objects],
    }


def dump_object(item: PathObject, colors: Mapping[str, RGB | None]) -> dict[str, Any]:
    """One object as JSON.

    Parameters
    ----------
    colors
        Of classes, by full name.
    """
    class_color = colors.get(item.path_class) if item.path_class is not None else None
    dumped: dict[str, Any] = {
        "id": item.uuid,
        "type": _TYPES[item.kind],
        "name": item.name,
        "locked": item.locked,
        "path_class": item.path_class,
        **_region(item.geometry, item.roi, item.plane),
        "parent": item.parent,
        "measurements": dict(item.measurements),
        "color": None if item.color is None else argb_of(item.color),
        "class_color": None if class_color is None else argb_of(class_color),
        "class_probability": None if math.isnan(item.class_probability) else item.class_probability,
    }
    if item.metadata:
        dumped["metadata"] = dict(item.metadata)
    if item.kind is Kind.ANNOTATION:
        dumped["description"] = item.metadata.get(DESCRIPTION)
    if item.kind is Kind.CELL:
        nucleus = _region(item.nucleus, item.nucleus_roi, item.plane)
        dumped["nucleus"] = nucleus if item.nucleus is not None else {"roi": None, "wkt": None}
    if item.kind is Kind.TMA_CORE:
        dumped["missing"] = item.missing
    return dumped


def _region(geometry: BaseGeometry | None, roi: Roi | None, plane: Plane) -> dict[str, Any]:
    if geometry is None:
        return {"roi": None, "wkt": None, "plane": list(plane)}
    kind = roi or roi_of(geometry)
    return {"roi": kind.value, "wkt": shapely.to_wkt(geometry, rounding_precision=3, trim=True), "plane": list(plane)}


def roi_of(geometry: BaseGeometry) -> Roi:
    """The kind of region that QuPath makes of a geometry whose kind was not stated."""
    match geometry.geom_type:
        case "Point" | "MultiPoint":
            return Roi.POINTS
        case "LineString" | "LinearRing":
            return Roi.LINE if shapely.get_num_coordinates(geometry) == 2 else Roi.POLYLINE
        case "Polygon" if not shapely.get_num_interior_rings(geometry):
            return Roi.RECTANGLE if geometry.equals(shapely.box(*geometry.bounds)) else Roi.POLYGON
    return Roi.GEOMETRY


def _stains(stains: Mapping[str, str]) -> str:
    """`name|{JSON-like text}` with vectors of five decimals, as QuPath prints colour deconvolution stains."""
    parts = []
    for key, value in stains.items():
        text = " ".join(_number(word) for word in value.split())
        if key.startswith("Values"):
            parts.append(f'"{key}" : "{text}"')
        elif key == "Background":
            parts.append(f'"{key}" : " {text}"')
        else:
            parts.append(f'"{key}" : "{value}"')
    return f"{stains.get('Name', '')}|{{{', '.join(parts)}}}"


def _number(word: str) -> str:
    """A number with at most five decimals and no trailing zeros; another word as it is."""
    if not re.fullmatch(r"-?[0-9.]+(?:[eE][-+]?[0-9]+)?", word):
        return word
    text = f"{float(word):.5f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
