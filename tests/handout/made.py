"""Runs that are ready to be handed out: real files, slides as small pyramids, regions with provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from shapely import Point
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.config import Costs, Handout, Review
from wsi_pipeline.handout import HandoutResult, HandoutSlide, hand_out
from wsi_pipeline.objects import META_CONFIDENCE, META_MODEL, META_RUN, Kind, PathClass, PathObject, object_uuid
from wsi_pipeline.qupath.native_project import NativeImage, NativeProject
from wsi_pipeline.regions import ReviewTile, tile_objects
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import META_SLIDE, META_STATE

SIZE = (4000, 3000)
MPP = 0.5
RUN_ID = "0123456789abcdef"
CLASSES = (PathClass("Tumor", (200, 0, 0)), PathClass("Stroma", (150, 200, 150)))
SETTINGS = Handout(backend="native", classes=("Necrosis",))
REVIEW = Review()
COSTS = Costs()


def region(
    slide_id: str, x: float, y: float = 500.0, radius: float = 80.0, name: str = "Tumor", run_id: str = RUN_ID
) -> PathObject:
    """A pre-annotation as `regions` makes them."""
    shape: BaseGeometry = shapely.set_precision(Point(x, y).buffer(radius), 0.01)
    return PathObject(
        uuid=object_uuid(run_id, slide_id, name, shape),
        kind=Kind.ANNOTATION,
        geometry=shape,
        path_class=name,
        measurements={"Area µm^2": float(shape.area) * MPP**2, "Confidence": 0.9},
        metadata={META_RUN: run_id, META_MODEL: "unet@1", META_CONFIDENCE: "0.9000"},
    )


def tiles(slide_id: str, count: int, run_id: str = RUN_ID) -> list[PathObject]:
    rows = [
        ReviewTile(slide_id, 512 * i, 0, 512, 512, 0.9, 0.3, 0.5, 0.6, 0.5 / rank, rank, True, "border unclear")
        for rank, i in enumerate(range(count), start=1)
    ]
    return tile_objects(rows, run_id=run_id)


def slide(
    folder: Path,
    slide_id: str = "s1",
    *,
    regions: Sequence[PathObject] | None = None,
    flagged: int = 2,
    run_id: str = RUN_ID,
) -> HandoutSlide:
    """A slide with three regions of tumour, unless told otherwise."""
    given = [region(slide_id, x, run_id=run_id) for x in (500, 1200, 1900)] if regions is None else list(regions)
    return HandoutSlide(
        slide_id=slide_id,
        name=f"{slide_id}.tif",
        uri=str(folder / "slides" / f"{slide_id}.tif"),
        size=SIZE,
        mpp=MPP,
        mpp_source="file",
        levels=(),
        crop=None,
        patient=f"P-{slide_id}",
        run_id=run_id,
        objects=[*given, *tiles(slide_id, flagged, run_id)],
        thumbnail=np.full((30, 40, 3), 230, np.uint8),
    )


def handed_out(folder: Path, *slides: HandoutSlide, settings: Handout = SETTINGS) -> tuple[RunDir, HandoutResult]:
    run = RunDir(folder / "run")
    return run, hand_out(run, settings, CLASSES, slides or [slide(folder)])


def project_of(run: RunDir, *, read_only: bool = False) -> NativeProject:
    return NativeProject.open(run.project, read_only=read_only)


def image_of(project: NativeProject, slide_id: str = "s1") -> NativeImage:
    return next(image for image in project.images() if image.metadata[META_SLIDE] == slide_id)


def objects_of(run: RunDir, slide_id: str = "s1") -> list[PathObject]:
    return image_of(project_of(run, read_only=True), slide_id).read_objects()


def annotations_of(run: RunDir, slide_id: str = "s1") -> list[PathObject]:
    return [o for o in objects_of(run, slide_id) if o.kind is Kind.ANNOTATION]


def save(run: RunDir, objects: Sequence[PathObject], slide_id: str = "s1", state: str | None = None) -> None:
    """What the pathologist's QuPath does: all objects of the image are saved, and its state is set."""
    project = project_of(run)
    project.save_objects(image_of(project, slide_id), objects)
    if state is not None:
        project.set_metadata(image_of(project, slide_id), {META_STATE: state})
    project.save()


def set_state(run: RunDir, state: str, slide_id: str = "s1") -> None:
    project = project_of(run)
    project.set_metadata(image_of(project, slide_id), {META_STATE: state})
    project.save()


def brushed(item: PathObject, by: float = 30.0) -> PathObject:
    """What a stroke of the brush leaves: same uuid and metadata, no measurements."""
    assert item.geometry is not None
    x, y = shapely.get_coordinates(item.geometry)[0]
    return replace(item, geometry=item.geometry.union(Point(x, y).buffer(by)), measurements={})


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
