"""Measures on vectors against MONAI on masks of the same shapes: within one pixel of the raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from tests.measures.shapes import region
from tests.measures.test_boundary import arcs
from wsi_pipeline.measures import compare_areas, compare_boundaries
from wsi_pipeline.raster import fill
from wsi_pipeline.tiling import Bounds

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:monai:FutureWarning")]

torch = pytest.importorskip("torch")
monai = pytest.importorskip("monai.metrics")

# Pixels of half a unit: thin parts of the shapes do not vanish.
PIXEL = 0.5
TOLERANCE = 3.0
VECTORS = Path(__file__).parent.parent / "vectors"


def measured(a: BaseGeometry, b: BaseGeometry) -> dict[str, float]:
    """What MONAI says of masks of both shapes, in the shapes' units."""
    left, top, right, bottom = np.round(shapely.total_bounds([a, b]) / PIXEL).astype(int).tolist()
    window = Bounds(left - 8, top - 8, right + 8, bottom + 8)
    first, second = (one_hot(fill(shape, window, PIXEL)) for shape in (a, b))
    common: dict[str, Any] = {"include_background": False, "spacing": [PIXEL, PIXEL]}
    return {
        "dice": float(monai.compute_dice(first, second, include_background=False)),
        "iou": float(monai.compute_iou(first, second, include_background=False)),
        "hd": float(monai.compute_hausdorff_distance(first, second, **common)),
        "hd95": float(monai.compute_hausdorff_distance(first, second, percentile=95, **common)),
        "assd": float(monai.compute_average_surface_distance(first, second, symmetric=True, **common)),
        "surface_dice": float(monai.compute_surface_dice(first, second, [TOLERANCE], use_subvoxels=True, **common)),
    }


def one_hot(mask: NDArray[np.bool_]) -> Any:
    return torch.from_numpy(np.stack([~mask, mask])[None])


def compared(a: BaseGeometry, b: BaseGeometry) -> None:
    found, areas = compare_boundaries(a, b, 1.0, tolerance_um=TOLERANCE), compare_areas(a, b, 1.0)
    reference = measured(a, b)
    # Half a pixel along each outline is what a mask may be off.
    slack = 0.5 * PIXEL * (a.length + b.length)
    assert areas.dice == pytest.approx(reference["dice"], abs=2 * slack / (areas.before + areas.after))
    assert areas.iou == pytest.approx(reference["iou"], abs=2 * slack / (areas.before + areas.after - areas.kept))
    for name in ("hd", "assd"):
        assert getattr(found, name) == pytest.approx(reference[name], abs=PIXEL), name
    # MONAI counts pixels, of which a slanting outline has fewer to its length, by 1/√2 at most: its 95 % of the pixels
    # are at least 93.1 % and at most 96.4 % of the length.
    low, high = (max(arcs(a, b, 0.5).quantile(q), arcs(b, a, 0.5).quantile(q)) for q in (0.931, 0.964))
    assert low - PIXEL <= reference["hd95"] <= high + PIXEL
    # A share of outlines: between those at a pixel less and a pixel more of tolerance.
    tighter, looser = (
        compare_boundaries(a, b, 1.0, tolerance_um=t).surface_dice for t in (TOLERANCE - PIXEL, TOLERANCE + PIXEL)
    )
    assert tighter - 0.02 <= reference["surface_dice"] <= looser + 0.02


@pytest.mark.parametrize("seed", range(12))
def test_blobs_with_holes_and_in_parts(seed: int) -> None:
    compared(region(seed), region(seed + 1))


@pytest.mark.parametrize("seed", range(4))
def test_an_outline_that_was_edited_in_one_place(seed: int) -> None:
    shape = region(seed)
    place = shapely.Point(shapely.get_coordinates(shape)[5])
    compared(shape, shape.union(place.buffer(15)))


@pytest.mark.parametrize("name", ["squares", "circles"])
def test_the_published_vectors(name: str) -> None:
    for case in orjson.loads((VECTORS / f"{name}.json").read_bytes())["cases"]:
        before, after = (shapely.from_geojson(orjson.dumps(case[side])) for side in ("before", "after"))
        if case["mpp"] != 1.0 or before.distance(after) > 500 or case["tolerance_um"] != 2.0:
            continue
        reference, expected = measured(before, after), case["expected"]
        for key, ours in (("hd_um", "hd"), ("hd95_um", "hd95"), ("assd_um", "assd")):
            if key in expected:
                assert reference[ours] == pytest.approx(expected[key], abs=PIXEL), (case["name"], key)
        assert reference["dice"] == pytest.approx(expected["dice"], abs=0.02), case["name"]
