"""The one vocabulary of annotations, detections, cells and tiles.

Everything here is in level-0 pixels of the slide file: x right, y down, origin at the outer corner
of the top-left pixel.
"""

from __future__ import annotations

import uuid as uuid_module
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import shapely
from shapely.geometry.base import BaseGeometry

RGB = tuple[int, int, int]

# Metadata keys that every pre-annotation carries. QuPath keeps an object's metadata when its shape is
# edited and clears its measurements, so provenance lives here.
META_RUN = "wsi_run"
META_MODEL = "wsi_model"
META_CONFIDENCE = "wsi_confidence"


class Kind(StrEnum):
    """What an object is in QuPath's object model."""

    ANNOTATION = "annotation"
    DETECTION = "detection"
    CELL = "cell"
    TILE = "tile"
    TMA_CORE = "tma_core"


class Roi(StrEnum):
    """QuPath's kind of region. Several kinds may have equal geometries, and QuPath tells them apart."""

    RECTANGLE = "Rectangle"
    ELLIPSE = "Ellipse"
    LINE = "Line"
    POLYLINE = "Polyline"
    POLYGON = "Polygon"
    GEOMETRY = "Geometry"
    POINTS = "Points"


class Plane(NamedTuple):
    """Channel (-1: all), z-slice and time point."""

    c: int = -1
    z: int = 0
    t: int = 0


DEFAULT_PLANE = Plane()


@dataclass(frozen=True, slots=True)
class PathClass:
    """A class of objects. A derived class is named `A: B`; its last part is the most specific."""

    name: str
    color: RGB | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.name.split(": "))


@dataclass(frozen=True, slots=True)
class PathObject:
    """One annotation, detection, cell, tile or TMA core.

    Attributes
    ----------
    geometry
        shapely geometry in level-0 px; None for an object without a region.
    roi
        QuPath's kind of region when it is known (read from QuPath); None lets the writer choose by geometry.
    path_class
        Full derived name (`Tumor: Positive`), None for an object without a class.
    class_probability
        QuPath's own field for it; NaN when it has none.
    measurements, metadata
        Insertion order is kept; measurements may be NaN or infinite.
    parent
        uuid of the object it is nested in; None at the top.
    nucleus, nucleus_roi
        Only for cells.
    missing
        Only for TMA cores: the core is not there.
    """

    uuid: str
    kind: Kind
    geometry: BaseGeometry | None
    path_class: str | None = None
    name: str | None = None
    measurements: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    color: RGB | None = None
    locked: bool = False
    parent: str | None = None
    plane: Plane = DEFAULT_PLANE
    roi: Roi | None = None
    class_probability: float = float("nan")
    nucleus: BaseGeometry | None = None
    nucleus_roi: Roi | None = None
    missing: bool = False


def object_uuid(run_id: str, slide_id: str, label: str, geometry: BaseGeometry) -> str:
    """The uuid of a pre-annotation: the same run, slide, label and geometry give the same uuid (version 5)."""
    name = f"{run_id}\n{slide_id}\n{label}\n".encode() + shapely.to_wkb(shapely.normalize(geometry))
    return str(uuid_module.uuid5(uuid_module.NAMESPACE_OID, name.hex()))
