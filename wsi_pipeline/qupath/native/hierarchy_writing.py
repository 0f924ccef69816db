"""The hierarchy of a data.qpdata, from `PathObject`s to bytes.

What is the same from object to object (classes, names of measurements, keys of metadata) is written once; from then on
it is a constant run of bytes with references in it, and an object is a handful of such runs around its own numbers.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping, Sequence

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.objects import RGB, Kind, PathObject, Plane, Roi
from wsi_pipeline.qupath.native import descriptors
from wsi_pipeline.qupath.native.java_model import ClassDesc, JavaArray, JavaObject, JavaString, Node, Part, packer
from wsi_pipeline.qupath.native.java_writer import JavaWriter, reference, string
from wsi_pipeline.qupath.native.kept import Objects, Root
from wsi_pipeline.qupath.native.stored_roi import CORNERS, StoredRoi
from wsi_pipeline.qupath.native.values import SEPARATOR, UUID_KEY, Measured

NO_CHILDREN = b"\x77\x04\x00\x00\x00\x00"
NO_PROBABILITY = b"\x77\x08\x7f\xf8\x00\x00\x00\x00\x00\x00"
NULL = b"\x70"
END = b"\x78"
OBJECT = b"\x73"
ARRAY = b"\x75"
UUID_HEAD = b"\x74\x00\x24"
# Values of metadata that are worth remembering: those of a run, not of an object.
_SHARED_VALUES = 1024
_LONGEST_SHARED = 256
_OPAQUE = 0xFF000000
_LISTS = {
    "d": (descriptors.DOUBLE_LIST, descriptors.DOUBLE_ARRAY),
    "f": (descriptors.FLOAT_LIST, descriptors.FLOAT_ARRAY),
}


class HierarchyWriter:
    """Writes one hierarchy into a stream.

    Parameters
    ----------
    java
        The stream so far.
    colors
        Signed ARGB of the classes by full name, None for a class without colour; a class that is not there gets the
        colour that `default_color` gives.
    kept
        What else is known of single objects.
    """

    def __init__(self, java: JavaWriter, colors: Mapping[str, int | None], kept: Objects) -> None:
        self.core_handles: dict[str, int] = {}
        self._java = java
        self._colors = colors
        self._kept = kept
        self._heads: dict[ClassDesc, bytes] = {}
        self._metadata_heads: dict[tuple[str, ...], bytes] = {}
        self._list_heads: dict[tuple[str, tuple[str, ...]], bytes] = {}
        self._roi_heads: dict[tuple[Roi, Plane], bytes] = {}
        self._array_heads: dict[ClassDesc, bytes] = {}
        self._keys: dict[str, JavaString] = {}
        self._name_lists: dict[tuple[str, ...], JavaObject] = {}
        self._texts: dict[str, bytes] = {}
        self._booleans: dict[bool, JavaObject] = {}
        self._boolean_references: dict[bool, bytes] = {}
        self._integers: dict[int, JavaObject] = {}
        self._classes: dict[str, bytes] = {}

    # ---- objects ----

    def root(self, root: Root, children: int) -> None:
        """The root up to its children; `end` closes it."""
        self._begin(descriptors.ROOT)
        self._label(root.name, root.color)
        self._metadata(root.uuid or "", root.metadata, ())
        self._measurements(root.measurements, None, exact=True)
        self._children(children)

    def end(self) -> None:
        self._java.out += END

    def head(self, item: PathObject, children: int) -> None:
        """An object up to its children."""
        handle = self._begin(descriptors.BY_KIND[item.kind])
        if item.kind is Kind.TMA_CORE:
            self.core_handles[item.uuid] = handle
        key = item.uuid
        kept = self._kept
        color = None if item.color is None else kept_argb(item.color, kept.colors.get(key))
        self._label(item.name, color)
        self._metadata(key, item.metadata, kept.empty_metadata.get(key, ()))
        repeated = kept.repeated.get(key) if kept.repeated else None
        self._measurements(item.measurements, repeated, exact=item.kind is Kind.ANNOTATION)
        self._children(children)

    def tail(self, item: PathObject, roi: StoredRoi | None, nucleus: StoredRoi | None) -> None:
        """An object from behind its children to its end."""
        out = self._java.out
        self._boolean(item.locked)
        self._class(item.path_class)
        self._roi(roi)
        probability = item.class_probability
        if item.kind is Kind.TMA_CORE:
            out += b"\x77\x09" + struct.pack(">d?", probability, item.missing)
        elif probability != probability:
            out += NO_PROBABILITY
        else:
            out += b"\x77\x08" + struct.pack(">d", probability)
        if item.kind is Kind.CELL:
            self._roi(nucleus)
        out += END

    def _begin(self, desc: ClassDesc) -> int:
        """Begin an object, and return its number."""
        java = self._java
        head = self._heads.get(desc)
        if head is None:
            java.out += OBJECT
            java.class_desc(desc)
            self._heads[desc] = OBJECT + self._reference(desc)
        else:
            java.out += head
        return java.take_handle()

    def _reference(self, node: ClassDesc | JavaObject | JavaString) -> bytes:
        handle = self._java.handle(node)
        if handle is None:
            raise AssertionError(f"{node!r} is referred to before it is written")
        return reference(handle)

    def _label(self, name: str | None, color: int | None) -> None:
        java = self._java
        if name is None:
            java.out += NULL
        else:
            java.out += string(name)
            java.next_handle += 1
        if color is None:
            java.out += NULL
        else:
            java.write(self._integer(color))

    def _children(self, count: int) -> None:
        self._java.out += b"\x77\x04" + struct.pack(">i", count) if count else NO_CHILDREN

    def _integer(self, value: int) -> JavaObject:
        if value not in self._integers:
            self._integers[value] = JavaObject(descriptors.INTEGER, [Part([], []), Part([value], [])])
        return self._integers[value]

    def _boolean(self, value: bool) -> None:
        java = self._java
        known = self._boolean_references.get(value)
        if known is not None:
            java.out += known
            return
        node = JavaObject(descriptors.BOOLEAN, [Part([value], [])])
        java.write(node)
        self._boolean_references[value] = self._reference(node)

    # ---- metadata ----

    def _metadata(self, key: str, texts: Mapping[str, str], empty: Sequence[str]) -> None:
        if UUID_KEY in texts:
            raise ProjectError(f"object {key}: metadata must not have the key {UUID_KEY!r}, which is QuPath's own")
        java = self._java
        without = [name for name in empty if name not in texts]
        keys = (*texts, *without, UUID_KEY)
        head = self._metadata_heads.get(keys)
        if head is None:
            self._first_metadata(keys)
        else:
            java.out += head
            java.next_handle += 3
        for text in texts.values():
            java.out += self.text(text)
        java.out += NULL * len(without) + UUID_HEAD + key.encode("ascii") + END
        java.next_handle += 1

    def _first_metadata(self, keys: tuple[str, ...]) -> None:
        java = self._java
        java.out += OBJECT
        java.class_desc(descriptors.METADATA)
        java.take_handle()
        one = self._integer(1)
        java.write(one)
        nodes = [self._keys.setdefault(key, JavaString(key)) for key in keys]
        java.write(JavaArray(descriptors.OBJECT_ARRAY, list(nodes)))
        array = ARRAY + self._reference(descriptors.OBJECT_ARRAY) + struct.pack(">i", len(keys))
        java.out += array
        java.take_handle()
        self._metadata_heads[keys] = b"".join(
            [
                OBJECT,
                self._reference(descriptors.METADATA),
                self._reference(one),
                array,
                *[self._reference(node) for node in nodes],
                array,
            ]
        )

    def text(self, text: str) -> bytes:
        """A value of metadata as it goes into the stream next; those that many objects have are written once."""
        known = self._texts.get(text)
        if known is not None:
            return known
        java = self._java
        if len(text) <= _LONGEST_SHARED and len(self._texts) < _SHARED_VALUES:
            self._texts[text] = reference(java.next_handle)
        java.next_handle += 1
        return string(text)

    # ---- measurements ----

    def _measurements(self, measurements: Mapping[str, float], repeated: Measured | None, exact: bool) -> None:
        java = self._java
        if not measurements:
            java.out += NULL
            return
        names, values = tuple(measurements), tuple(measurements.values())
        if repeated is not None and same_numbers(repeated.as_dict(), measurements):
            names, values = repeated.names, repeated.values
            if not repeated.last_counts:
                java.write(_single_measurements(names, values))
                return
        code = "d" if exact else code_of(values)
        head = self._list_heads.get((code, names))
        if head is None:
            self._first_list(code, names)
        else:
            java.out += head
            java.next_handle += 2
        java.out += packer(code, len(values)).pack(*values)

    def _first_list(self, code: str, names: tuple[str, ...]) -> None:
        """Head of an open list without index, which QuPath closes when it reads it; objects share the list of names."""
        java = self._java
        desc, array = _LISTS[code]
        java.out += OBJECT
        java.class_desc(desc)
        java.take_handle()
        java.out += b"\x00" + NULL
        list_of_names = self._name_lists.get(names) or self._new_name_list(names)
        java.write(list_of_names)
        java.out += ARRAY
        java.class_desc(array)
        java.take_handle()
        count = struct.pack(">i", len(names))
        java.out += count
        self._list_heads[code, names] = b"".join(
            [
                OBJECT + self._reference(desc) + b"\x00" + NULL,
                self._reference(list_of_names),
                ARRAY + self._reference(array) + count,
            ]
        )

    def _new_name_list(self, names: tuple[str, ...]) -> JavaObject:
        made = _array_list([self._keys.setdefault(name, JavaString(name)) for name in names])
        self._name_lists[names] = made
        return made

    # ---- classes ----

    def _class(self, name: str | None) -> None:
        java = self._java
        if name and name not in self._classes:
            check_class(name)
        while name:
            known = self._classes.get(name)
            if known is not None:
                java.out += known
                return
            java.out += OBJECT
            java.class_desc(descriptors.PATH_CLASS)
            self._classes[name] = reference(java.take_handle())
            color = self._colors[name] if name in self._colors else argb(default_color(name))
            java.write(None if color is None else self._integer(color))
            name, _, own = name.rpartition(SEPARATOR)
            java.write(JavaString(own))
        java.out += NULL

    # ---- regions ----

    def _roi(self, roi: StoredRoi | None) -> None:
        java = self._java
        if roi is None:
            java.out += NULL
            return
        kind = roi.kind
        head = self._roi_heads.get((kind, roi.plane))
        if head is None:
            java.out += OBJECT
            java.class_desc(descriptors.BY_ROI[kind])
            c, z, t = roi.plane
            head = OBJECT + self._reference(descriptors.BY_ROI[kind]) + struct.pack(">ii", c, t)
            if kind not in CORNERS:
                head += struct.pack(">i", z)
            self._roi_heads[kind, roi.plane] = head
            java.out += head[6:]
        else:
            java.out += head
        java.next_handle += 1
        if kind in CORNERS:
            java.out += roi.first + struct.pack(">i", roi.plane.z)
            self._roi_name(roi)
            return
        if kind is Roi.GEOMETRY:
            java.out += NULL
            self._array(descriptors.BYTE_ARRAY, roi.first, 1)
            return
        if kind is not Roi.POLYLINE:
            self._roi_name(roi)
        if kind is Roi.POLYGON:
            java.out += NULL
        self._array(descriptors.FLOAT_ARRAY, roi.first, 4)
        self._array(descriptors.FLOAT_ARRAY, roi.second, 4)

    def _roi_name(self, roi: StoredRoi) -> None:
        java = self._java
        if roi.name is None:
            java.out += NULL
        else:
            java.out += string(roi.name)
            java.next_handle += 1

    def _array(self, desc: ClassDesc, raw: bytes, size: int) -> None:
        java = self._java
        head = self._array_heads.get(desc)
        if head is None:
            java.out += ARRAY
            java.class_desc(desc)
            self._array_heads[desc] = ARRAY + self._reference(desc)
        else:
            java.out += head
        java.next_handle += 1
        java.out += struct.pack(">i", len(raw) // size) + raw


def _array_list(items: Sequence[Node]) -> JavaObject:
    return JavaObject(descriptors.ARRAY_LIST, [Part([len(items)], [struct.pack(">i", len(items)), *items])])


def _single_measurements(names: Sequence[str], values: Sequence[float]) -> JavaObject:
    """The list in which QuPath takes the first of two values of one name."""
    single = [
        JavaObject(descriptors.DOUBLE_MEASUREMENT, [Part([value, JavaString(name)], [])])
        for name, value in zip(names, values, strict=True)
    ]
    return JavaObject(descriptors.DEFAULT_LIST, [Part([_array_list(single)], [])])


def code_of(values: Sequence[float]) -> str:
    """Float, as QuPath gives to detections, if it holds the values exactly, else double."""
    doubles, floats = packer("d", len(values)), packer("f", len(values))
    try:
        narrow = floats.unpack(floats.pack(*values))
    except OverflowError:
        return "d"
    return "f" if doubles.pack(*narrow) == doubles.pack(*values) else "d"


def check_class(name: str) -> None:
    """Refuse a class for which QuPath could not read the whole file, and would show the image as empty."""
    for level in name.split(SEPARATOR)[1:]:
        if not level.strip() or any(sign in level for sign in ":\n\r"):
            raise ProjectError(
                f"the class {name!r} cannot be read by QuPath: a level below the first must not be empty and must not "
                "hold a colon or a line break; give it another name"
            )


def same_numbers(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether two measurements are equal, NaN like NaN, in any order."""
    if a.keys() != b.keys():
        return False
    return all(value == b[name] or (value != value and b[name] != b[name]) for name, value in a.items())


def default_color(name: str) -> RGB:
    """A colour for a class that has none, always the same for its name and neither very dark nor very light."""
    digest = uuid.uuid5(uuid.NAMESPACE_OID, name).bytes
    return tuple(64 + byte * 128 // 255 for byte in digest[:3])  # type: ignore[return-value]


def argb(color: RGB) -> int:
    """Java's signed ARGB of an opaque colour."""
    red, green, blue = color
    return (_OPAQUE | red << 16 | green << 8 | blue) - (1 << 32)


def kept_argb(color: RGB, before: int | None) -> int:
    """Java's colour, with the opacity that it had in the file if it is the same colour still."""
    opaque = argb(color)
    return before if before is not None and (before ^ opaque) & 0xFFFFFF == 0 else opaque
