"""A study that nobody ever read: many slides, three raters, handed out, corrected and collected by programs.

    python -m benchmarks.simulated_study DIR [--slides 200] [--done 0.7]

Slides are painted, suggestions are the truth with errors, and a simulated pathologist corrects through the project's
files, with event logs. Each rater gets each slide in both arms; the second round is done up to `--done`. Everything is
marked `source: simulated`: the report shows what one looks like, and says nothing about people or a model.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from shapely import Point
from shapely.affinity import scale
from shapely.geometry.base import BaseGeometry

from benchmarks.clock import clock, peak_mb, report
from wsi_pipeline.collect import CollectResult, collect
from wsi_pipeline.config import Costs, Handout, Privacy, Review
from wsi_pipeline.files import write_json
from wsi_pipeline.handout import Design, HandoutSlide, PlannedSlide, StudyBatch, extend_study, read_study, write_study
from wsi_pipeline.objects import META_RUN, Kind, PathClass, PathObject, object_uuid
from wsi_pipeline.qupath.geojson import write_geojson
from wsi_pipeline.regions.tiles import ReviewTile, write_tiles
from wsi_pipeline.report import write_report
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.handout import hand_out_study
from wsi_pipeline.states import EVENTS
from wsi_pipeline.synthetic import Habits, Painter, Recipe, Truth, review_project
from wsi_pipeline.synthetic.diary import EPOCH_MS
from wsi_pipeline.synthetic.truth import COLORS, TUMOUR_CLASS
from wsi_pipeline.tiling import Bounds

RUN_ID = "51a0d1ed57bd7000"
RATERS = ("rater-1", "rater-2", "rater-3")
# How these three differ: what they let pass, and what they overlook.
HABITS: Mapping[str, Habits] = {
    "rater-1": Habits(tolerance_um=8, overlooks=0.05, jitter_um=2, forgets_class=0.02),
    "rater-2": Habits(tolerance_um=14, overlooks=0.1, jitter_um=3, forgets_class=0.02),
    "rater-3": Habits(tolerance_um=10, overlooks=0.15, jitter_um=2, forgets_class=0.02),
}
SETTINGS = Handout.model_validate(
    {
        "backend": "native",
        "raters": RATERS,
        "arms": ("assisted", "manual"),
        "design": "crossover",
        "planted": {"share": 0.06, "kinds": ("fake", "missing", "boundary")},
    }
)
COSTS = Costs(currency="EUR", pathologist_per_hour=120, set_up=4000)
REVIEW = Review()
PICTURE = (640, 448)
ZOOM = 8  # level-0 px to a pixel of the picture
MPP = 0.5
TILE = 512
FLAGGED = 4
DAY_MS = 86_400_000
PER_DAY = 10
TISSUES = ("lymph node", "breast", "colon")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new folder for the run")
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--done", type=float, default=0.7, help="share of the second round that is done")
    parser.add_argument("--workers", type=int, default=1, help="processes that collect")
    options = parser.parse_args()
    run = RunDir(options.folder)
    with clock() as made:
        simulate(run, options.slides, options.done)
    with clock() as collected:
        found = collect(run, REVIEW, COSTS, workers=options.workers)
    with clock() as written:
        path = write_report(run, Privacy(raters_in_report=True))
    report(
        run="simulated study",
        slides=options.slides,
        images=len(found.metrics["images"]),
        made_cpu_s=made.cpu_s,
        collect_cpu_s=collected.cpu_s,
        report_cpu_s=written.cpu_s,
        report_mb=path.stat().st_size / 1e6,
        peak_mb=peak_mb(),
        saving=found.metrics["saving"].get("ratio"),
    )


def simulate(run: RunDir, slides: int, done: float = 0.7) -> None:
    """Everything up to the last correction; `run` must not be there yet.

    Raises
    ------
    FileExistsError
        The folder is not empty: nothing of anybody's is mixed with what is made up.
    """
    if run.root.is_dir() and any(run.root.iterdir()):
        raise FileExistsError(f"{run.root} is not empty")
    made = [_made(run, number) for number in range(slides)]
    _write_run(run, made)
    planned = [PlannedSlide(item.slide.slide_id, item.tissue) for item in made]
    design = Design.of(SETTINGS)
    study = read_study(run)
    study = write_study(run, study, design, extend_study(study, design, planned, SETTINGS.batch_size))
    hand_out_study(
        run,
        SETTINGS,
        [PathClass(TUMOUR_CLASS, COLORS[TUMOUR_CLASS])],
        {item.slide.slide_id: item.slide for item in made},
        [(batch, None) for batch in study.batches],
    )
    truths = {item.slide.slide_id: item.truth for item in made}
    for batch in study.batches:
        _review(run, batch, truths, 1.0 if not batch.after else done)


def collected(run: RunDir) -> CollectResult:
    """What `collect` finds at the study's own rates."""
    return collect(run, REVIEW, COSTS)


