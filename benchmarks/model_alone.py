"""The limit of the engine: the model alone, with the runtime that the engine uses, on windows that lie in memory.

    python -m benchmarks.model_alone SLIDE WEIGHTS [--runtime openvino] [--windows]

`mpx_per_cpu_s` counts the windows with their halos; `inside` leaves the maps of the halos out, as the engine does.
With `--windows` the model is given all windows that the engine would give it for this slide, once: `cpu_s` beside
what `benchmarks.engine` takes after its start says how much of the engine's time is the model's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clock import cpu_now, report
from benchmarks.engine import model_of, stated_mpp
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import Tissue
from wsi_pipeline.inference import EngineSettings
from wsi_pipeline.inference.blocks import batches, cells_of
from wsi_pipeline.inference.compute import BlockArea, HaloComputer, cores, cut
from wsi_pipeline.models import Segmenter, load_segmenter
from wsi_pipeline.models.segmenter import InsideSegmenter
from wsi_pipeline.slides import Slide, find_tissue, open_slide, working_downsample
from wsi_pipeline.tiling import BlockGrid, Bounds, working_size

SIDES = (352, 544, 864, 992)
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--windows", action="store_true", help="the engine's windows of this slide, each once")
    options = parser.parse_args()
    slide = options.slide.absolute()
    segmenter = load_segmenter(model_of(options.weights, stated_mpp(slide)), runtime=options.runtime)
    with open_slide(SlideRef("slide", str(slide), slide.name)) as opened:
        if options.windows:
            report(**engine_windows(opened, segmenter))
            return
        image = opened.read(Bounds(0, 0, max(SIDES), max(SIDES)), 1.0)
    for side in SIDES:
        window = np.ascontiguousarray(image[None, :side, :side])
        ways = {"whole": segmenter.predict}
        if isinstance(segmenter, InsideSegmenter):
            inside, halo = segmenter.predict_inside, segmenter.card.halo
            ways["inside"] = lambda images: inside(images, halo)  # noqa: B023 - called in this turn of the loop only
        for name, predict in ways.items():
            predict(window)
            best = float("inf")
            for _ in range(REPEATS):
                start = cpu_now()
                predict(window)
                best = min(best, cpu_now() - start)
            report(run=f"{segmenter.runtime}, {name}", side=side, mpx_per_cpu_s=side**2 / 1e6 / best)


def engine_windows(slide: Slide, segmenter: Segmenter) -> dict[str, Any]:
    """CPU seconds of the model for the windows that the engine computes, reading and cutting left out."""
    card, settings = segmenter.card, EngineSettings()
    downsample = working_downsample(slide, card.mpp)
    width, height = working_size(slide.size, downsample)
    cells = find_tissue(slide, Tissue()).cells(card.cell, downsample, slide.size)
    computer = HaloComputer(segmenter, window=settings.window, batch=0)
    grid = BlockGrid(width, height, -(-settings.block // card.cell) * card.cell)
    right, bottom = (-(-side // card.stride) * card.stride for side in (width, height))
    cpu_s, pixels, count = 0.0, 0, 0
    segmenter.predict(np.zeros((1, 8 * card.stride, 8 * card.stride, 3), np.uint8))
    for row, column in grid:
        inside = cells_of(cells, row, column, grid.block // card.cell)
        for region in computer.plan(BlockArea(grid.bounds(row, column), inside, card.cell, (right, bottom))):
            image = slide.read(region.bounds, downsample)
            for batch in batches([(0, window) for window in region.windows], 0):
                images = np.stack([cut(image, region.bounds, window.bounds) for _, window in batch])
                start = cpu_now()
                cores(segmenter, images, batch[0][1].halo)
                cpu_s += cpu_now() - start
                pixels += images[..., 0].size
                count += len(images)
    return {"run": f"{segmenter.runtime}, the engine's windows", "windows": count, "mpx": pixels / 1e6, "cpu_s": cpu_s}


if __name__ == "__main__":
    main()
