"""Polygons as plain arrays of numbers, exactly; as objects of the geometry library they take several times as much."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.regions.contours import Polygons


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """16 bytes a corner, 4 a ring and 4 a polygon.

    Attributes
    ----------
    corners
        float64 (n, 2).
    rings, polygons
        Where each ring begins among the corners, each polygon among the rings, and the end; int32.
    """

    corners: NDArray[np.float64]
    rings: NDArray[np.int32]
    polygons: NDArray[np.int32]

    @classmethod
    def of(cls, polygons: Polygons) -> Packed:
        """Polygons without a third coordinate; none at all are fine."""
        if not len(polygons):
            return cls(np.zeros((0, 2)), np.zeros(1, np.int32), np.zeros(1, np.int32))
        _, corners, (rings, starts) = shapely.to_ragged_array(polygons, include_z=False)
        return cls(corners, rings, starts)

    def __len__(self) -> int:
        return len(self.polygons) - 1

    @property
    def nbytes(self) -> int:
        return self.corners.nbytes + self.rings.nbytes + self.polygons.nbytes

    def unpacked(self) -> Polygons:
        """Array of shapely Polygons, corner for corner what was packed."""
        if not len(self):
            return np.empty(0, dtype=object)
        result: Polygons = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, self.corners, (self.rings, self.polygons)
        )
        return result


def together(parts: Iterable[Polygons]) -> Polygons:
    """One array of many; empty for none."""
    return np.concatenate([np.empty(0, dtype=object), *parts])
