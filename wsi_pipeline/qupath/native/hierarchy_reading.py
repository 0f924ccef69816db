"""The hierarchy of a data.qpdata, from its pieces to `PathObject`s in the order of the file."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.objects import DEFAULT_PLANE, RGB, Kind, PathObject, Plane, Roi
from wsi_pipeline.qupath.native.kept import KeptRoi, Objects, Root
from wsi_pipeline.qupath.native.pieces import Metadata, Pieces
from wsi_pipeline.qupath.native.stored_roi import StoredRoi, geometries_of

# Regions whose geometries are made at once.
_BATCH = 4096
_NAN = float("nan")
_OPAQUE = 0xFF000000
_NO_UUID = uuid.UUID("7d2b1d0c-6a4e-5f3b-9c8a-0e1f2a3b4c5d")


@dataclass(frozen=True, slots=True)
class _Open:
    """An object whose children are being read."""

    index: int
    kind: Kind | None
    uuid: str | None


class HierarchyReader:
    """Reads the root object and everything in it; use once.

    Parameters
    ----------
    pieces
        Reads the pieces of an object, at the root.

    Attributes
    ----------
    root
        What the root object says of itself.
    kept
        What `PathObject` has no place for.
    """

    def __init__(self, pieces: Pieces) -> None:
        self.root = Root()
        self.kept = Objects()
        self.uuids: list[str] = []
        self._pieces = pieces
        self._kinds: list[Kind] = []
        self._parents: list[str | None] = []
        self._names: list[str | None] = []
        self._metadata: list[dict[str, str]] = []
        self._measurements: list[dict[str, float]] = []
        self._locked: list[bool] = []
        self._classes: list[str | None] = []
        self._probabilities: list[float] = []
        self._planes: list[Plane] = []
        self._rois: list[Roi | None] = []
        self._geometries: list[BaseGeometry | None] = []
        self._colors: dict[int, RGB] = {}
        self._missing: set[int] = set()
        self._nuclei: dict[int, BaseGeometry | None] = {}
        self._nucleus_rois: dict[int, Roi] = {}
        self._digest = ""
        self._batch: list[tuple[int, bool, StoredRoi]] = []

    def read(self) -> list[PathObject]:
        """All objects but the root, depth first, coordinates as stored.

        Raises
        ------
        QuPathFormatError
            The bytes are damaged, or hold something that could not be written back.
        """
        self._read_tree()
        self._flush()
        counts = Counter(self.uuids)
        self.kept.duplicates = frozenset(key for key, count in counts.items() if count > 1)
        return self._objects()

    # ---- the tree ----

    def _read_tree(self) -> None:
        pieces = self._pieces
        above: list[_Open] = []
        left: list[int] = []
        open_uuids: set[str | None] = set()
        while True:
            taken = self._leaves(left[-1], above[-1].uuid, open_uuids) if left else 0
            if taken:
                left[-1] -= taken
            else:
                opened = self._head(above)
                if opened.uuid in open_uuids:
                    raise self._inside_itself(opened.uuid)
                count = pieces.children()
                if left:
                    left[-1] -= 1
                if count:
                    above.append(opened)
                    left.append(count)
                    open_uuids.add(opened.uuid)
                else:
                    self._tail(opened)
            while left and not left[-1]:
                left.pop()
                open_uuids.remove(above[-1].uuid)
                self._tail(above.pop())
            if not left:
                return

    def _inside_itself(self, key: str | None) -> QuPathFormatError:
        return self._pieces.java.error(f"object {key} inside another one with the same id")

    def _leaves(self, limit: int, parent: str | None, open_uuids: set[str | None]) -> int:
        """Read objects that need no look at each of them, at most `limit`; returns how many there were."""
        leaves = self._pieces.leaves(min(limit, _BATCH))
        count = len(leaves.uuids)
        if not count:
            return 0
        if not open_uuids.isdisjoint(leaves.uuids):
            raise self._inside_itself(next(key for key in leaves.uuids if key in open_uuids))
        first = len(self.uuids)
        self.uuids += leaves.uuids
        self._kinds += leaves.kinds
        self._parents += [parent] * count
        self._names += [None] * count
        self._metadata += leaves.metadata
        self._measurements += leaves.measurements
        self._locked += leaves.locked
        self._classes += leaves.classes
        self._probabilities += leaves.probabilities
        self._planes += [roi.plane for roi in leaves.rois]
        self._rois += [roi.kind for roi in leaves.rois]
        self._geometries += [None] * count
        self._batch += [(first + i, False, roi) for i, roi in enumerate(leaves.rois)]
        for i, nucleus in leaves.nuclei.items():
            self._nucleus_rois[first + i] = nucleus.kind
            self._batch.append((first + i, True, nucleus))
        if len(self._batch) >= _BATCH:
            self._flush()
        return count

    def _head(self, above: list[_Open]) -> _Open:
        """Read an object up to its children."""
        pieces = self._pieces
        start = pieces.java.pos
        kind = pieces.begin(len(self.uuids))
        if (kind is None) != (not above):
            raise pieces.java.error("a root object inside another, or none around all others,", start)
        name, color = pieces.label()
        metadata = pieces.metadata()
        measurements, measured = pieces.measurements()
        if kind is None:
            self.root = Root(metadata.uuid, name, color, metadata.texts, measurements)
            return _Open(-1, None, None)
        index = self._add(kind, metadata, measurements, above[-1].uuid)
        key = self.uuids[index]
        self._names[index] = name
        if color is not None:
            self._colors[index] = rgb(color)
            if not is_opaque(color):
                self.kept.colors[key] = color
        if measured is not None:
            self.kept.repeated[key] = measured
        if metadata.empty:
            self.kept.empty_metadata[key] = metadata.empty
        return _Open(index, kind, key)

    def _add(self, kind: Kind, metadata: Metadata, measurements: dict[str, float], parent: str | None) -> int:
        """Make room for an object in all columns; returns its index."""
        index = len(self.uuids)
        self.uuids.append(metadata.uuid or self._made_up(index))
        self._kinds.append(kind)
        self._parents.append(parent)
        self._metadata.append(metadata.texts)
        self._measurements.append(measurements)
        self._names.append(None)
        self._locked.append(False)
        self._classes.append(None)
        self._probabilities.append(_NAN)
        self._planes.append(DEFAULT_PLANE)
        self._rois.append(None)
        self._geometries.append(None)
        return index

    def _tail(self, opened: _Open) -> None:
        """Read an object from behind its children to its end."""
        pieces = self._pieces
        index, kind = opened.index, opened.kind
        if kind is None:
            pieces.end()
            return
        self._locked[index] = pieces.locked()
        self._classes[index] = pieces.path_class()
        stored = pieces.roi()
        if stored is not None:
            self._later(index, stored)
        if kind is Kind.TMA_CORE:
            self._probabilities[index], missing = pieces.core()
            if missing:
                self._missing.add(index)
            pieces.end()
        else:
            self._finish(index, kind)

    def _finish(self, index: int, kind: Kind) -> None:
        """Read what comes behind the region of an object."""
        pieces = self._pieces
        self._probabilities[index] = pieces.probability()
        if kind is Kind.CELL:
            nucleus = pieces.roi()
            if nucleus is not None:
                self._nucleus_rois[index] = nucleus.kind
                self._later(index, nucleus, nucleus=True)
        pieces.end()

    def _made_up(self, index: int) -> str:
        """The id of an object that has none: always the same as long as the file is."""
        if not self._digest:
            self._digest = hashlib.sha256(self._pieces.java.data).hexdigest()
        return str(uuid.uuid5(_NO_UUID, f"{self._digest}/{index}"))

    # ---- geometries, many at once ----

    def _later(self, index: int, stored: StoredRoi, *, nucleus: bool = False) -> None:
        """Note a region, of which the geometry is made with many others."""
        if not nucleus:
            self._rois[index] = stored.kind
            self._planes[index] = stored.plane
        self._batch.append((index, nucleus, stored))
        if len(self._batch) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if not self._batch:
            return
        stored = [roi for _, _, roi in self._batch]
        geometries, exact = geometries_of(stored, [self.uuids[i] for i, _, _ in self._batch])
        for (index, nucleus, _), geometry in zip(self._batch, geometries.tolist(), strict=True):
            if nucleus:
                self._nuclei[index] = geometry
            else:
                self._geometries[index] = geometry
        for at in np.flatnonzero(~exact).tolist():
            index, nucleus, roi = self._batch[at]
            kept = self.kept.nuclei if nucleus else self.kept.rois
            kept[self.uuids[index]] = KeptRoi(roi, geometries[at])
        # A nucleus in another plane than its cell has that only in its stored form.
        for (index, nucleus, roi), geometry in zip(self._batch, geometries.tolist(), strict=True):
            if nucleus and roi.plane != self._planes[index]:
                self.kept.nuclei[self.uuids[index]] = KeptRoi(roi, geometry)
        self._batch.clear()

    # ---- objects ----

    def _objects(self) -> list[PathObject]:
        """`PathObject`s from columns: filling slot after slot is four times as quick as calling the class."""
        count = len(self.uuids)
        columns: dict[str, Iterable[Any]] = {
            "uuid": self.uuids,
            "kind": self._kinds,
            "geometry": self._geometries,
            "path_class": self._classes,
            "name": self._names,
            "measurements": self._measurements,
            "metadata": self._metadata,
            "color": _sparse(self._colors, count, None),
            "locked": self._locked,
            "parent": self._parents,
            "plane": self._planes,
            "roi": self._rois,
            "class_probability": self._probabilities,
            "nucleus": _sparse(self._nuclei, count, None),
            "nucleus_roi": _sparse(self._nucleus_rois, count, None),
            "missing": _sparse(dict.fromkeys(self._missing, True), count, False),
        }
        made = [object.__new__(PathObject) for _ in range(count)]
        for name in PathObject.__slots__:
            deque(map(getattr(PathObject, name).__set__, made, columns[name]), maxlen=0)
        return made


def _sparse(values: dict[int, Any], count: int, default: Any) -> list[Any]:
    column = [default] * count
    for index, value in values.items():
        column[index] = value
    return column


def rgb(argb: int) -> RGB:
    """Red, green and blue of Java's signed ARGB."""
    return argb >> 16 & 0xFF, argb >> 8 & 0xFF, argb & 0xFF


def is_opaque(argb: int) -> bool:
    return argb & _OPAQUE == _OPAQUE
