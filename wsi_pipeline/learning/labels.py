"""From annotations to what each pixel should be, and where nobody knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ClassSpec
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.raster import fill
from wsi_pipeline.states import Source
from wsi_pipeline.tiling import Bounds

UNKNOWN: Final = 255
"""Label of pixels that nobody has reviewed, or that are annotated as to be ignored (`Ignore*`)."""


@dataclass(frozen=True, slots=True)
class AnnotatedSlide:
    """A slide and what people say is on it.

    Attributes
    ----------
    objects
        Level-0 pixels; annotations with a class of the model count, and those of a class `Ignore*`.
    reviewed
        Level-0 area inside which every region of the model's classes is annotated; None: the whole slide.
        Outside of it nothing is learned and nothing is scored.
    source
        Who drew: real people ("measured") or a simulation.
    """

    ref: SlideRef
    objects: tuple[PathObject, ...]
    reviewed: BaseGeometry | None = None
    source: Source = Source.MEASURED

    @property
    def group(self) -> str:
        """The patient, where known; else the slide stands for itself."""
        return self.ref.patient or self.ref.slide_id


def background_of(classes: Sequence[ClassSpec]) -> int:
    """Channel of the background.

    Raises
    ------
    ModelError
        There is none: learning from polygons needs a class for what lies outside of them.
    """
    found = [channel for channel, spec in enumerate(classes) if spec.background]
    if len(found) != 1:
        raise ModelError("training needs one class with `background: true`: what lies outside of all annotations")
    return found[0]


def label_map(
    slide: AnnotatedSlide, bounds: Bounds, downsample: float, classes: Sequence[ClassSpec]
) -> NDArray[np.uint8]:
    """Class channel of each pixel of `bounds`, uint8 (height, width); `UNKNOWN` where nobody knows.

    Where annotations overlap the smaller one wins, as it does for the eye. `Ignore*` wins over all.

    Parameters
    ----------
    bounds
        Working-level pixels.
    downsample
        Level-0 pixels to one of the working level.
    """
    labels = np.full((bounds.height, bounds.width), background_of(classes), dtype=np.uint8)
    channels = {spec.name: channel for channel, spec in enumerate(classes) if not spec.background}
    x, y, right, bottom = (edge * downsample for edge in bounds)
    window = shapely.box(x, y, right, bottom)
    relevant = [
        (ob.path_class, ob.geometry)
        for ob in slide.objects
        if ob.kind is Kind.ANNOTATION and ob.path_class is not None and ob.geometry is not None
    ]
    near = [(name, geometry) for name, geometry in relevant if geometry.intersects(window)]
    for name, geometry in sorted(near, key=lambda pair: -pair[1].area):
        if name in channels:
            labels[fill(geometry, bounds, downsample)] = channels[name]
    for name, geometry in near:
        if is_ignored(name):
            labels[fill(geometry, bounds, downsample)] = UNKNOWN
    if slide.reviewed is not None:
        labels[~fill(slide.reviewed, bounds, downsample)] = UNKNOWN
    return labels


def is_ignored(path_class: str) -> bool:
    """Whether QuPath's convention says that a class is no class: its name begins with `Ignore`."""
    return path_class.startswith("Ignore")