@dataclass(frozen=True, slots=True)
class Made:
    """One slide: what is handed out of it, and what is in it."""

    slide: HandoutSlide
    truth: Truth
    tissue: str


def _made(run: RunDir, number: int) -> Made:
    """Paint a slide, predict with errors, and write what a prediction leaves in the run directory."""
    rng = np.random.default_rng([17, number])
    slide_id = f"case-{number + 1:03d}"
    painter = Painter(
        Recipe(
            *PICTURE,
            seed=number,
            mpp=MPP * ZOOM,
            tissue_share=float(rng.uniform(0.3, 0.55)),
            tumour_share=float(rng.beta(1.6, 5)),
        )
    )
    picture = painter.read(Bounds(0, 0, *PICTURE))
    tissue, tumour = (
        shapely.set_precision(scale(shape, ZOOM, ZOOM, origin=(0, 0)), 0.01)
        for shape in (painter.truth.tissue, painter.truth.tumour)
    )
    truth = Truth((PICTURE[0] * ZOOM, PICTURE[1] * ZOOM), MPP, tissue, tumour)
    objects = [_object(slide_id, shape) for shape in suggestions(rng, truth)]
    _write_slide(run, slide_id, picture, truth, objects, rng)
    return Made(
        HandoutSlide(
            slide_id=slide_id,
            name=f"{slide_id}.tif",
            uri=f"/slides/{slide_id}.tif",
            size=truth.size,
            mpp=MPP,
            mpp_source="file",
            levels=(),
            crop=None,
            patient=f"P{number // 2 + 1:03d}",
            run_id=RUN_ID,
            objects=objects,
            thumbnail=picture,
        ),
        truth,
        TISSUES[number % len(TISSUES)],
    )


def suggestions(rng: np.random.Generator, truth: Truth) -> list[BaseGeometry]:
    """The truth as a model of middling quality shows it: borders off, pieces missed, and what is none called tumour."""
    shapes: list[BaseGeometry] = []
    for part in shapely.get_parts(truth.tumour):
        if rng.random() < 0.1 or part.area * MPP**2 < 2000:
            continue
        shape = part.buffer(float(rng.normal(0, 6)) / MPP)
        if rng.random() < 0.45:
            x, y = shapely.get_coordinates(part.exterior)[int(rng.integers(len(part.exterior.coords)))]
            bite = Point(x, y).buffer(float(rng.uniform(30, 90)) / MPP)
            shape = shape.difference(bite) if rng.random() < 0.6 else shape.union(bite)
        shapes += shapely.get_parts(shape.intersection(truth.tissue)).tolist()
    left, top, right, bottom = truth.tissue.bounds
    for _ in range(int(rng.poisson(0.9))):
        centre = Point(float(rng.uniform(left, right)), float(rng.uniform(top, bottom)))
        wrong = centre.buffer(float(rng.uniform(40, 140)) / MPP).intersection(truth.tissue)
        shapes += shapely.get_parts(wrong.difference(truth.tumour.buffer(20))).tolist()
    merged = shapely.union_all([shape for shape in shapes if shape.geom_type == "Polygon"])
    parts = [shapely.set_precision(part.simplify(1.0), 0.01) for part in shapely.get_parts(merged)]
    return [part for part in parts if part.geom_type == "Polygon" and part.area * MPP**2 >= 2000]


def _object(slide_id: str, shape: BaseGeometry) -> PathObject:
    uuid = object_uuid(RUN_ID, slide_id, TUMOUR_CLASS, shape)
    return PathObject(uuid, Kind.ANNOTATION, shape, TUMOUR_CLASS, metadata={META_RUN: RUN_ID})


