"""The maps at the contour samples: read block by block, the blocks of late kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.regions.contours import ProbabilityMap, pooled
from wsi_pipeline.tiling import BlockGrid, Bounds

Pixels = NDArray[np.uint8]
Read = Callable[[Bounds], Pixels | None]

KEPT_BYTES: Final = 32 * 2**20
"""What one `Kept` holds at most: 32 maps of blocks of 2048 map px at two of them to a sample."""
# What is counted for a map that is 0 all over, of which nothing is kept but that.
_NOTHING: Final = 64


class Sampled(NamedTuple):
    """Values at a rectangle of contour samples, uint8 (height, width) each."""

    probability: Pixels
    entropy: Pixels
    mutual_information: Pixels | None = None


class Kept:
    """Maps of the blocks that were looked at of late, of whatever slide; for one thread.

    Regions are many and small, and neighbours share their borders: otherwise each would decode its chunks anew.
    """

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._bytes = 0
        # With the source itself, which is compared: another one may come to have the same id.
        self._maps: OrderedDict[Hashable, tuple[object, Pixels | None]] = OrderedDict()

    def get(self, source: object, key: tuple[str | int, int, int], read: Callable[[], Pixels | None]) -> Pixels | None:
        """The map of a block, read if need be; None where it is 0 all over."""
        place = (id(source), *key)
        owner, found = self._maps.get(place, (None, None))
        if owner is not source:
            values = read()
            # A copy, so that no view keeps more than it shows.
            found = np.array(values) if values is not None and values.any() else None
            self._forget(place)
            self._maps[place] = source, found
            self._bytes += _size(found)
            while self._bytes > self._most and len(self._maps) > 1:
                self._forget(next(iter(self._maps)))
        self._maps.move_to_end(place)
        return found

    def forget(self, source: object) -> None:
        """Read the maps of this source anew."""
        for place in [place for place, (owner, _) in self._maps.items() if owner is source]:
            self._forget(place)

    def _forget(self, place: Hashable) -> None:
        if place in self._maps:
            self._bytes -= _size(self._maps.pop(place)[1])


def _size(pixels: Pixels | None) -> int:
    return _NOTHING if pixels is None else pixels.nbytes


class Samples:
    """Probability of one class, entropy and disagreement at the contour samples.

    Parameters
    ----------
    factor
        Map pixels to a sample; divides the block.
    kept
        Shared with the samples of other classes or slides; None: its own.

    Attributes
    ----------
    grid
        The blocks, in samples.
    scale
        Level-0 px to a sample.
    """

    def __init__(self, source: ProbabilityMap, channel: int, factor: int, kept: Kept | None = None) -> None:
        self._source = source
        self._channel = channel
        self._factor = factor
        self._kept = Kept() if kept is None else kept
        # Asked of no pixel: whether there is such a map at all.
        self._several = source.mutual_information(Bounds(0, 0, 0, 0)) is not None
        _, height, width = source.shape
        self.grid = BlockGrid(-(-width // factor), -(-height // factor), source.block // factor)
        self.scale = source.downsample * factor

    def with_neighbours(self, row: int, column: int) -> Pixels:
        """Probability of a block with the first samples of its right, lower and diagonal neighbours, if it has any."""
        block = self.grid.bounds(row, column)
        whole = Bounds(0, 0, self.grid.width, self.grid.height)
        return self.probability(block._replace(right=block.right + 1, bottom=block.bottom + 1).within(whole))

    def probability(self, bounds: Bounds) -> Pixels:
        """uint8 (height, width) of a rectangle inside the sample grid."""
        return self._assembled(bounds, self._channel, lambda area: self._source.read(self._channel, area))

    def read(self, bounds: Bounds) -> Sampled:
        """Values of a rectangle inside the sample grid."""
        return Sampled(
            self.probability(bounds),
            self._assembled(bounds, "entropy", self._source.uncertainty),
            self._disagreement(bounds),
        )

    def _disagreement(self, bounds: Bounds) -> Pixels | None:
        if not self._several:
            return None
        return self._assembled(bounds, "mutual information", self._source.mutual_information)

    def _assembled(self, bounds: Bounds, what: str | int, read: Read) -> Pixels:
        result = np.zeros((bounds.height, bounds.width), np.uint8)
        side = self.grid.block
        for row in range(bounds.y // side, -(-bounds.bottom // side)):
            for column in range(bounds.x // side, -(-bounds.right // side)):
                values = self._block(row, column, what, read)
                if values is None:
                    continue
                block = self.grid.bounds(row, column)
                part = block.within(bounds)
                there = np.s_[part.y - block.y : part.bottom - block.y, part.x - block.x : part.right - block.x]
                here = np.s_[part.y - bounds.y : part.bottom - bounds.y, part.x - bounds.x : part.right - bounds.x]
                result[here] = values[there]
        return result

    def _block(self, row: int, column: int, what: str | int, read: Read) -> Pixels | None:
        def sampled() -> Pixels | None:
            _, height, width = self._source.shape
            samples = self.grid.bounds(row, column)
            area = Bounds(*(v * self._factor for v in samples)).within(Bounds(0, 0, width, height))
            pixels = read(area)
            return None if pixels is None else pooled(pixels, self._factor)

        return self._kept.get(self._source, (what, row, column), sampled)
