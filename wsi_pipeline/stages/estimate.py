"""`run --dry-run`: how long and how much disk, before anything is written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_pipeline.cohort import load_cohort
from wsi_pipeline.config import Config
from wsi_pipeline.errors import SlideError
from wsi_pipeline.models import load_card, load_segmenter
from wsi_pipeline.progress import Progress
from wsi_pipeline.slides import find_tissue, open_slide, working_downsample
from wsi_pipeline.stages.predict import check_classes, chosen, model_path_of
from wsi_pipeline.tiling import CELL, working_size

# The model is timed on this many windows of noise: what it sees does not change how long it takes.
TIMED_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """One slide: tissue in mm², megapixels of the working level that the model sees, hours, megabytes."""

    slide_id: str
    tissue_mm2: float
    mpx: float
    hours: float
    disk_mb: float


@dataclass(frozen=True, slots=True)
class CohortEstimate:
    """All slides, and what was measured to get there."""

    rows: tuple[Estimate, ...]
    problems: tuple[str, ...]
    runtime: str
    mpx_per_s: float
    sample_mpx: float

    @property
    def hours(self) -> float:
        return sum(row.hours for row in self.rows)

    @property
    def disk_mb(self) -> float:
        return sum(row.disk_mb for row in self.rows)


def estimate(config: Config, *, limit: int | None, only: Sequence[str] | None, progress: Progress) -> CohortEstimate:
    """Find the tissue of each slide and time the model on this machine.

    Hours are model time for the tissue's cells; reading hides behind it on a local disk. Disk is that of
    uncompressed maps: they compress, by how much depends on the slide.
    """
    path = model_path_of(config)
    card = load_card(path)
    check_classes(config, card)
    mpp = config.inference.mpp or card.mpp
    segmenter = load_segmenter(path, device=config.model.device, runtime=config.model.runtime)
    side = config.inference.window // card.stride * card.stride
    sample = np.random.default_rng(0).integers(0, 255, (1, side, side, 3), np.uint8)
    segmenter.predict(sample)
    start = time.perf_counter()
    for _ in range(TIMED_WINDOWS):
        segmenter.predict(sample)
    sample_mpx = TIMED_WINDOWS * side * side / 1e6
    mpx_per_s = sample_mpx / (time.perf_counter() - start)

    cohort = load_cohort(config)
    problems = [str(problem) for problem in cohort.problems]
    refs = chosen(cohort, only)[:limit]
    rows = []
    progress.begin("estimate", len(refs))
    for ref in refs:
        try:
            with open_slide(ref, needed_mpp=mpp) as slide:
                tissue = find_tissue(slide, config.tissue)
                downsample = working_downsample(slide, mpp)
                cells = tissue.cells(CELL, downsample, slide.size)
                area = tissue.area_um2(slide.mpp) / 1e6
                width, height = working_size(slide.size, downsample)
        except SlideError as error:
            problems.append(str(error))
            progress.finish(ref.slide_id, error.cause)
            continue
        mpx = float(cells.sum()) * CELL * CELL / 1e6 * (1 + 2 * card.halo / side) ** 2 / (1 - (card.blend or 0)) ** 2
        maps = (len(card.foreground) + 1) * width * height / card.output_downsample**2
        rows.append(Estimate(ref.slide_id, area, mpx, mpx / mpx_per_s / 3600, maps / 1e6))
        progress.finish(ref.slide_id, f"{area:.1f} mm² of tissue")
    progress.end()
    return CohortEstimate(tuple(rows), tuple(problems), segmenter.runtime, mpx_per_s, sample_mpx)
