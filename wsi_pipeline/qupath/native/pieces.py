"""The pieces of which a path object is made in the stream, each read by the general parser.

QuPath writes: object and class, name, colour, metadata, measurements, number of children, the children, then whether it
is locked, its class, its region and the probability of its class, and what cells and cores add.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wsi_pipeline.objects import Kind
from wsi_pipeline.qupath.native import descriptors
from wsi_pipeline.qupath.native.ids import parse_uuid
from wsi_pipeline.qupath.native.java_model import Foreign, JavaObject, Tag
from wsi_pipeline.qupath.native.java_reader import JavaReader
from wsi_pipeline.qupath.native.stored_roi import StoredRoi
from wsi_pipeline.qupath.native.values import UUID_KEY, Measured, Values


class Metadata(NamedTuple):
    """Metadata of one object: its id (None if there is no usable one), the texts, and the keys without a value."""

    uuid: str | None
    texts: dict[str, str]
    empty: tuple[str, ...] = ()


@dataclass(slots=True)
class Leaves:
    """Columns of objects without children that follow each other, and by place the nuclei of those that have one."""

    kinds: list[Kind] = field(default_factory=list)
    uuids: list[str] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    measurements: list[dict[str, float]] = field(default_factory=list)
    locked: list[bool] = field(default_factory=list)
    classes: list[str | None] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    rois: list[StoredRoi] = field(default_factory=list)
    nuclei: dict[int, StoredRoi] = field(default_factory=dict)


class Pieces:
    """Reads piece after piece; each method begins where the one before ended.

    Parameters
    ----------
    java
        The stream, at the first path object.
    values
        Makes values of nodes.
    """

    def __init__(self, java: JavaReader, values: Values) -> None:
        self.java = java
        self.values = values
        self._waiting: tuple[Any] | None = None

    def _node(self) -> Any:
        """The next element of the stream."""
        self.values.at = self.java.pos
        return self.java.read()

    def leaves(self, limit: int) -> Leaves:
        """At most `limit` of the next objects, as far as they have no children and can be read at once."""
        return Leaves()

    def begin(self, index: int) -> Kind | None:
        """Head of the object that gets this index: its kind, None for the root."""
        java = self.java
        start = java.pos
        if java.peek() != Tag.OBJECT:
            raise java.error(f"tag {java.peek():02X} where a path object should begin")
        java.pos += 1
        name = java.class_desc().name
        java.handles.append(Foreign(index))
        if name == descriptors.ROOT.name:
            return None
        kind = descriptors.KINDS.get(name)
        if kind is None:
            raise java.error(f"an object of the kind {name}, which is not known,", start)
        return kind

    def label(self) -> tuple[str | None, int | None]:
        """Name and own colour (signed ARGB)."""
        return self.values.text(self._node(), "a name"), self.values.color(self._node())

    def metadata(self) -> Metadata:
        node = self._node()
        if not isinstance(node, JavaObject) or node.desc.name != descriptors.METADATA.name:
            # Files from before QuPath 0.2 have none: this is what follows it.
            self._waiting = (node,)
            return Metadata(None, {})
        found = self.values.metadata(node)
        text = found.pop(UUID_KEY, None)
        texts = {key: value for key, value in found.items() if value is not None}
        return Metadata(parse_uuid(text), texts, tuple(key for key, value in found.items() if value is None))

    def measurements(self) -> tuple[dict[str, float], Measured | None]:
        """Measurements by name; the list itself where the names alone would not tell everything."""
        node = self._waiting[0] if self._waiting else self._node()
        self._waiting = None
        measured = self.values.measurements(node)
        return measured.as_dict(), measured if measured.repeats else None

    def children(self) -> int:
        """How many path objects follow, as children of this one."""
        count = int(struct.unpack(">i", self._block(4, "the number of children"))[0])
        self.java.need(count, f"{count} children")
        return count

    def locked(self) -> bool:
        node = self._node()
        if isinstance(node, JavaObject) and node.desc.name == descriptors.BOOLEAN.name:
            return bool(self.values.boxed(node, "Boolean"))
        # Very old files do not say it: this is the class already.
        self._waiting = (node,)
        return False

    def path_class(self) -> str | None:
        node = self._waiting[0] if self._waiting else self._node()
        self._waiting = None
        return self.values.class_name(node)

    def roi(self) -> StoredRoi | None:
        return self.values.roi(self._node())

    def probability(self) -> float:
        return float(struct.unpack(">d", self._block(8, "the probability of a class"))[0])

    def core(self) -> tuple[float, bool]:
        """Probability of the class of a TMA core, and whether the core is missing."""
        probability, missing = struct.unpack(">d?", self._block(9, "the end of a TMA core"))
        return probability, missing

    def end(self) -> None:
        self.java.end()

    def _block(self, size: int, what: str) -> bytes:
        start = self.java.pos
        raw = self.java.block()
        if len(raw) != size:
            raise self.java.error(f"{len(raw)} bytes of block data where {what} needs {size},", start)
        return raw
