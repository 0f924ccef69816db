"""The engine beside the naive pipeline, on one slide with one U-Net, in one run: what the ratios of the docs are.

    python -m benchmarks.comparison [--size 4096] [--null] [--folder build/bench]

Makes a slide with known truth and trains the bundled U-Net on it for some seconds, once; both stay in the folder. Each
program runs in a process of its own; the engine twice, the first time to choose a runtime and convert the model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import tifffile
import torch
from shapely.geometry.base import BaseGeometry
from torch.nn import functional

from benchmarks.clock import report
from wsi_pipeline.models.unet import UNet
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.raster import fill
from wsi_pipeline.synthetic import make_slide
from wsi_pipeline.tiling import Bounds

SCALE = 16
STEPS, BATCH, SIDE, PACE = 90, 8, 64, 3e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--null", action="store_true", help="the engine's own cost: a model that costs almost nothing")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    slide = options.folder / f"slide-{options.size}.tif"
    if not Path(f"{slide}.gt.npz").exists():
        draw(slide, options.size)
    weights = "null" if options.null else str(options.folder / "unet.pt")
    if not options.null and not Path(weights).exists():
        train(slide, Path(weights))
    if not options.null:
        outcome("benchmarks.engine", str(slide), weights)
    kept = options.folder / "comparison"
    shutil.rmtree(kept, ignore_errors=True)
    ours = outcome("benchmarks.engine", str(slide), weights, "--output", str(kept))
    (regions,) = kept.glob("slides/*/regions.geojson")
    if not options.null:
        alone = outcome("benchmarks.model_alone", str(slide), weights, "--windows")
        report(
            run="the model alone beside the engine",
            size=options.size,
            model_cpu_s=alone["cpu_s"],
            engine_cpu_s=ours["cpu_s"] - ours["start_cpu_s"],
            share=alone["cpu_s"] / (ours["cpu_s"] - ours["start_cpu_s"]),
        )
    for extra in ([],) if options.null else ([], ["--channels-last"]):
        outlines = slide.with_suffix(".geojson")
        theirs = outcome("benchmarks.naive", str(slide), weights, *extra, "--output", str(outlines))
        report(
            run=f"engine beside {theirs['run']}",
            size=options.size,
            model=theirs["model"],
            cpu_ratio=theirs["cpu_s"] / ours["cpu_s"],
            wall_ratio=theirs["wall_s"] / ours["wall_s"],
            memory_ratio=theirs["peak_mb"] / ours["peak_mb"],
            dice_difference=ours["dice_centres"] - theirs["dice_centres"],
            iou=agreement(regions, outlines),
        )


def agreement(one: Path, other: Path) -> float:
    """IoU of all that is inside the outlines of two GeoJSON files; 1 where both are empty."""
    a, b = (union(path) for path in (one, other))
    either = shapely.union(a, b).area
    return float(shapely.intersection(a, b).area / either) if either else 1.0


def union(path: Path) -> BaseGeometry:
    """All outlines as one region; what crosses itself, as outlines traced without care do, counts even-odd."""
    shapes = [item.geometry for item in read_geojson(path) if item.geometry is not None]
    return shapely.union_all(shapely.make_valid(np.array(shapes, dtype=object)))


def outcome(module: str, *arguments: str) -> dict[str, Any]:
    """What a benchmark says of itself; its line is shown too."""
    command = [sys.executable, "-m", module, *arguments]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    found: dict[str, Any] = json.loads(line)
    return found


def draw(slide: Path, size: int) -> None:
    """A synthetic slide, and its truth on a grid of 16 px beside it."""
    truth = make_slide(slide, width=size, height=size, seed=7)
    grid = Bounds(0, 0, size // SCALE, size // SCALE)
    np.savez_compressed(
        f"{slide}.gt.npz",
        tissue=fill(truth.tissue, grid, SCALE),
        tumour=fill(truth.tumour, grid, SCALE),
        scale=SCALE,
    )


def train(slide: Path, weights: Path) -> None:
    """Some steps on windows of the slide: enough to tell its tumour from its stroma."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    with np.load(f"{slide}.gt.npz") as truth:
        tumour, rows_columns = truth["tumour"], np.argwhere(truth["tissue"])
    image = tifffile.imread(slide, level=0)
    cells = SIDE // SCALE
    net = UNet().train()
    optimiser = torch.optim.AdamW(net.parameters(), PACE)
    # The slow end is what lets the running means of the batch norms catch up with the weights.
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, PACE, total_steps=STEPS)
    for _ in range(STEPS):
        middle = rows_columns[rng.integers(len(rows_columns), size=BATCH)]
        corner = np.clip(middle - cells // 2, 0, np.array(tumour.shape) - cells)
        pixels = np.stack([image[y : y + SIDE, x : x + SIDE] for y, x in corner * SCALE])
        wanted = np.stack([tumour[y : y + cells, x : x + cells] for y, x in corner])
        target = torch.from_numpy(wanted.astype(np.int64)).repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2)
        loss = functional.cross_entropy(net(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255), target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        pace.step()
    torch.save(net.eval().state_dict(), weights)


if __name__ == "__main__":
    main()
