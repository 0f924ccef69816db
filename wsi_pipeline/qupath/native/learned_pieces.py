"""The pieces of path objects, read by what the pieces before them looked like.

Objects of one file look alike: apart from its own numbers, each is made of runs of bytes that are the same from object
to object, since classes, keys and names are references once they were written. A run that the general parser has read
once means the same wherever it comes again, so it is looked up as a whole. A piece that looks different goes to the
general parser, alone. `LeafReader` goes on with the runs that reach from piece to piece.

Elements of a known run take their numbers, but no nodes are made of them; a later reference to one of them raises
`SkippedReference`, and the file is read again by the general parser throughout.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from wsi_pipeline.objects import Kind, Plane, Roi
from wsi_pipeline.qupath.native.ids import CANONICAL
from wsi_pipeline.qupath.native.java_model import (
    FIRST_HANDLE,
    SKIPPED,
    JavaArray,
    JavaObject,
    SkippedReference,
    Tag,
    packer,
)
from wsi_pipeline.qupath.native.java_reader import JavaReader
from wsi_pipeline.qupath.native.java_writer import string
from wsi_pipeline.qupath.native.pieces import Metadata, Pieces
from wsi_pipeline.qupath.native.runs import Beginning, Ending, Numbers, Runs, Singles
from wsi_pipeline.qupath.native.stored_roi import CORNERS, StoredRoi
from wsi_pipeline.qupath.native.values import UUID_KEY, Measured, Values

_NULL, _REFERENCE, _OBJECT, _END = Tag.NULL, Tag.REFERENCE, Tag.OBJECT, Tag.END_BLOCK_DATA
_NO_LABEL = bytes([_NULL, _NULL])
_NO_CHILDREN = b"\x77\x04\x00\x00\x00\x00"
_NO_PROBABILITY = b"\x77\x08\x7f\xf8\x00\x00\x00\x00\x00\x00"
_UUID_HEAD = b"\x74\x00\x24"
_NAN = float("nan")
_SKIPPED = [(SKIPPED,) * count for count in range(6)]
# Sizes of runs: an object and a referred class; Boolean; a region up to the number of its vertices.
_HEAD = 6
_REF = 5
_MOST_SINGLES = 512
_SINGLES_HEAD = 22
_NEW_BOOLEAN = 7
_ARRAY_HEAD = 6
_CORNER_ROI = 51
_PLANE = struct.Struct(">3i")
_ROI_HEADS = {Roi.POLYGON: 26, Roi.POINTS: 25, Roi.GEOMETRY: 25, Roi.POLYLINE: 24}


class LearnedPieces(Pieces):
    """As `Pieces`, and many times as quick for objects like those before."""

    def __init__(self, java: JavaReader, values: Values) -> None:
        super().__init__(java, values)
        self._kinds: dict[bytes, Kind] = {}
        self._metadata = Runs[tuple[str, ...]]()
        self._shared_texts: dict[bytes, str] = {}
        self._lists = Runs[Numbers | Singles]()
        self._names_by_references: dict[tuple[bytes, ...], tuple[str, ...]] = {}
        self._locks: dict[bytes, bool] = {}
        self._class_references: dict[bytes, str | None] = {}
        self._shapes = Runs[tuple[Roi, Plane]]()
        self._corners: dict[bytes, Roi] = {}
        self._planes: dict[bytes, Plane] = {}
        self._beginnings = Runs[Beginning]()
        self._middles = Runs[Numbers | Singles | tuple[()]]()
        self._endings = Runs[Ending]()
        # Of the object that is being read piece by piece: what its parts were, and where they began (0: not learned).
        self._kind: Kind | None = None
        self._begin_at = self._metadata_at = self._children_at = self._elements_before = 0
        self._locked = False
        self._class: str | None = None

    def begin(self, index: int) -> Kind | None:
        java = self.java
        start = java.pos
        run = java.data[start : start + _HEAD]
        kind = self._kinds.get(run)
        if kind is not None:
            java.pos = start + _HEAD
            java.handles.append(SKIPPED)
            self._kind, self._begin_at = kind, start
            return kind
        self._begin_at = 0
        kind = super().begin(index)
        # Cores stay: the grid refers to them.
        if kind not in (None, Kind.TMA_CORE) and run[1] == _REFERENCE:
            self._kinds[run] = kind
        return kind

    def label(self) -> tuple[str | None, int | None]:
        java = self.java
        data, start = java.data, java.pos
        if data[start : start + 2] == _NO_LABEL:
            java.pos = start + 2
            return None, None
        self._begin_at = 0
        end = start + 3 + int.from_bytes(data[start + 1 : start + 3], "big")
        raw = data[start + 3 : end]
        if data[start : start + 1] == b"\x74" and data[end : end + 1] == b"\x70" and raw.isascii():
            java.pos = end + 1
            name = raw.decode("ascii")
            java.handles.append(name)
            return name, None
        return super().label()

    # ---- metadata ----

    def metadata(self) -> Metadata:
        java = self.java
        start, count = java.pos, len(java.handles)
        keys = self._metadata.find(java.data, start)
        if keys is not None:
            values = start + self._metadata.size
            found = self._known_metadata(keys, values)
            if found is not None:
                self._metadata_at = start
                self._learn_beginning(keys, values)
                return found
            java.pos = start
            del java.handles[count:]
        found = super().metadata()
        self._metadata_at = 0
        self._learn_metadata(start, count)
        return found

    def _learn_beginning(self, keys: tuple[str, ...], values: int) -> None:
        if not self._begin_at or self._kind is None:
            return
        alone = len(keys) == 1
        run = self.java.data[self._begin_at : values + (len(_UUID_HEAD) if alone else 0)]
        self._beginnings.learn(run, Beginning(self._kind, keys, _SKIPPED[5 if alone else 1]))

    def _known_metadata(self, keys: tuple[str, ...], at: int) -> Metadata | None:
        """Values of these keys; None when something about them is out of the ordinary."""
        java = self.java
        data, handles = java.data, java.handles
        if len(keys) == 1 and data[at : at + 3] == _UUID_HEAD and data[at + 39 : at + 40] == b"\x78":
            text = data[at + 3 : at + 39].decode("latin-1")
            if CANONICAL.fullmatch(text):
                java.pos = at + 40
                handles.extend(_SKIPPED[4])
                return Metadata(text, {})
        handles.extend(_SKIPPED[3])
        texts: dict[str, str] = {}
        uuid: str | None = None
        shared = self._shared_texts
        for key in keys:
            run = data[at : at + _REF]
            if run[:1] == b"\x71" and key is not UUID_KEY:
                known = shared.get(run) or self._shared_text(run)
                if known is None:
                    return None
                texts[key] = known
                at += _REF
                continue
            end = at + 3 + int.from_bytes(run[1:3], "big")
            raw = data[at + 3 : end]
            if run[:1] != b"\x74" or end >= java.size or not raw.isascii():
                return None
            at = end
            if key is UUID_KEY:
                uuid = raw.decode("ascii")
                handles.append(SKIPPED)
            else:
                texts[key] = text = raw.decode("ascii")
                handles.append(text)
        if data[at : at + 1] != b"\x78" or uuid is None or not CANONICAL.fullmatch(uuid):
            return None
        java.pos = at + 1
        return Metadata(uuid, texts)

    def _shared_text(self, run: bytes) -> str | None:
        """The text that a reference means; None for anything else."""
        number = int.from_bytes(run[1:], "big") - FIRST_HANDLE
        handles = self.java.handles
        text = handles[number] if len(run) == _REF and 0 <= number < len(handles) else None
        if text is SKIPPED:
            raise SkippedReference
        if not isinstance(text, str):
            return None
        self._shared_texts[run] = str(text)
        return self._shared_texts[run]

    def _learn_metadata(self, start: int, count: int) -> None:
        java = self.java
        made = java.handles[count:]
        if len(made) < 3 or not isinstance(made[0], JavaObject) or len(made[0].content) != 3:
            return
        keys, values = made[0].content[1:]
        if made[1] is not keys or made[2] is not values:
            return
        if not (isinstance(keys, JavaArray) and isinstance(values, JavaArray)):
            return
        inline = iter(made[3:])
        following = next(inline, None)
        size = 1
        for value in values.values:
            if value is None:
                size += 1
            elif value is following:
                size += len(string(str(value)))
                following = next(inline, None)
            else:
                size += _REF
        names = tuple(UUID_KEY if key == UUID_KEY else str(key) for key in keys.values)
        run = java.data[start : java.pos - size]
        # Texts may be written longer than they need to be: only what ends with the head of the values is one.
        ends_well = run[-10:-8] == b"\x75\x71" and run[-4:] == len(names).to_bytes(4, "big")
        if following is None and ends_well and len(set(names)) == len(names) and UUID_KEY in names:
            self._metadata.learn(run, names)

    # ---- measurements ----

    def measurements(self) -> tuple[dict[str, float], Measured | None]:
        java = self.java
        if self._waiting:
            return super().measurements()
        start, count = java.pos, len(java.handles)
        if java.data[start : start + 1] == b"\x70":
            java.pos = start + 1
            if self._metadata_at:
                self._middles.learn(java.data[start - 1 : start + 1], ())
            return {}, None
        known = self._lists.find(java.data, start)
        if known is not None:
            numbers = start + self._lists.size
            found = self._known_measurements(known, numbers)
            if found is not None:
                if self._metadata_at:
                    self._middles.learn(java.data[start - 1 : numbers], known)
                return found, None
        found, repeated = super().measurements()
        if repeated is None and found:
            self._learn_measurements(start, count, tuple(found))
        return found, repeated

    def _known_measurements(self, known: Numbers | Singles, at: int) -> dict[str, float] | None:
        java = self.java
        form = known.form
        if at + form.size >= java.size:
            return None
        numbers = form.unpack_from(java.data, at)
        if isinstance(known, Numbers):
            java.pos = at + form.size
            java.handles.extend(_SKIPPED[2])
            return dict(zip(known.names, numbers, strict=False))
        names = self._names_by_references.get(numbers[2::3])
        if names is None or numbers[::3] != known.heads or java.data[at + form.size] != _END:
            return None
        java.pos = at + form.size + 1
        java.handles.extend(known.elements)
        return dict(zip(names, numbers[1::3], strict=True))

    def _learn_measurements(self, start: int, count: int, names: tuple[str, ...]) -> None:
        java = self.java
        data, made = java.data, java.handles[count:]
        if len(made) == 2 and isinstance(made[1], JavaArray):
            array = made[1]
            if isinstance(array.values, bytes):
                form = packer({"F": "f", "D": "d"}[array.code], len(array.numbers()))
                self._lists.learn(data[start : java.pos - form.size], Numbers(names, form))
            return
        size = len(names)
        form = _singles(min(size, _MOST_SINGLES))
        if len(made) != size + 2 or java.pos - start != _SINGLES_HEAD + form.size + 1 or size > _MOST_SINGLES:
            return
        parts = form.unpack_from(data, start + _SINGLES_HEAD)
        if all(run[0] == _OBJECT and run[1] == _REFERENCE for run in parts[::3]):
            self._names_by_references[parts[2::3]] = names
            known = Singles(parts[::3], form, (SKIPPED,) * (size + 2))
            self._lists.learn(data[start : start + _SINGLES_HEAD], known)

    def children(self) -> int:
        java = self.java
        if java.data[java.pos : java.pos + _HEAD] == _NO_CHILDREN:
            self._children_at, self._elements_before = java.pos, len(java.handles)
            java.pos += _HEAD
            return 0
        self._children_at = 0
        return super().children()

    # ---- behind the children ----

    def locked(self) -> bool:
        java = self.java
        start = java.pos
        size = _REF if java.data[start : start + 1] == b"\x71" else _NEW_BOOLEAN
        run = java.data[start : start + size]
        found = self._locks.get(run)
        if found is None:
            found = super().locked()
            if java.pos == start + size and (size == _REF or run[1] == _REFERENCE) and not self._waiting:
                self._locks[run] = found
        else:
            java.pos = start + size
            if size == _NEW_BOOLEAN:
                java.handles.append(SKIPPED)
        self._locked = found
        return found

    def path_class(self) -> str | None:
        self._class = self._next_class()
        return self._class

    def _next_class(self) -> str | None:
        java = self.java
        start = java.pos
        if self._waiting:
            return super().path_class()
        if java.data[start : start + 1] == b"\x70":
            java.pos = start + 1
            return None
        run = java.data[start : start + _REF]
        if run in self._class_references:
            java.pos = start + _REF
            return self._class_references[run]
        found = super().path_class()
        if run[0] == _REFERENCE:
            self._class_references[run] = found
        return found

    def roi(self) -> StoredRoi | None:
        java = self.java
        data, start, count = java.data, java.pos, len(java.handles)
        if data[start : start + 1] == b"\x70":
            java.pos = start + 1
            self._children_at = 0
            return None
        known = self._shapes.find(data, start)
        found = None
        numbers = start
        if known is not None:
            numbers = start + self._shapes.size
            found = self._known_shape(*known, numbers)
        else:
            kind = self._corners.get(data[start : start + _HEAD])
            if kind is not None:
                found = self._known_corners(kind, start)
        if found is not None:
            self._learn_ending(found, numbers, count)
            return found
        self._children_at = 0
        found = super().roi()
        if found is not None and found.name is None:
            self._learn_roi(found, start, len(java.handles) - count)
        return found

    def _learn_ending(self, roi: StoredRoi, numbers: int, count: int) -> None:
        elements = count - self._elements_before
        if self._children_at and elements <= 1:
            run = self.java.data[self._children_at : numbers]
            between = run[-_ARRAY_HEAD:] if roi.kind is Roi.POLYGON else b""
            self._endings.learn(
                run, Ending(self._locked, self._class, roi.kind, roi.plane, _SKIPPED[elements], between)
            )
        # What comes next is not of this object, or its nucleus.
        self._children_at = 0

    def _known_shape(self, kind: Roi, plane: Plane, at: int) -> StoredRoi | None:
        """A region of vertices or WKB, from the number of them on."""
        java = self.java
        data = java.data
        count = data[at : at + 4]
        first = at + 4
        size = int.from_bytes(count, "big")
        if kind is Roi.GEOMETRY:
            end = first + size
            if end >= java.size:
                return None
            java.pos = end
            java.handles.extend(_SKIPPED[2])
            return StoredRoi(kind, plane, data[first:end])
        second = first + 4 * size + _ARRAY_HEAD + 4
        end = second + 4 * size
        if end >= java.size or data[second - 4 : second] != count:
            return None
        if data[second - 4 - _ARRAY_HEAD : second - 4] != data[at - _ARRAY_HEAD : at]:
            return None
        java.pos = end
        java.handles.extend(_SKIPPED[3])
        return StoredRoi(kind, plane, data[first : first + 4 * size], data[second:end])

    def _known_corners(self, kind: Roi, at: int) -> StoredRoi | None:
        java = self.java
        data = java.data
        run = data[at + _HEAD : at + _CORNER_ROI]
        if len(run) != _CORNER_ROI - _HEAD or run[-1] != _NULL:
            return None
        place = run[:8] + run[40:44]
        plane = self._planes.get(place)
        if plane is None:
            c, t, z = _PLANE.unpack(place)
            plane = self._planes[place] = Plane(c, z, t)
        java.pos = at + _CORNER_ROI
        java.handles.append(SKIPPED)
        return StoredRoi(kind, plane, run[8:40])

    def _learn_roi(self, roi: StoredRoi, start: int, elements: int) -> None:
        """Learn a region whose class and arrays are written as references and that has nothing unusual."""
        java = self.java
        size = java.pos - start
        data = java.data
        if data[start + 1] != _REFERENCE:
            return
        if roi.kind in CORNERS:
            if size == _CORNER_ROI and elements == 1:
                self._corners[data[start : start + _HEAD]] = roi.kind
            return
        head = _ROI_HEADS[roi.kind]
        arrays = 1 if roi.kind is Roi.GEOMETRY else 2
        body = len(roi.first) + len(roi.second) + 4 * arrays + _ARRAY_HEAD * (arrays - 1)
        if elements == 1 + arrays and size == head + body:
            self._shapes.learn(data[start : start + head], (roi.kind, roi.plane))

    def probability(self) -> float:
        java = self.java
        if java.data[java.pos : java.pos + 10] == _NO_PROBABILITY:
            java.pos += 10
            return _NAN
        return super().probability()

    def end(self) -> None:
        java = self.java
        if java.data[java.pos : java.pos + 1] == b"\x78":
            java.pos += 1
            return
        super().end()


@lru_cache(maxsize=64)
def _singles(count: int) -> struct.Struct:
    """So many single measurements: object and class, value, name."""
    return struct.Struct(">" + f"{_HEAD}sd{_REF}s" * count)
