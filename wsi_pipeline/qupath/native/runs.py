"""Runs of bytes that come again from object to object, and what they mean."""

from __future__ import annotations

import struct
from typing import Any, Generic, NamedTuple, TypeVar

from wsi_pipeline.objects import Kind, Plane, Roi

_LONGEST_RUN = 4096
_MOST_SIZES = 16

_T = TypeVar("_T")


class Runs(Generic[_T]):
    """Runs of bytes and what was read from them, of few sizes."""

    def __init__(self) -> None:
        self.size = 0
        self._meaning: dict[bytes, _T] = {}
        self._sizes: list[int] = []

    def find(self, data: bytes, at: int) -> _T | None:
        """The meaning of the run that begins here, None for an unknown one; its length is in `size` then."""
        # What came last comes next, as a rule.
        found = self._meaning.get(data[at : at + self.size])
        return found if found is not None else self._find(data, at)

    def _find(self, data: bytes, at: int) -> _T | None:
        for size in self._sizes:
            found = self._meaning.get(data[at : at + size])
            if found is not None:
                self.size = size
                return found
        return None

    def learn(self, run: bytes, meaning: _T) -> None:
        if len(run) > _LONGEST_RUN:
            return
        if len(run) not in self._sizes:
            if len(self._sizes) == _MOST_SIZES:
                return
            self._sizes.append(len(run))
        self._meaning[run] = meaning


class Beginning(NamedTuple):
    """An object up to the values of its metadata; with the id as the only one, up to its text.

    `elements` stand for those that the run counts, and for the id if that is the only value.
    """

    kind: Kind
    keys: tuple[str, ...]
    elements: tuple[Any, ...]


class Numbers(NamedTuple):
    """A numeric list up to its numbers: names in their order, and the numbers to be unpacked."""

    names: tuple[str, ...]
    form: struct.Struct


class Singles(NamedTuple):
    """A list of single measurements up to the first: how each begins (the class of it), and all to be unpacked."""

    heads: tuple[bytes, ...]
    form: struct.Struct
    elements: tuple[Any, ...]


class Ending(NamedTuple):
    """Behind the measurements of an object without children: what follows up to the numbers of its region."""

    locked: bool
    path_class: str | None
    kind: Roi
    plane: Plane
    elements: tuple[Any, ...]
    # What lies between the x and the y of a polygon, up to their number; empty for another kind.
    between: bytes
