"""Shapes like those that models and brushes make, for the tests of measures."""

from __future__ import annotations

import math

import numpy as np
import shapely
from hypothesis import strategies as st
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.measures import region_of


def blob(rng: np.random.Generator, x: float, y: float, radius: float, vertices: int = 80) -> BaseGeometry:
    """A round shape with a wavy outline; valid, sometimes in parts."""
    angles = np.linspace(0, 2 * math.pi, vertices, endpoint=False)
    r = radius * np.ones(vertices)
    for k in range(2, 7):
        r += radius * rng.normal(0, 0.15 / k) * np.cos(k * angles + rng.uniform(0, 2 * math.pi))
    return region_of(Polygon(np.column_stack([x + r * np.cos(angles), y + r * np.sin(angles)])))


def region(seed: int, size: float = 200.0) -> BaseGeometry:
    """Some blobs, some with holes, on a square of `size`."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(int(rng.integers(1, 4))):
        x, y, radius = rng.uniform(0.2, 0.8) * size, rng.uniform(0.2, 0.8) * size, rng.uniform(0.08, 0.2) * size
        whole = blob(rng, x, y, radius)
        parts.append(whole.difference(blob(rng, x, y, radius / 3)) if rng.random() < 0.5 else whole)
    return region_of(shapely.union_all(parts))


def regions() -> st.SearchStrategy[BaseGeometry]:
    return st.integers(0, 10_000).map(region)
