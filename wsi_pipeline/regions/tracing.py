"""The regions of a slide while its blocks come in: each block is traced as soon as its neighbours are there.

What is left for the end is joining at the seams. A polygon that touches none is done with its block: simplified, on the
grid, measured. All of this is decided polygon by polygon, so that neither the order of the blocks nor who traced
them when can change a byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.regions.contours import Polygons, ProbabilityMap, block_contours, clipped, level_of, places
from wsi_pipeline.regions.measurements import RegionValues, measure_all
from wsi_pipeline.regions.packed import Packed, together
from wsi_pipeline.regions.samples import Kept, Samples
from wsi_pipeline.regions.shapes import ShapeRules, covered, on_grid, slimmed, without_pinholes
from wsi_pipeline.tiling import BlockGrid

Block = tuple[int, int]
"""Row and column."""
Measured = tuple[Polygons, list[RegionValues]]


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """What one block gives of one class.

    Attributes
    ----------
    on_seam
        Polygons that touch another block, as they were traced.
    done
        The others, as they are handed out, unless a hole that is filled swallows them.
    values
        Of `done`, one by one.
    small
        Those that could lie in such a hole, as they were before they were put on the grid.
    owner
        For each of `done` its number in `small`, -1 where it is too large for any hole.
    pinholes
        The holes that were filled.
    """

    on_seam: Packed
    done: Packed
    values: list[RegionValues]
    small: Packed
    owner: NDArray[np.int64]
    pinholes: Packed

    @property
    def nbytes(self) -> int:
        packed = (self.on_seam, self.done, self.small, self.pinholes)
        return sum(p.nbytes for p in packed) + self.owner.nbytes


_NONE: Final = Packed.of(np.empty(0, dtype=object))
_NOTHING: Final = _Piece(_NONE, _NONE, [], _NONE, np.zeros(0, np.int64), _NONE)


class Tracer:
    """The polygons of every class of one slide.

    `ready` and `give_up` may be called from any thread, everything else from one.

    Parameters
    ----------
    source
        The maps; blocks are read once they are ready.
    classes
        Number of channels.
    factor
        Map pixels to a contour sample; divides the block.
    kept
        See `Samples`.

    Attributes
    ----------
    source
        As given.
    """

    def __init__(
        self,
        source: ProbabilityMap,
        classes: int,
        *,
        threshold: float,
        factor: int,
        rules: ShapeRules,
        kept: Kept | None = None,
    ) -> None:
        self.source = source
        self._level = level_of(threshold)
        self._factor = factor
        self._rules = rules
        kept = Kept() if kept is None else kept
        self._samples = [Samples(source, channel, factor, kept) for channel in range(classes)]
        _, height, width = source.shape
        self._grid = BlockGrid(width, height, source.block)
        self._lock = Lock()
        self._settled: NDArray[np.bool_] = np.zeros(self._grid.shape, bool)
        self._told: NDArray[np.bool_] = np.zeros(self._grid.shape, bool)
        self._pieces: dict[Block, list[_Piece]] = {}
        self._over = False

    def ready(self, settled: Iterable[Block]) -> list[Block]:
        """The blocks that can be traced now and could not before.

        Parameters
        ----------
        settled
            Further blocks that are there, or will stay as they are. A polygon is measured with a margin that may reach
            into any of the eight neighbours; so a block is ready when all of them are settled.
        """
        rows, columns = self._grid.shape
        found = []
        with self._lock:
            new = [block for block in settled if not self._settled[block]]
            for block in new:
                self._settled[block] = True
            for row, column in new:
                for y in range(max(0, row - 1), min(rows, row + 2)):
                    for x in range(max(0, column - 1), min(columns, column + 2)):
                        around = self._settled[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                        if not self._told[y, x] and around.all():
                            self._told[y, x] = True
                            found.append((y, x))
        return sorted(found)

    def trace(self, block: Block) -> None:
        """Trace a block of `ready`, every class; nothing once the tracer was given up.

        Raises
        ------
        StoreError, ShapelyError, ...
            What reading the maps or the geometry library raise; the block is tried again by `polygons`.
        """
        if not self._over and block not in self._pieces:
            self._pieces[block] = [self._piece(channel, block) for channel in range(len(self._samples))]

    def give_up(self) -> None:
        """Nobody wants the regions any more."""
        self._over = True

    @property
    def nbytes(self) -> int:
        """What the polygons so far take, in bytes; the values of each region add some hundred."""
        return sum(piece.nbytes for pieces in self._pieces.values() for piece in pieces)

    def polygons(self, channel: int) -> Measured:
        """The regions of one class, each with what it says about itself; blocks that were not traced are traced now.

        Returns
        -------
        Array of valid Polygons in level-0 px, in a fixed order, and their values.
        """
        for block in self._grid:
            self.trace(block)
        pieces = [self._pieces[block][channel] for block in self._grid]
        joined, pinholes = without_pinholes(self._joined(pieces), self._rules.min_hole_px)
        pinholes = together([*(piece.pinholes.unpacked() for piece in pieces), pinholes])
        joined, _ = on_grid(joined[~covered(joined, pinholes)], self._rules)
        joined = shapely.normalize(joined)
        values = measure_all(self._samples[channel], joined, level=self._level)
        parts = [joined]
        for piece in pieces:
            stay = _outside(piece, pinholes)
            parts.append(piece.done.unpacked()[stay])
            values += [value for value, stays in zip(piece.values, stay, strict=True) if stays]
        found = together(parts)
        order = places(found) if len(found) else np.zeros(0, np.intp)
        return found[order], [values[i] for i in order]

    def _piece(self, channel: int, block: Block) -> _Piece:
        samples = self._samples[channel]
        raw, touches = block_contours(
            samples.with_neighbours(*block),
            self._grid.bounds(*block),
            self.source,
            level=self._level,
            factor=self._factor,
        )
        if not len(raw):
            return _NOTHING
        whole, pinholes = without_pinholes(self._slimmed(raw[~touches]), self._rules.min_hole_px)
        done, owner = on_grid(whole, self._rules)
        done = shapely.normalize(done)
        fits = shapely.area(whole) < self._rules.min_hole_px
        number = np.where(fits, np.cumsum(fits) - 1, -1)
        return _Piece(
            on_seam=Packed.of(raw[touches]),
            done=Packed.of(done),
            values=measure_all(samples, done, level=self._level),
            small=Packed.of(whole[fits]),
            owner=number[owner],
            pinholes=Packed.of(pinholes),
        )

    def _joined(self, pieces: Sequence[_Piece]) -> Polygons:
        on_seam = together(piece.on_seam.unpacked() for piece in pieces)
        return self._slimmed(shapely.get_parts(shapely.union_all(on_seam))) if len(on_seam) else on_seam

    def _slimmed(self, raw: Polygons) -> Polygons:
        # The corner that a ring begins at stays when it is simplified: it must not depend on where the ring was cut.
        return slimmed(shapely.normalize(clipped(raw, self.source.size)), self._rules)


def _outside(piece: _Piece, pinholes: Polygons) -> NDArray[np.bool_]:
    """Which of the polygons that are done lie in no hole that was filled."""
    inside = covered(piece.small.unpacked(), pinholes)
    result: NDArray[np.bool_] = ~np.append(inside, False)[piece.owner]
    return result
