"""The regions of one slide: pre-annotations with provenance and measurements."""

from __future__ import annotations

from collections.abc import Sequence

from shapely import Polygon

from wsi_pipeline.config import Regions
from wsi_pipeline.objects import META_CONFIDENCE, META_MODEL, META_RUN, Kind, PathObject, object_uuid
from wsi_pipeline.regions.contours import ProbabilityMap
from wsi_pipeline.regions.samples import Kept
from wsi_pipeline.regions.shapes import ShapeRules
from wsi_pipeline.regions.tracing import Tracer

COARSE_UM = 8.0
"""Map pixels of this side, in µm, are contoured one by one."""


def tracer_of(
    source: ProbabilityMap, classes: int, settings: Regions, *, mpp: float, kept: Kept | None = None
) -> Tracer:
    """What draws the regions of a slide of `mpp` µm per level-0 px while its blocks come in; see `Tracer`."""
    # The map of a classifier of patches is coarse as it is.
    factor = settings.contour_downsample if source.downsample * mpp < COARSE_UM else 1
    rules = ShapeRules.of(settings, mpp)
    return Tracer(source, classes, threshold=settings.threshold, factor=factor, rules=rules, kept=kept)


def extract_regions(
    source: ProbabilityMap,
    classes: Sequence[str],
    settings: Regions,
    *,
    mpp: float,
    run_id: str,
    slide_id: str,
    model_id: str,
    tracer: Tracer | None = None,
) -> list[PathObject]:
    """Polygons of every class, ready to be handed out.

    Parameters
    ----------
    classes
        Names in the order of the map's channels.
    mpp
        µm per level-0 pixel.
    tracer
        Of `tracer_of`, where it was fed while the maps were made; None: all is done now, with the same result.

    Returns
    -------
    Annotations in level-0 px, by class and then from top to bottom. Their uuids depend on run, slide, class
    and geometry alone. Areas in µm², probabilities and entropy from 0 to 1.
    """
    tracer = tracer_of(source, len(classes), settings, mpp=mpp) if tracer is None else tracer
    found: list[PathObject] = []
    for channel, name in enumerate(classes):
        for polygon, values in zip(*tracer.polygons(channel), strict=True):
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
                        **_disagreement(values.mean_mutual_information),
                    },
                    metadata={
                        META_RUN: run_id,
                        META_MODEL: model_id,
                        META_CONFIDENCE: f"{values.confidence:.4f}",
                    },
                )
            )
    return found


def _disagreement(value: float | None) -> dict[str, float]:
    return {} if value is None else {"Mutual information: mean": round(value, 4)}


def _area_um2(polygon: Polygon, mpp: float) -> float:
    return float(polygon.area) * mpp**2
