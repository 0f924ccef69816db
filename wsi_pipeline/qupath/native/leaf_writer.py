"""Objects without children, one after another: most of what a file holds."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Mapping
from typing import NamedTuple

from wsi_pipeline.objects import Kind, PathObject, Roi
from wsi_pipeline.qupath.native import descriptors
from wsi_pipeline.qupath.native.hierarchy_writing import (
    ARRAY,
    END,
    NO_CHILDREN,
    NO_PROBABILITY,
    NULL,
    UUID_HEAD,
    HierarchyWriter,
    code_of,
)
from wsi_pipeline.qupath.native.java_model import packer
from wsi_pipeline.qupath.native.java_writer import JavaWriter
from wsi_pipeline.qupath.native.kept import Objects
from wsi_pipeline.qupath.native.stored_roi import CORNERS, StoredRoi
from wsi_pipeline.qupath.native.values import UUID_KEY


class _Template(NamedTuple):
    """The constant pieces of objects that differ only in ids, texts and numbers, and what they count.

    Attributes
    ----------
    begin
        Up to the first value of the metadata.
    middle
        From the end of the metadata to the numbers of the measurements.
    form
        These numbers.
    ending
        From there to the numbers of the region.
    between
        Between the two arrays of a region, or behind the corners of one.
    arrays
        How many arrays the region has.
    elements
        How many elements the pieces behind the id count, the region with them.
    """

    begin: bytes
    middle: bytes
    form: struct.Struct
    ending: bytes
    between: bytes
    arrays: int
    elements: int


class LeafWriter(HierarchyWriter):
    """Writes the first object of a form by the general path, and every further one as one join of constant pieces."""

    def __init__(self, java: JavaWriter, colors: Mapping[str, int | None], kept: Objects) -> None:
        super().__init__(java, colors, kept)
        self._templates: dict[tuple[Hashable, ...], _Template] = {}

    def leaf(self, item: PathObject, roi: StoredRoi | None, nucleus: StoredRoi | None) -> None:
        """An object that has no children."""
        if roi is None or roi.name is not None or not self._is_plain(item):
            self.head(item, 0)
            self.tail(item, roi, nucleus)
            return
        kind, measurements, metadata = item.kind, item.measurements, item.metadata
        names, values = tuple(measurements), measurements.values()
        code = "d" if kind is Kind.ANNOTATION else code_of(tuple(values))
        keys = tuple(metadata) if metadata else ()
        form = (kind, code, names, item.locked, item.path_class, roi.kind, roi.plane, keys)
        template = self._templates.get(form)
        if template is None:
            self.head(item, 0)
            self.tail(item, roi, nucleus)
            self._templates[form] = self._template(item, roi, code, names)
            return
        java = self._java
        begin, middle, numbers, ending, between, arrays, elements = template
        java.next_handle += 4
        texts = b"".join(map(self.text, metadata.values())) if metadata else b""
        java.next_handle += elements
        shape: tuple[bytes, ...]
        if arrays:
            count = (len(roi.first) >> 2 if arrays == 2 else len(roi.first)).to_bytes(4, "big")
            shape = (count, roi.first, between, count, roi.second) if arrays == 2 else (count, roi.first)
        else:
            shape = (roi.first, between)
        probability = item.class_probability
        java.out += b"".join(
            (
                begin,
                texts,
                UUID_HEAD,
                item.uuid.encode("ascii"),
                middle,
                numbers.pack(*values),
                ending,
                *shape,
                NO_PROBABILITY if probability != probability else b"\x77\x08" + struct.pack(">d", probability),
            )
        )
        if kind is Kind.CELL:
            self._roi(nucleus)
        java.out += END

    def _is_plain(self, item: PathObject) -> bool:
        kept = self._kept
        return (
            item.name is None
            and item.color is None
            and item.kind is not Kind.TMA_CORE
            and not (kept.empty_metadata and item.uuid in kept.empty_metadata)
            and not (kept.repeated and item.uuid in kept.repeated)
        )

    def _template(self, item: PathObject, roi: StoredRoi, code: str, names: tuple[str, ...]) -> _Template:
        """The pieces of an object like this one, which has just been written."""
        kind = roi.kind
        head = self._roi_heads[kind, roi.plane]
        between, arrays = b"", 0
        if kind in CORNERS:
            between = struct.pack(">i", roi.plane.z) + NULL
        elif kind is Roi.GEOMETRY:
            arrays = 1
            head += NULL + ARRAY + self._reference(descriptors.BYTE_ARRAY)
        else:
            arrays = 2
            between = ARRAY + self._reference(descriptors.FLOAT_ARRAY)
            head += NULL * {Roi.POLYGON: 2, Roi.POINTS: 1}.get(kind, 0) + between
        listed = self._list_heads[code, names] if names else NULL
        return _Template(
            begin=self._heads[descriptors.BY_KIND[item.kind]]
            + NULL
            + NULL
            + self._metadata_heads[(*item.metadata, UUID_KEY)],
            middle=END + listed,
            form=packer(code, len(names)),
            ending=NO_CHILDREN
            + self._boolean_references[item.locked]
            + (self._classes[item.path_class] if item.path_class else NULL)
            + head,
            between=between,
            arrays=arrays,
            elements=1 + (2 if names else 0) + 1 + arrays,
        )
