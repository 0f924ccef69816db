"""The limit of the engine: the model alone, with the runtime that the engine uses, on windows that lie in memory.

    python -m benchmarks.model_alone SLIDE WEIGHTS [--runtime openvino]

`mpx_per_cpu_s` counts the windows with their halos; `inside` leaves the maps of the halos out, as the engine does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.clock import cpu_now, report
from benchmarks.engine import model_of, stated_mpp
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.models import load_segmenter
from wsi_pipeline.models.segmenter import InsideSegmenter
from wsi_pipeline.slides import open_slide
from wsi_pipeline.tiling import Bounds

SIDES = (352, 544, 864, 992)
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--runtime", default="auto")
    options = parser.parse_args()
    slide = options.slide.absolute()
    segmenter = load_segmenter(model_of(options.weights, stated_mpp(slide)), runtime=options.runtime)
    with open_slide(SlideRef("slide", str(slide), slide.name)) as opened:
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


if __name__ == "__main__":
    main()
