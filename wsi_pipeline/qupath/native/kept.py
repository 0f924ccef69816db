"""What a file says that `PathObject` has no place for, kept so that writing it again loses nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import Plane, Roi
from wsi_pipeline.qupath.native.java_model import JavaEnum, Node
from wsi_pipeline.qupath.native.stored_roi import StoredRoi
from wsi_pipeline.qupath.native.values import Measured


class Root(NamedTuple):
    """The root object, which has no region and contains all others."""

    uuid: str | None = None
    name: str | None = None
    color: int | None = None
    metadata: Mapping[str, str] = {}
    measurements: Mapping[str, float] = {}


class KeptRoi(NamedTuple):
    """A region that its geometry alone does not give back: without area, with a vertex that is no number, ..."""

    stored: StoredRoi
    geometry: BaseGeometry | None

    def still_holds(self, geometry: BaseGeometry | None, roi: Roi | None, plane: Plane | None) -> bool:
        """Whether nobody has changed the object's region since it was read (plane None: whatever it is)."""
        same = geometry is self.geometry or bool(shapely.equals_identical(geometry, self.geometry))
        return same and roi is self.stored.kind and plane in (None, self.stored.plane)


@dataclass(slots=True)
class Objects:
    """By uuid, what single objects hold besides what their `PathObject` says.

    Attributes
    ----------
    rois, nuclei
        Regions that need their stored form.
    repeated
        Measurement lists in which a name is there twice.
    empty_metadata
        Keys of metadata that have no value.
    colors
        Own colours that are not opaque, signed ARGB.
    duplicates
        Ids that several objects of the file have.
    """

    rois: dict[str, KeptRoi] = field(default_factory=dict)
    nuclei: dict[str, KeptRoi] = field(default_factory=dict)
    repeated: dict[str, Measured] = field(default_factory=dict)
    empty_metadata: dict[str, tuple[str, ...]] = field(default_factory=dict)
    colors: dict[str, int] = field(default_factory=dict)
    duplicates: frozenset[str] = frozenset()


@dataclass(slots=True)
class Kept:
    """The parts of a file around its objects.

    Attributes
    ----------
    header
        The JSON text as it stood there, None for a file that is new.
    locale, image_type, stains, workflow, properties
        Nodes of the Java stream; the stains belong to the image type.
    others
        Further nodes at the top level, which QuPath passes over.
    root
        The root object.
    class_colors
        Signed ARGB of classes whose colour is not opaque.
    """

    header: str | None = None
    locale: Node = None
    image_type: JavaEnum | None = None
    stains: Node = None
    workflow: Node = None
    properties: Node = None
    others: tuple[Node, ...] = ()
    root: Root = field(default_factory=Root)
    class_colors: dict[str, int] = field(default_factory=dict)
    objects: Objects = field(default_factory=Objects)
