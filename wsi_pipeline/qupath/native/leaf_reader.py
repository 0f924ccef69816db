"""Objects without children, one after another: most of what a file holds."""

from __future__ import annotations

from wsi_pipeline.objects import Kind
from wsi_pipeline.qupath.native.ids import UUID_SIZE, are_canonical
from wsi_pipeline.qupath.native.java_model import SKIPPED, SkippedReference
from wsi_pipeline.qupath.native.learned_pieces import LearnedPieces
from wsi_pipeline.qupath.native.pieces import Leaves
from wsi_pipeline.qupath.native.runs import Ending
from wsi_pipeline.qupath.native.stored_roi import CORNERS, StoredRoi

_PLAIN_END = b"\x77\x08\x7f\xf8\x00\x00\x00\x00\x00\x00\x78"
_NAN = float("nan")
# The region and its two arrays.
_POLYGON = (SKIPPED,) * 3
# `StoredRoi(...)` without the detour through its keyword arguments.
_roi = tuple.__new__


class LeafReader(LearnedPieces):
    """Goes from object to object by the runs that were learned from those before.

    Each method takes the place where its part begins, and returns the place behind it with what it read, or None when
    the part is out of the ordinary: then the object is read piece by piece.
    """

    def leaves(self, limit: int) -> Leaves:
        """Objects that look like earlier ones, at most `limit`; stops before the first that does not.

        Raises
        ------
        SkippedReference
            An id is not written as QuPath writes it: the general parser must look at it.
        """
        java = self.java
        leaves = Leaves()
        uuids: list[bytes] = []
        at = java.pos
        while len(uuids) < limit:
            count = len(java.handles)
            beginning = self._leaf_beginning(at)
            measured = beginning and self._leaf_measurements(beginning[0])
            region = measured and self._leaf_region(measured[0])
            if not (beginning and measured and region):
                del java.handles[count:]
                break
            _, kind, uuid, texts = beginning
            java.pos, ending, roi = region
            probability, nucleus = self._leaf_end(kind)
            at = java.pos
            if nucleus is not None:
                leaves.nuclei[len(uuids)] = nucleus
            uuids.append(uuid)
            leaves.kinds.append(kind)
            leaves.metadata.append(texts)
            leaves.measurements.append(measured[1])
            leaves.locked.append(ending.locked)
            leaves.classes.append(ending.path_class)
            leaves.rois.append(roi)
            leaves.probabilities.append(probability)
        java.pos = at
        if uuids:
            leaves.uuids = _texts_of(uuids)
        return leaves

    def _leaf_beginning(self, at: int) -> tuple[int, Kind, bytes, dict[str, str]] | None:
        """Kind, id and metadata, up to the mark that ends these."""
        java = self.java
        begun = self._beginnings.find(java.data, at)
        if begun is None:
            return None
        at += self._beginnings.size
        java.handles.extend(begun.elements)
        if len(begun.keys) == 1:
            end = at + UUID_SIZE
            return end, begun.kind, java.data[at:end], {}
        metadata = self._known_metadata(begun.keys, at)
        if metadata is None or metadata.uuid is None:
            return None
        return java.pos - 1, begun.kind, metadata.uuid.encode("ascii"), metadata.texts

    def _leaf_measurements(self, at: int) -> tuple[int, dict[str, float]] | None:
        """Measurements; the run before them begins with the mark that ends the metadata."""
        java = self.java
        known = self._middles.find(java.data, at)
        if known is None:
            return None
        at += self._middles.size
        if not known:
            return at, {}
        measurements = self._known_measurements(known, at)
        return None if measurements is None else (java.pos, measurements)

    def _leaf_region(self, at: int) -> tuple[int, Ending, StoredRoi] | None:
        """That there are no children, locked, class and region."""
        java = self.java
        data = java.data
        ending = self._endings.find(data, at)
        if ending is None:
            return None
        at += self._endings.size
        java.handles.extend(ending.elements)
        kind, between = ending.kind, ending.between
        if not between:
            in_corners = kind in CORNERS
            roi = self._known_corners(kind, at) if in_corners else self._known_shape(kind, ending.plane, at)
            return None if roi is None else (java.pos, ending, roi)
        # A polygon: number, x, the head of the second array, number, y.
        count = data[at : at + 4]
        length = 4 * int.from_bytes(count, "big")
        first = at + 4
        second = first + length + len(between) + 4
        end = second + length
        if end >= java.size or data[first + length : second] != between + count:
            return None
        java.handles.extend(_POLYGON)
        return end, ending, _roi(StoredRoi, (kind, ending.plane, data[first : first + length], data[second:end], None))

    def _leaf_end(self, kind: Kind) -> tuple[float, StoredRoi | None]:
        """Probability of the class and the nucleus of a cell; passes the mark at which the object ends."""
        java = self.java
        at = java.pos
        if kind is not Kind.CELL and java.data[at : at + len(_PLAIN_END)] == _PLAIN_END:
            java.pos = at + len(_PLAIN_END)
            return _NAN, None
        probability = self.probability()
        nucleus = self.roi() if kind is Kind.CELL else None
        self.end()
        return probability, nucleus


def _texts_of(uuids: list[bytes]) -> list[str]:
    """Ids as texts, all of them checked at once."""
    joined = b"".join(uuids)
    if len(joined) != UUID_SIZE * len(uuids) or not are_canonical(joined):
        raise SkippedReference
    text = joined.decode("ascii")
    return [text[i : i + UUID_SIZE] for i in range(0, len(text), UUID_SIZE)]
