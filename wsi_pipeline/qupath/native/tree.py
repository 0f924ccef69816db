"""The order in which objects are nested in each other in the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.objects import PathObject

# Deepest nesting that survives QuPath's own reading and saving on a Java thread with the default stack.
MAX_DEPTH = 100


class Tree:
    """The order in which objects are written: each one, then what lies in it.

    Parameters
    ----------
    objects
        In any order.
    duplicates
        Ids that may be there twice, since the file had them twice.

    Attributes
    ----------
    order
        Indices of the objects, depth first.
    depths
        For each of `order`, how deep it lies; 1 at the top.
    counts
        For each of `order`, how many objects lie directly in it.
    """

    def __init__(self, objects: Sequence[PathObject], duplicates: frozenset[str]) -> None:
        self._objects = objects
        self._children = self._grouped(duplicates)
        self.order: list[int] = []
        self.depths: list[int] = []
        self.counts: list[int] = []
        if not self._children.keys() - {None}:
            # Nothing lies in anything: the commonest tree.
            self.order = self._children.get(None, [])
            self.depths = [1] * len(self.order)
            self.counts = [0] * len(self.order)
            return
        self._walk()
        if len(self.order) != len(objects):
            raise ProjectError("objects lie in each other in a ring")

    @property
    def roots(self) -> int:
        """How many objects lie in no other."""
        return len(self._children.get(None, ()))

    def _walk(self) -> None:
        stack = [(index, 1) for index in reversed(self._children.get(None, []))]
        while stack:
            index, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise ProjectError(f"objects are nested more than {MAX_DEPTH} deep; QuPath could not save them")
            inside = self._children.get(index, ())
            self.order.append(index)
            self.depths.append(depth)
            self.counts.append(len(inside))
            stack.extend((child, depth + 1) for child in reversed(inside))

    def _grouped(self, duplicates: frozenset[str]) -> dict[int | None, list[int]]:
        """Indices by the index of the parent."""
        place = {item.uuid: index for index, item in enumerate(self._objects)}
        if len(place) != len(self._objects):
            counts = Counter(item.uuid for item in self._objects)
            new = [key for key, count in counts.items() if count > 1 and key not in duplicates]
            if new:
                raise ProjectError(f"two objects have the id {new[0]}")
        if not any(item.parent for item in self._objects):
            return {None: list(range(len(self._objects)))}
        grouped: dict[int | None, list[int]] = {}
        # Of several objects with one id, a child lies in the last one before it: that is the order of the file.
        latest: dict[str, int] = {}
        for index, item in enumerate(self._objects):
            above = None if item.parent is None else latest.get(item.parent, place.get(item.parent, -1))
            if above == -1:
                raise ProjectError(f"object {item.uuid} lies in the object {item.parent}, which is not there")
            grouped.setdefault(above, []).append(index)
            if item.uuid in duplicates:
                latest[item.uuid] = index
        return grouped