def _write_slide(
    run: RunDir,
    slide_id: str,
    picture: NDArray[np.uint8],
    truth: Truth,
    objects: Sequence[PathObject],
    rng: np.random.Generator,
) -> None:
    folder = run.slide(slide_id)
    folder.root.mkdir(parents=True)
    Image.fromarray(picture).save(folder.thumbnail, quality=85)
    write_geojson(folder.regions, objects, COLORS)
    tiles = _tiles(slide_id, truth, shapely.union_all([o.geometry for o in objects]), rng)
    write_tiles(folder.tiles, tiles)
    area = sum(o.geometry.area for o in objects if o.geometry is not None) * MPP**2 / 1e6
    summary = {
        "schema": 1,
        "run_id": RUN_ID,
        "slide_id": slide_id,
        "width": truth.size[0],
        "height": truth.size[1],
        "mpp": MPP,
        "downsample": float(ZOOM),
        "tissue_mm2": truth.tissue.area * MPP**2 / 1e6,
        "regions": len(objects),
        "vertices": int(sum(shapely.get_num_coordinates(o.geometry) for o in objects)),
        "area_mm2": {TUMOUR_CLASS: area},
        "blocks": {"done": 1, "background": 0, "failed": 0},
        "flags": [],
        "tiles_flagged": sum(tile.flagged for tile in tiles),
    }
    write_json(folder.summary, summary)


def _tiles(slide_id: str, truth: Truth, predicted: BaseGeometry, rng: np.random.Generator) -> list[ReviewTile]:
    """A grid of tiles, doubted about where the suggestions are wrong, but not exactly there."""
    wrong = predicted.symmetric_difference(truth.tumour)
    found = []
    for y in range(0, truth.size[1], TILE):
        for x in range(0, truth.size[0], TILE):
            square = shapely.box(x, y, x + TILE, y + TILE)
            tissue = square.intersection(truth.tissue).area
            if tissue < 0.05 * square.area:
                continue
            doubt = wrong.intersection(square).area * rng.lognormal(0, 0.8) + tissue * rng.beta(1, 40)
            found.append((min(doubt, tissue) * MPP**2, x, y, tissue, predicted.intersection(square).area))
    found.sort(reverse=True)
    rest = range(FLAGGED, len(found))
    drawn = set(rng.choice(rest, size=min(2, len(rest)), replace=False).tolist()) if rest else set()
    return [
        ReviewTile(
            slide_id=slide_id,
            x=x,
            y=y,
            width=TILE,
            height=TILE,
            tissue_share=tissue / TILE**2,
            predicted_share=shown / tissue,
            mean_probability=shown / tissue,
            mean_uncertainty=min(1.0, score / MPP**2 / tissue),
            score=score,
            rank=rank + 1,
            flagged=rank < FLAGGED,
            reason="border unclear"
            if 0 < shown < 0.95 * tissue
            else "all Tumor, but not surely"
            if shown
            else "nothing predicted, yet Tumor is possible",
            audit=rank in drawn,
            audit_chance=2 / len(rest) if rank in rest else 0.0,
        )
        for rank, (score, x, y, tissue, shown) in enumerate(found)
    ]


def _write_run(run: RunDir, made: Sequence[Made]) -> None:
    colour = list(COLORS[TUMOUR_CLASS])
    slides = {
        item.slide.slide_id: {
            "state": "done",
            "uri": item.slide.uri,
            "name": item.slide.name,
            "reason": None,
            "width": item.slide.size[0],
            "height": item.slide.size[1],
            "mpp": MPP,
            "mpp_source": "file",
            "patient": item.slide.patient,
            "site": None,
            "scanner": None,
            "tissue": item.tissue,
        }
        for item in made
    }
    record = {
        "schema": 1,
        "run_id": RUN_ID,
        "config": {"review": REVIEW.model_dump(mode="json"), "costs": COSTS.model_dump(mode="json")},
        "versions": {},
        "model": {
            "id": "simulated",
            "name": "simulated suggestions",
            "classes": [{"name": TUMOUR_CLASS, "color": colour}],
        },
        "runtime": {},
        "slides": slides,
    }
    write_json(run.run_json, record)


def _review(run: RunDir, batch: StudyBatch, truths: Mapping[str, Truth], done: float) -> None:
    """The rater's work on a batch; the second round begins six weeks after the first."""
    cases = batch.cases[: round(done * len(batch.cases))]
    path = run.root / batch.project
    review_project(
        path,
        {case.slide_id: truths[case.slide_id] for case in cases},
        seed=RATERS.index(batch.rater),
        habits=HABITS[batch.rater],
        start_ms=EPOCH_MS + (42 * DAY_MS if batch.after else 0),
        per_day=PER_DAY,
    )
    if batch.rater == RATERS[1] and batch.after:
        # The log of one day is lost, as logs are: its images have no time.
        lost = sorted((path.parent / EVENTS).glob("*.jsonl"))
        if len(lost) > 1:
            lost[0].unlink()


if __name__ == "__main__":
    main()
