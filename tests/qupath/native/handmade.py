"""Files made node by node, with what this package's own writer would never write but QuPath and scripts do."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from wsi_pipeline.objects import DEFAULT_PLANE, Kind, Plane, Roi
from wsi_pipeline.qupath.native import descriptors as d
from wsi_pipeline.qupath.native.java_model import (
    ClassDesc,
    Field,
    Flag,
    JavaArray,
    JavaEnum,
    JavaObject,
    JavaString,
    Node,
    Part,
)
from wsi_pipeline.qupath.native.java_writer import JavaWriter
from wsi_pipeline.qupath.native.stored_roi import CORNERS

HEADER = '{"dataVersion":3,"qupathVersion":"9.9.9","server":{"uri":"file:/a.svs"},"id":"x"}'
LIST = JavaString("Ljava/util/List;")
UNMODIFIABLE = ClassDesc(
    "java.util.Collections$UnmodifiableList",
    -283967356065247728,
    Flag.SERIALIZABLE,
    (Field("L", "list", LIST),),
    ClassDesc(
        "java.util.Collections$UnmodifiableCollection",
        1820017752578914078,
        Flag.SERIALIZABLE,
        (Field("L", "c", JavaString("Ljava/util/Collection;")),),
    ),
)
IMMUTABLE = ClassDesc("java.util.CollSer", 6309168927139932177, d.OWN_WRITER, (Field("I", "tag"),))


def uid(number: int) -> str:
    return str(uuid.UUID(int=number))


def string(text: str | None) -> JavaString | None:
    return None if text is None else JavaString(text)


def integer(value: int | None) -> JavaObject | None:
    return None if value is None else JavaObject(d.INTEGER, [Part([], []), Part([value], [])])


@cache
def boolean(value: bool) -> JavaObject:
    return JavaObject(d.BOOLEAN, [Part([value], [])])


def array_list(items: Sequence[Node]) -> JavaObject:
    return JavaObject(d.ARRAY_LIST, [Part([len(items)], [struct.pack(">i", len(items)), *items])])


def unmodifiable(items: Sequence[Node]) -> JavaObject:
    """As QuPath 0.4 and 0.5 close a list of names."""
    inner = array_list(items)
    return JavaObject(UNMODIFIABLE, [Part([inner], []), Part([inner], [])])


def immutable(items: Sequence[Node]) -> JavaObject:
    """As QuPath 0.6 and later do."""
    return JavaObject(IMMUTABLE, [Part([1], [struct.pack(">i", len(items)), *items])])


@cache
def key_node(key: str) -> JavaString:
    """QuPath's keys are constants: one string for all objects."""
    return JavaString(key)


@cache
def version_node(version: int) -> JavaObject | None:
    return integer(version)


def metadata(texts: Mapping[str, str | None], version: int = 1) -> JavaObject:
    keys = JavaArray(d.OBJECT_ARRAY, [key_node(key) for key in texts])
    values = JavaArray(d.OBJECT_ARRAY, [string(value) for value in texts.values()])
    return JavaObject(d.METADATA, content=[version_node(version), keys, values])


def default_list(values: Sequence[tuple[str, float]]) -> JavaObject:
    """As QuPath gives it to annotations."""
    single = [JavaObject(d.DOUBLE_MEASUREMENT, [Part([value, JavaString(name)], [])]) for name, value in values]
    return JavaObject(d.DEFAULT_LIST, [Part([array_list(single)], [])])


def numeric_list(
    names: JavaObject, values: Sequence[float], *, double: bool = False, closed: bool = True
) -> JavaObject:
    """As QuPath gives it to detections; `values` may be longer than the names."""
    desc, array, code = (d.DOUBLE_LIST, d.DOUBLE_ARRAY, "d") if double else (d.FLOAT_LIST, d.FLOAT_ARRAY, "f")
    numbers = JavaArray(array, struct.pack(f">{len(values)}{code}", *values))
    return JavaObject(desc, [Part([closed, None, names], []), Part([numbers], [])])


