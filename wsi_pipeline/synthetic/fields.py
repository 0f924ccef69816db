"""Smooth random fields on a coarse grid: painted as soft shapes, and contoured to the polygons of the same shapes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import contourpy
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.tiling import Bounds

Values = NDArray[np.float32]

# Parts and holes of a region below this area are left out, in px².
SMALLEST_PART = 1.0


@dataclass(frozen=True, slots=True)
class Field:
    """A function on the slide, given at the nodes of a grid and bilinear between them.

    Attributes
    ----------
    values
        float32 (rows, columns); node (r, c) lies at level-0 (c * cell, r * cell).
    cell
        Distance of the nodes in level-0 px.
    """

    values: Values
    cell: int

    def at(self, part: Bounds) -> Values:
        """Values at the pixel centres of a level-0 rectangle inside the grid, float32 (height, width)."""
        rows, columns = self._nodes(part)
        near = self.values[rows, columns]
        y = (np.arange(part.y, part.bottom, dtype=np.float32) + np.float32(0.5)) / self.cell - rows.start
        x = (np.arange(part.x, part.right, dtype=np.float32) + np.float32(0.5)) / self.cell - columns.start
        top, left = y.astype(np.intp), x.astype(np.intp)
        v, u = (y - top)[:, None], x - left
        lines = near[top] * (1 - v) + near[top + 1] * v
        return np.asarray(lines[:, left] * (1 - u) + lines[:, left + 1] * u, np.float32)

    def soft(self, part: Bounds, edge: float) -> Values | None:
        """1 where the field is above `edge`, 0 below `-edge`, 0.5 on the contour; None where all of it is 0."""
        if self.values[self._nodes(part)].max() < -edge:
            return None
        return np.asarray(np.clip(self.at(part) / (2 * edge) + 0.5, 0, 1), np.float32)

    def region(self, size: tuple[int, int]) -> BaseGeometry:
        """Where the field is positive: MultiPolygon in level-0 px, valid, cut at the edge of a slide of `size`."""
        padded = np.pad(self.values, 1, constant_values=-1e6)
        ys, xs = (np.arange(-1, n + 1, dtype=np.float64) * self.cell for n in self.values.shape)
        # Padding stands right beside the outermost nodes: the outline runs along the edge, not a cell beyond.
        ys[[0, -1]] = ys[[1, -2]] + (-1e-3, 1e-3)
        xs[[0, -1]] = xs[[1, -2]] + (-1e-3, 1e-3)
        return cut_to(contoured(padded, 0.0, xs, ys), shapely.box(0, 0, *size))

    def _nodes(self, part: Bounds) -> tuple[slice, slice]:
        return (
            slice(part.y // self.cell, (part.bottom - 1) // self.cell + 2),
            slice(part.x // self.cell, (part.right - 1) // self.cell + 2),
        )


def contoured(
    z: Values, level: float, xs: NDArray[np.float64] | None = None, ys: NDArray[np.float64] | None = None
) -> BaseGeometry:
    """Polygons where bilinear `z` lies above `level`; x and y of the nodes, by default their indices."""
    generator = contourpy.contour_generator(xs, ys, z, name="serial", fill_type=contourpy.FillType.OuterOffset)
    lines = cast("tuple[list[NDArray[np.float64]], list[NDArray[np.uint32]]]", generator.filled(level, np.inf))
    polygons = [
        shapely.Polygon(points[: offsets[1]], [points[a:b] for a, b in itertools.pairwise(offsets[1:])])
        for points, offsets in zip(*lines, strict=True)
    ]
    return shapely.union_all(shapely.make_valid(np.array(polygons, dtype=object)))


def cut_to(region: BaseGeometry, frame: BaseGeometry, smallest: float = SMALLEST_PART) -> BaseGeometry:
    """The polygons of `region` inside `frame` as a MultiPolygon on QuPath's grid of 0.01 px.

    Parts and holes of less than `smallest` px² are left out; lines and points, which an intersection may give, too.
    """
    cut = shapely.set_precision(shapely.intersection(region, frame), 0.01)
    parts = [part for part in shapely.get_parts(cut) if part.geom_type == "Polygon" and part.area >= smallest]
    return shapely.multipolygons([_without_specks(part, smallest) for part in parts]) if parts else EMPTY


EMPTY = shapely.MultiPolygon()


def _without_specks(polygon: shapely.Polygon, smallest: float) -> shapely.Polygon:
    holes = [ring for ring in polygon.interiors if shapely.Polygon(ring).area >= smallest]
    return polygon if len(holes) == len(polygon.interiors) else shapely.Polygon(polygon.exterior, holes)


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], wavelengths: tuple[float, ...], weights: tuple[float, ...]
) -> Values:
    """Sum of smooth noise of several wavelengths (in nodes), each with mean 0 and the spread `weight`."""
    out = np.zeros(shape, np.float32)
    for wavelength, weight in zip(wavelengths, weights, strict=True):
        knots = tuple(max(2, int(np.ceil(n / wavelength))) + 3 for n in shape)
        coarse = rng.standard_normal(knots).astype(np.float32)
        out += weight * _spline(coarse, shape, wavelength)
    return out


def _spline(knots: Values, shape: tuple[int, int], wavelength: float) -> Values:
    """Quadratic B-spline of knots `wavelength` nodes apart: smooth, separable, and no ringing."""
    out = knots
    for axis, n in enumerate(shape):
        at = np.arange(n, dtype=np.float32) / np.float32(wavelength)
        first = np.minimum(at.astype(np.intp), out.shape[axis] - 3)
        t = at - first
        weights = (0.5 * (1 - t) ** 2, 0.5 + t * (1 - t), 0.5 * t**2)
        form = (-1, 1) if axis == 0 else (1, -1)
        out = sum(
            np.take(out, first + k, axis=axis) * w.reshape(form).astype(np.float32) for k, w in enumerate(weights)
        )
    # A quadratic B-spline of white noise has about this spread in two dimensions.
    return np.asarray(out / 0.55, np.float32)
