"""Connected pieces of a mask, found on the runs of its rows: time and memory go with the outlines, not with the pixels.

A run is an unbroken row of true pixels. Runs of neighbouring rows that touch belong together; which runs do is a
question of sorted numbers, and pieces are found by joining runs to the lowest run that they reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=False, eq=False)
class Pieces:
    """The pieces of a mask.

    Attributes
    ----------
    shape
        Of the mask.
    row, start, end
        int64 (runs,): each run's row, its first column and the one after its last, in reading order.
    label
        int64 (runs,): number of the run's piece, from 0 in reading order of their first pixels.
    """

    shape: tuple[int, int]
    row: Index
    start: Index
    end: Index
    label: Index

    @classmethod
    def of(cls, mask: Mask, *, diagonal: bool) -> Pieces:
        """Find them; `diagonal`: pixels that meet at a corner only belong together too."""
        height, width = mask.shape
        row, start, end = _runs(mask)
        label = _joined(len(row), *_touching(row, start, end, width, reach=int(diagonal)))
        return cls((height, width), row, start, end, label)

    def __len__(self) -> int:
        return int(self.label.max()) + 1 if len(self.label) else 0

    @cached_property
    def sizes(self) -> Index:
        """Pixels of each piece."""
        sizes = np.zeros(len(self), np.int64)
        np.add.at(sizes, self.label, self.end - self.start)
        return sizes

    @property
    def of_pixels(self) -> Index:
        """The piece of each true pixel, in reading order: goes with `image[mask]`."""
        return np.repeat(self.label, self.end - self.start)

    def at_edge(self) -> Mask:
        """Which pieces touch the edge of the picture."""
        height, width = self.shape
        outermost = (self.row == 0) | (self.row == height - 1) | (self.start == 0) | (self.end == width)
        found = np.zeros(len(self), bool)
        found[self.label[outermost]] = True
        return found

    def drawn(self, keep: Mask) -> Mask:
        """The mask (height, width) of the pieces that `keep` (bool, one for each) says."""
        height, width = self.shape
        kept = keep[self.label]
        # A run's first pixel and the one after its last turn the value over; there is room for one after the row.
        turns = np.zeros((height, width + 1), bool)
        turns[self.row[kept], self.start[kept]] = True
        turns[self.row[kept], self.end[kept]] = True
        return np.logical_xor.accumulate(turns, axis=1)[:, :width]


def _runs(mask: Mask) -> tuple[Index, Index, Index]:
    height, width = mask.shape
    padded = np.zeros((height, width + 2), bool)
    padded[:, 1:-1] = mask
    row, column = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), width + 1)
    return row[::2], column[::2], column[1::2]


def _touching(row: Index, start: Index, end: Index, width: int, reach: int) -> tuple[Index, Index]:
    """Pairs of runs (above, below) in neighbouring rows that touch; `reach` 1 counts corners."""
    # Rows one after the other on one line, so far apart that no run reaches into the next row.
    stride = width + 2
    below = (row + 1) * stride
    first = np.searchsorted(row * stride + end, below + start - reach, side="right")
    last = np.searchsorted(row * stride + start, below + end + reach, side="left")
    count = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(row)), count)
    before = np.cumsum(count) - count
    return above, np.arange(len(above)) + np.repeat(first - before, count)


def _joined(count: int, one: Index, other: Index) -> Index:
    """Number of the connected part of each of `count` things, where `one` and `other` are pairs of connected ones.

    Every round joins the root of each part to the lowest root that a pair gives it, and then lets everything point
    at its root: at least half of the roots that have neighbours go in a round.
    """
    root = np.arange(count)
    while True:
        a, b = root[one], root[other]
        apart = a != b
        if not apart.any():
            break
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(root, further := root[root]):
            root = further
    is_root = root == np.arange(count)
    return (np.cumsum(is_root) - 1)[root]
