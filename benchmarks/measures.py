"""What measuring costs: one slide with very long outlines, and a whole cohort collected.

    python -m benchmarks.measures [--slides 1000] [--regions 300]

Limits: 2 s for each measure of 100,000-vertex outlines; a cohort of 1,000 slides with 300 regions each within 10 CPU
minutes (five minutes on two cores) and 2 GiB. The cohort is measured on a part of its slides unless told otherwise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import shapely
from shapely import Point, Polygon
from shapely.geometry.base import BaseGeometry

from benchmarks.clock import clock, peak_mb, report
from wsi_pipeline.collect import collect
from wsi_pipeline.config import Costs, Handout, Review
from wsi_pipeline.handout import HandoutSlide, hand_out
from wsi_pipeline.measures import compare_areas, compare_boundaries
from wsi_pipeline.measures.outline import Outline, distances, samples_of
from wsi_pipeline.measures.overlap import polygons_of
from wsi_pipeline.objects import META_RUN, Kind, PathClass, PathObject, object_uuid
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import META_STATE

MPP = 0.25
RUN_ID = "0123456789abcdef"
# Slides that are handed out at once: what making a cohort takes in memory.
PIECE = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=20)
    parser.add_argument("--regions", type=int, default=300)
    parser.add_argument("--workers", type=int, default=1, help="processes that collect")
    options = parser.parse_args()
    long_outlines()
    cohort(options.slides, options.regions, options.workers)


def wavy(rng: np.random.Generator, x: float, y: float, radius: float, vertices: int, waves: int) -> BaseGeometry:
    """A round shape with a wavy outline, on the grid of 0.01 px."""
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    r = np.full(vertices, float(radius))
    for k in range(2, waves):
        r += radius * rng.normal(0, 0.12 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    shape = Polygon(np.round(np.column_stack([x + r * np.cos(angle), y + r * np.sin(angle)]), 2))
    return shape if shape.is_valid else shapely.make_valid(shape)


def long_outlines() -> None:
    """Outlines of 100,000 vertices against one that was edited, one shaken in every vertex, and another shape."""
    rng = np.random.default_rng(0)
    shape = wavy(rng, 1e5, 1e5, 30_000, 100_000, 200)
    bite = Point(1.3e5, 1e5).buffer(6000)
    points = shapely.get_coordinates(shape)[:-1]
    shaken = shapely.make_valid(Polygon(points + rng.normal(0, 0.3, points.shape)))
    pairs = {
        "edited": shape.difference(bite),
        "shaken": shaken,
        "another": wavy(rng, 1e5, 1e5, 30_000, 100_000, 200),
    }
    for name, other in pairs.items():
        with clock() as areas:
            dice = compare_areas(shape, other, MPP).dice
        with clock() as lines:
            found = compare_boundaries(shape, other, MPP, tolerance_um=2.0)
        report(
            run=f"outlines, {name}",
            vertices=int(shapely.get_num_coordinates(shape)),
            areas_cpu_s=areas.cpu_s,
            boundaries_cpu_s=lines.cpu_s,
            dice=dice,
            surface_dice=found.surface_dice,
            hd95_um=found.hd95,
            off_px=off_by(shape, other),
        )


def off_by(shape: BaseGeometry, other: BaseGeometry) -> float:
    """Largest difference of a sample's distance to an exhaustive search over all segments, in px."""
    a, b, step = Outline.of(polygons_of(shape)), Outline.of(polygons_of(other)), np.array([2.0])
    samples = samples_of(a, step)
    tree = shapely.STRtree(np.asarray(shapely.linestrings(np.stack([b.start, b.end], axis=1)), dtype=object))
    _, exact = tree.query_nearest(shapely.points(samples.points), return_distance=True, all_matches=False)
    return float(np.abs(distances(samples, a, b, step) - exact).max())


def cohort(slides: int, regions: int, workers: int) -> None:
    """Hand out, correct a third of all regions, collect; through real project files, each step in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        for step in (partial(prepared, root, slides, regions), partial(collected, root, workers)):
            process = multiprocessing.get_context("spawn").Process(target=step)
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(process.exitcode)


def prepared(root: Path, slides: int, regions: int) -> None:
    run = RunDir(root)
    with clock() as took:
        for first in range(0, slides, PIECE):
            some = [slide(f"s{i:04d}", regions, seed=i) for i in range(first, min(slides, first + PIECE))]
            hand_out(run, Handout(backend="native"), [PathClass("Tumor", (200, 0, 0))], some)
        correct(run)
    report(run="cohort, made", slides=slides, regions=regions, cpu_s_per_slide=took.cpu_s / slides)


def collected(root: Path, workers: int) -> None:
    with clock() as took:
        found = collect(RunDir(root), Review(), Costs(), workers=workers)
    totals = found.metrics["totals"]
    own, of_worker = peak_mb(), peak_mb(of_children=True) if workers > 1 else 0.0
    report(
        run="cohort, collected",
        slides=totals["slides"],
        edited=totals["counts"]["edited"],
        workers=workers,
        cpu_s=took.cpu_s,
        cpu_s_per_slide=took.cpu_s / totals["slides"],
        limit_cpu_s_per_slide=0.6,
        wall_s=took.wall_s,
        peak_mb=own,
        peak_mb_of_a_worker=of_worker,
        # Pages that processes share count in each: all of them together have less.
        peak_mb_of_all_at_most=own + workers * of_worker,
    )


def slide(slide_id: str, regions: int, seed: int) -> HandoutSlide:
    rng = np.random.default_rng(seed)
    objects = []
    for i in range(regions):
        shape = wavy(rng, 400 + i % 20 * 800, 400 + i // 20 * 800, float(rng.uniform(60, 250)), 150, 8)
        uuid = object_uuid(RUN_ID, slide_id, "Tumor", shape)
        objects.append(PathObject(uuid, Kind.ANNOTATION, shape, "Tumor", metadata={META_RUN: RUN_ID}))
    size = (16_800, 800 * (regions // 20 + 2))
    return HandoutSlide(
        slide_id, f"{slide_id}.tif", f"/slides/{slide_id}.tif", size, MPP, "file", (), None, None, RUN_ID, objects, None
    )


def correct(run: RunDir) -> None:
    project = NativeProject.open(run.project)
    for image in project.images():
        rng = np.random.default_rng(image.entry_id)
        after = []
        for item in image.read_objects():
            draw = rng.random()
            if draw < 0.3 and item.geometry is not None:
                stroke = Point(shapely.get_coordinates(item.geometry)[int(rng.integers(50))]).buffer(40)
                item = replace(item, geometry=item.geometry.union(stroke), measurements={})
            if draw < 0.9:
                after.append(item)
        project.save_objects(image, after)
        project.set_metadata(image, {META_STATE: "reviewed"})
    project.save()


if __name__ == "__main__":
    main()