def path_class(name: str | None, color: int | None = None, parent: JavaObject | None = None) -> JavaObject:
    return JavaObject(d.PATH_CLASS, [Part([integer(color), string(name), parent], [])])


def roi(
    kind: Roi,
    numbers: Sequence[float] | bytes,
    plane: Plane = DEFAULT_PLANE,
    name: str | None = None,
    stats: Node = None,
) -> JavaObject:
    """`numbers`: x, x2, y, y2 of corners; all x and then all y of vertices; WKB of a geometry."""
    c, z, t = plane
    if kind in CORNERS:
        return JavaObject(d.BY_ROI[kind], [Part([c, t, *numbers, z, string(name)], [])])
    if isinstance(numbers, bytes):
        return JavaObject(d.BY_ROI[kind], [Part([c, t, z, stats, JavaArray(d.BYTE_ARRAY, numbers)], [])])
    half = len(numbers) // 2
    arrays = [
        JavaArray(d.FLOAT_ARRAY, struct.pack(f">{len(part)}f", *part)) for part in (numbers[:half], numbers[half:])
    ]
    named: list[Node] = [] if kind is Roi.POLYLINE else [string(name)]
    if kind is Roi.POLYGON:
        named.append(stats)
    return JavaObject(d.BY_ROI[kind], [Part([c, t, z, *named, *arrays], [])])


TRIANGLE = [0.0, 10.0, 0.0, 0.0, 0.0, 10.0]


@dataclass
class Made:
    """One object to be; what is None here is null in the file, and `omit` names what is left out as in old files."""

    key: str | None
    kind: Kind = Kind.ANNOTATION
    name: str | None = None
    color: int | None = None
    texts: Mapping[str, str | None] = field(default_factory=dict)
    measurements: Node = None
    children: Sequence[Made] = ()
    locked: bool = False
    path_class: Node = None
    roi: Node = field(default_factory=lambda: roi(Roi.POLYGON, TRIANGLE))
    probability: float = float("nan")
    nucleus: Node = None
    missing: bool = False
    omit: tuple[str, ...] = ()
    desc: ClassDesc | None = None

    def node(self) -> JavaObject:
        texts = dict(self.texts) if self.key is None else {**self.texts, "Object ID": self.key}
        content: list[Any] = [string(self.name), integer(self.color)]
        if "metadata" not in self.omit:
            content.append(metadata(texts))
        content += [self.measurements, struct.pack(">i", len(self.children)), *[c.node() for c in self.children]]
        if self.desc is not d.ROOT:
            content += [] if "locked" in self.omit else [boolean(self.locked)]
            content += [self.path_class, self.roi]
            end = struct.pack(">d", self.probability)
            content.append(end + struct.pack(">?", self.missing) if self.kind is Kind.TMA_CORE else end)
        if self.kind is Kind.CELL:
            content.append(self.nucleus)
        return JavaObject(self.desc or d.BY_KIND[self.kind], content=content)


def hierarchy(objects: Sequence[Made], grid: Node = None, root: Made | None = None) -> JavaObject:
    top = root or Made(uid(1), children=objects, desc=d.ROOT)
    return JavaObject(d.HIERARCHY, [Part([top.node(), grid], [])])


def image_type(name: str) -> JavaEnum:
    return JavaEnum(d.IMAGE_TYPE, JavaString(name))


def file_of(*items: Node, header: str = HEADER, version: str = "Data file version 3", end: str | None = "EOF") -> bytes:
    """A file of these items of the top level."""
    java = JavaWriter()
    java.block(struct.pack(">H", len(version)) + version.encode())
    for node in [JavaString(header), *items, string(end)]:
        if node is not None or end is not None:
            java.write(node)
    return java.getvalue()


def file_with(*objects: Made) -> bytes:
    return file_of(image_type("UNSET"), hierarchy(objects))
