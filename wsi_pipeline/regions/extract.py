"""The regions of one slide: pre-annotations with provenance and measurements."""

from __future__ import annotations

from collections.abc import Sequence

from shapely import Polygon

from wsi_pipeline.config import Regions
from wsi_pipeline.objects import META_CONFIDENCE, META_MODEL, META_RUN, Kind, PathObject, object_uuid
from wsi_pipeline.regions.contours import ProbabilityMap, class_polygons, level_of
from wsi_pipeline.regions.measurements import measure_all
from wsi_pipeline.regions.shapes import ShapeRules, tidy

COARSE_UM = 8.0
"""Map pixels of this side, in µm, are contoured one by one."""


def extract_regions(
    source: ProbabilityMap,
    classes: Sequence[str],
    settings: Regions,
    *,
    mpp: float,
    run_id: str,
    slide_id: str,
    model_id: str,
) -> list[PathObject]:
    """Polygons of every class, ready to be handed out.

    Parameters
    ----------
    classes
        Names in the order of the map's channels.
    mpp
        µm per level-0 pixel.

    Returns
    -------
    Annotations in level-0 px, by class and then from top to bottom. Their uuids depend on run, slide, class
    and geometry alone. Areas in µm², probabilities and entropy from 0 to 1.
    """
    # The map of a classifier of patches is coarse as it is.
    factor = settings.contour_downsample if source.downsample * mpp < COARSE_UM else 1
    level = level_of(settings.threshold)
    rules = ShapeRules.of(settings, mpp)
    found: list[PathObject] = []
    for channel, name in enumerate(classes):
        raw = class_polygons(source, channel, settings.threshold, factor)
        polygons = tidy(raw, rules)
        measured = measure_all(source, channel, polygons, factor=factor, level=level)
        for polygon, values in zip(polygons, measured, strict=True):
            found.append(
                PathObject(
                    uuid=object_uuid(run_id, slide_id, name, polygon),
                    kind=Kind.ANNOTATION,
                    geometry=polygon,
                    path_class=name,
                    measurements={
                        "Area µm^2": round(_area_um2(polygon, mpp), 3),
                        "Probability: mean": round(values.mean_probability, 4),
                        "Probability: min": round(values.min_probability, 4),
                        "Entropy: mean": round(values.mean_entropy, 4),
                        "Margin: mean": round(values.margin, 4),
                        "Confidence": round(values.confidence, 4),
                    },
                    metadata={
                        META_RUN: run_id,
                        META_MODEL: model_id,
                        META_CONFIDENCE: f"{values.confidence:.4f}",
                    },
                )
            )
    return found


def _area_um2(polygon: Polygon, mpp: float) -> float:
    return float(polygon.area) * mpp**2
