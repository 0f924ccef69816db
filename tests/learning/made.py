"""Tiles, cards and scores for the tests of learning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from shapely.geometry import Point
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.learning.samples import Tile
from wsi_pipeline.learning.scores import Overlap, SlideScore
from wsi_pipeline.models.card import ClassSpec, ModelCard, Provenance
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.states import Source

PINK, VIOLET = (225, 170, 200), (120, 60, 150)
MPP = 0.5

CLASSES = (
    ClassSpec(name="Background", color=(220, 220, 220), background=True),
    ClassSpec(name="Tumor", color=(200, 0, 0)),
)


def annotation(path_class: str | None, geometry: BaseGeometry, kind: Kind = Kind.ANNOTATION) -> PathObject:
    return PathObject(uuid="0", kind=kind, geometry=geometry, path_class=path_class)


def write_slide(path: Path, *, side: int = 1000, seed: int = 0) -> BaseGeometry:
    """A lossless slide of 0.5 µm/px: a pink square of tissue on glass, with a violet disc in it.

    Returns the disc, level-0 pixels.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] + 0.5
    cy, cx = rng.uniform(0.45 * side, 0.55 * side, 2)
    radius = 0.2 * side
    image = np.full((side, side, 3), 255, dtype=np.uint8)
    edge = slice(side // 8, side - side // 8)
    image[edge, edge] = PINK
    image[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = VIOLET
    resolution = (1e4 / MPP, 1e4 / MPP)
    tifffile.imwrite(
        path, image, tile=(128, 128), photometric="rgb", compression="deflate",
        resolution=resolution, resolutionunit="CENTIMETER",
    )  # fmt: skip
    return Point(cx, cy).buffer(radius, quad_segs=64)


def blob_tile(seed: int, slide_id: str = "s", side: int = 128, group: str | None = None) -> Tile:
    """A pink tile with a violet, grainy disc that is the tumour."""
    rng = np.random.default_rng(seed)
    cy, cx, radius = *rng.uniform(0.2 * side, 0.8 * side, 2), rng.uniform(0.2 * side, 0.4 * side)
    y, x = np.mgrid[:side, :side]
    inside = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    image = np.where(inside[..., None], [150.0, 90, 170], [225.0, 170, 200]) + rng.normal(0, 20, (side, side, 3))
    labels = inside.astype(np.uint8)
    return Tile(slide_id, group or slide_id, np.clip(image, 0, 255).astype(np.uint8), labels, Source.SIMULATED)


def score(slide_id: str, dice: float, group: str | None = None, truth: float = 1000.0) -> SlideScore:
    """A score whose Dice is `dice`, with as much wrong as missed."""
    hit = truth * dice
    overlap = Overlap(hit=hit, wrong=truth - hit, missed=truth - hit)
    return SlideScore(slide_id, group or slide_id, 1e6, {"Tumor": overlap})


def empty_score(slide_id: str, wrong: float) -> SlideScore:
    """A score of a slide of 1 mm² that holds nothing."""
    return SlideScore(slide_id, slide_id, 1e6, {"Tumor": Overlap(wrong=wrong)})


def trained_card(name: str, slides: Sequence[str] = (), patients: Sequence[str] = ()) -> ModelCard:
    return ModelCard(
        name=name,
        architecture="unet",
        mpp=1.0,
        halo=48,
        stride=8,
        classes=CLASSES,
        sha256="0" * 64,
        trained_on=Provenance(slides=tuple(slides), patients=tuple(patients)),
    )
