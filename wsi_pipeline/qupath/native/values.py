"""From nodes of the Java stream to the values that QuPath means by them.

Every function refuses what it does not know by name, with the byte offset of the piece it belongs to.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.objects import Plane, Roi
from wsi_pipeline.qupath.native import descriptors
from wsi_pipeline.qupath.native.java_model import ClassDesc, JavaArray, JavaObject
from wsi_pipeline.qupath.native.java_reader import one_line
from wsi_pipeline.qupath.native.stored_roi import CORNERS, StoredRoi

UUID_KEY = "Object ID"
SEPARATOR = ": "
_MAX_CLASS_LEVELS = 64
_MAX_WRAPPERS = 8
_SHORT = 64
# Lists of java.util whose elements follow their size in block data, and fields that hold another list or an array.
_COUNTED_LISTS = frozenset({"java.util.ArrayList", "java.util.CollSer", "java.util.LinkedList"})
_WRAPPED_LISTS = {
    "java.util.Collections$UnmodifiableList": "list",
    "java.util.Collections$UnmodifiableRandomAccessList": "list",
    "java.util.Collections$SynchronizedList": "list",
    "java.util.Collections$SynchronizedRandomAccessList": "list",
    "java.util.Arrays$ArrayList": "a",
}
_NUMERIC_LISTS = {descriptors.FLOAT_LIST.name: "F", descriptors.DOUBLE_LIST.name: "D"}


class Measured(NamedTuple):
    """The measurements of one object; a name may be there twice, and then the kind of list decides which one counts."""

    names: tuple[str, ...]
    values: tuple[float, ...]
    last_counts: bool = False

    def as_dict(self) -> dict[str, float]:
        """As QuPath looks them up by name."""
        if self.last_counts or not self.repeats:
            return dict(zip(self.names, self.values, strict=True))
        found: dict[str, float] = {}
        for name, value in zip(self.names, self.values, strict=True):
            found.setdefault(name, value)
        return found

    @property
    def repeats(self) -> bool:
        """Whether a name is there twice."""
        return len(set(self.names)) < len(self.names)


class Values:
    """Makes values of nodes, and keeps account of how much they come to.

    References let a few bytes mean much: an array that ten thousand objects refer to. What all values hold together is
    limited by the size of the file, since QuPath shares only names.

    Parameters
    ----------
    size
        Bytes of the file.

    Attributes
    ----------
    colors
        Signed ARGB of every class met, by full name; the first that is met counts, None for one without colour.
    """

    def __init__(self, size: int) -> None:
        self.at = 0
        self.size = size
        self.colors: dict[str, int | None] = {}
        self._left = 4 * size + (1 << 16)
        # Nodes by id; they are kept so that no id is given twice.
        self._names: dict[int, tuple[JavaObject, tuple[str, ...]]] = {}
        self._classes: dict[int, tuple[JavaObject, str]] = {}
        self._long_texts: dict[int, tuple[str, str]] = {}
        self._described: dict[int, ClassDesc] = {}

    def error(self, what: str) -> QuPathFormatError:
        """The error about what stands in the piece that is being read."""
        return QuPathFormatError(f"{one_line(what)}, in the piece at byte {self.at} of {self.size}")

    def spend(self, amount: int) -> None:
        """Count values that were made, and refuse when no honest file of this size could hold so many."""
        self._left -= amount
        if self._left < 0:
            raise self.error("more values than a file of this size can hold")

    # ---- simple ones ----

    def text(self, node: Any, what: str) -> str | None:
        if node is None:
            return None
        if not isinstance(node, str):
            raise self.error(f"{_shown(node)} where {what} should be")
        if len(node) <= _SHORT:
            return str(node)
        # One copy, however many refer to it.
        return self._long_texts.setdefault(id(node), (node, str(node)))[1]

    def boxed(self, node: Any, name: str) -> Any:
        """What a java.lang wrapper such as Integer holds."""
        if not self._is(node, f"java.lang.{name}"):
            raise self.error(f"{_shown(node)} where an object of {name} should be")
        return self.fields(node)["value"]

    def color(self, node: Any) -> int | None:
        return None if node is None else int(self.boxed(node, "Integer"))

    def _is(self, node: Any, name: str) -> bool:
        return isinstance(node, JavaObject) and node.desc.name == name

    def fields(self, node: JavaObject) -> dict[str, Any]:
        """Fields of an object of a known class, which must be described as QuPath and Java describe it."""
        self.check(node.desc)
        return node.fields()

    def check(self, desc: ClassDesc) -> None:
        """Refuse a known class that has other fields here."""
        if id(desc) not in self._described:
            known = descriptors.KNOWN[desc.name]
            if [_shape(cls) for cls in desc.chain] != [_shape(cls) for cls in known.chain]:
                raise self.error(f"{desc.name} in a form that is not known")
            self._described[id(desc)] = desc

    # ---- lists ----

    def elements(self, node: Any, what: str) -> Sequence[Any]:
        """The elements of a list of java.util."""
        for _ in range(_MAX_WRAPPERS):
            if isinstance(node, JavaArray) and isinstance(node.values, list):
                return node.values
            if not isinstance(node, JavaObject):
                break
            name = node.desc.name
            if name in _COUNTED_LISTS:
                return self._counted(node, what)
            if name == "java.util.Collections$EmptyList":
                return ()
            if name not in _WRAPPED_LISTS:
                break
            self.spend(sum(len(part.values) for part in node.parts))
            node = node.fields().get(_WRAPPED_LISTS[name])
        raise self.error(f"{_shown(node)} where {what} should be")

    def _counted(self, node: JavaObject, what: str) -> Sequence[Any]:
        content = node.parts[-1].content if node.parts else []
        elements = content[1:]
        count = content[0] if content else b""
        if not isinstance(count, bytes) or int.from_bytes(count[:4], "big") != len(elements):
            raise self.error(f"{what}: a list whose size is not what it holds")
        return elements

    # ---- metadata ----

    def metadata(self, node: JavaObject) -> dict[str, str | None]:
        """Keys and values of a MetadataMap, with the object's id still among them."""
        content = node.content
        if len(content) != 3 or self.boxed(content[0], "Integer") != 1:
            raise self.error("metadata of a version that is not known")
        keys, values = (self.elements(part, "metadata") for part in content[1:])
        if len(keys) != len(values):
            raise self.error("metadata with more keys than values, or fewer")
        self.spend(len(keys))
        found: dict[str, str | None] = {}
        for key, value in zip(keys, values, strict=True):
            if not isinstance(key, str):
                raise self.error(f"metadata with the key {_shown(key)}")
            found[str(key)] = self.text(value, "a value of metadata")
        return found

    # ---- measurements ----

    def measurements(self, node: Any) -> Measured:
        if node is None:
            return Measured((), ())
        if not isinstance(node, JavaObject):
            raise self.error(f"{_shown(node)} where measurements should be")
        if node.desc.name == descriptors.DEFAULT_LIST.name:
            return self._single_measurements(node)
        if node.desc.name not in _NUMERIC_LISTS:
            raise self.error(f"measurements of the kind {node.desc.name}")
        fields = self.fields(node)
        names = self._measurement_names(fields["names"])
        values = fields["values"]
        if not isinstance(values, JavaArray) or values.code != _NUMERIC_LISTS[node.desc.name]:
            raise self.error("measurements without values")
        numbers = values.numbers()
        if len(numbers) < len(names):
            raise self.error(f"{len(names)} measurements with {len(numbers)} values")
        self.spend(len(numbers))
        # QuPath closes the list when it reads it, and looks values up in an index that it fills name after name.
        return Measured(names, numbers[: len(names)], last_counts=True)

    def _measurement_names(self, node: Any) -> tuple[str, ...]:
        if id(node) in self._names:
            return self._names[id(node)][1]
        names = self.elements(node, "names of measurements")
        if not all(isinstance(name, str) for name in names):
            raise self.error("a measurement without a name")
        made = tuple(map(str, names))
        self.spend(len(made))
        self._names[id(node)] = node, made
        return made

    def _single_measurements(self, node: JavaObject) -> Measured:
        items = self.elements(self.fields(node)["list"], "measurements")
        self.spend(len(items))
        names, values = [], []
        for item in items:
            fields = self.fields(item) if self._is(item, descriptors.DOUBLE_MEASUREMENT.name) else {}
            if not isinstance(fields.get("name"), str):
                raise self.error(f"{_shown(item)} where a measurement with a name should be")
            names.append(str(fields["name"]))
            values.append(fields["value"])
        return Measured(tuple(names), tuple(values))

    # ---- classes ----

    def class_name(self, node: Any) -> str | None:
        """Full name of a PathClass, all levels joined; None for no class. Colours are noted on the way."""
        levels: list[JavaObject] = []
        name = ""
        while node is not None:
            if id(node) in self._classes:
                name = self._classes[id(node)][1]
                break
            if not self._is(node, descriptors.PATH_CLASS.name) or len(levels) >= _MAX_CLASS_LEVELS:
                raise self.error(
                    f"{_shown(node)} where a class should be, or a class of more than {_MAX_CLASS_LEVELS} levels"
                )
            levels.append(node)
            node = self.fields(node)["parentClass"]
        for level in reversed(levels):
            name = self._level(level, name)
        return name or None

    def _level(self, node: JavaObject, above: str) -> str:
        fields = self.fields(node)
        own = self.text(fields["name"], "the name of a class")
        if own is None and above:
            raise self.error(f"a class below {_shown(above)} without a name")
        name = f"{above}{SEPARATOR}{own}" if above else own or ""
        self.spend(len(name))
        self._classes[id(node)] = node, name
        if name:
            self.colors.setdefault(name, self.color(fields["colorRGB"]))
        return name

    # ---- regions ----

    def roi(self, node: Any) -> StoredRoi | None:
        if node is None:
            return None
        kind = descriptors.ROIS.get(node.desc.name) if isinstance(node, JavaObject) else None
        if kind is None:
            raise self.error(f"a region of a kind that is not known: {_shown(node)}")
        fields = self.fields(node)
        plane = Plane(fields["c"], fields["z"], fields["t"])
        name = self.text(fields.get("name"), "the name of a region")
        if kind in CORNERS:
            corners = struct.pack(">4d", *(fields[axis] for axis in ("x", "x2", "y", "y2")))
            return StoredRoi(kind, plane, corners, b"", name)
        if kind is Roi.GEOMETRY:
            return StoredRoi(kind, plane, self._array(fields["wkb"], "B"), b"", name)
        x, y = self._array(fields["x"], "F"), self._array(fields["y"], "F")
        if len(x) != len(y):
            raise self.error("a region with more x than y, or fewer")
        return StoredRoi(kind, plane, x, y, name)

    def _array(self, node: Any, code: str) -> bytes:
        if not isinstance(node, JavaArray) or node.code != code or not isinstance(node.values, bytes):
            raise self.error(f"{_shown(node)} where the shape of a region should be")
        self.spend(len(node.values))
        return node.values


def _shape(desc: ClassDesc) -> tuple[str, int, list[tuple[str, str]]]:
    return desc.name, desc.flags, [(field.code, field.name) for field in desc.fields]


def _shown(node: Any) -> str:
    return repr(node)[:80]
