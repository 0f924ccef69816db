"""From a map with very many regions to polygons, and the polygons to GeoJSON.

    python -m benchmarks.regions [--size 4096] [--long] [--threshold 0.25]

The map is noise, smoothed a little: about one region in 500 pixels, far more than any slide has. At a threshold of 0.25
it is one region of very many holes. What is found is written as `benchmarks.outlines` writes its polygons.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import shapely
from scipy import ndimage

from benchmarks.clock import clock, peak_mb, report
from benchmarks.outlines import write
from wsi_pipeline.config import Regions
from wsi_pipeline.inference import MapInfo, PredictionStore
from wsi_pipeline.regions import extract_regions
from wsi_pipeline.tiling import BlockGrid

BLOCK = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--long", action="store_true", help="18,944 px: above 130,000 regions")
    parser.add_argument("--threshold", type=float, default=0.5)
    options = parser.parse_args()
    size = 18_944 if options.long else options.size
    with tempfile.TemporaryDirectory() as folder:
        store = noisy_store(Path(folder) / "prediction.zarr", size)
        settings = Regions(
            threshold=options.threshold, min_area_um2=20, min_hole_um2=10, simplify_um=0.5, contour_downsample=2
        )
        with clock() as took:
            found = extract_regions(
                store, ["Tumor"], settings, mpp=1.0, run_id="bench", slide_id="noise", model_id="none"
            )
        counts = shapely.get_num_coordinates([o.geometry for o in found])
        vertices, most = int(counts.sum()), int(counts.max())
        report(
            run="regions",
            map_mpx=size * size / 1e6,
            regions=len(found),
            vertices=vertices,
            most_vertices=most,
            cpu_s=took.cpu_s,
            wall_s=took.wall_s,
            peak_mb=peak_mb(),
        )
        write(Path(folder), found[: 100_000 if options.long else 20_000])


def noisy_store(path: Path, size: int) -> PredictionStore:
    """A store of noise, block by block; blocks do not fit each other, as does nothing in noise."""
    info = MapInfo("noise", (size, size), 1.0, 1.0, (("Tumor", (200, 0, 0)),), "none", 1.0, BLOCK, "")
    store = PredictionStore.create(path, info)
    grid = BlockGrid(size, size, BLOCK)
    for row, column in grid:
        bounds = grid.bounds(row, column)
        rng = np.random.default_rng([row, column])
        noise = ndimage.gaussian_filter(rng.standard_normal((bounds.height, bounds.width)).astype(np.float32), 5)
        probability = np.clip(110 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
        store.write_block(row, column, probability[None], probability)
    store.set_blocks(np.ones(grid.shape, np.uint8))
    return store


if __name__ == "__main__":
    main()
