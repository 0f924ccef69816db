"""How much QuPath can hold before the pathologist feels it."""

from __future__ import annotations

from collections.abc import Sequence

import shapely

from wsi_pipeline.objects import Kind, PathObject

# QuPath serialises the whole hierarchy at each change for its undo, and switches undo off above 10,000 objects.
MOST_ANNOTATIONS = 500
MOST_VERTICES = 200_000
MOST_OBJECTS = 5_000


def over_budget(objects: Sequence[PathObject]) -> list[str]:
    """What is too much in one image, in plain words with a remedy; empty when QuPath will be quick."""
    annotations = [o for o in objects if o.kind is Kind.ANNOTATION]
    vertices = int(sum(shapely.get_num_coordinates(o.geometry) for o in objects if o.geometry is not None))
    found = []
    if len(annotations) > MOST_ANNOTATIONS:
        found.append(f"{len(annotations)} annotations (above {MOST_ANNOTATIONS}): raise `regions.min_area_um2`")
    if vertices > MOST_VERTICES:
        found.append(f"{vertices} vertices (above {MOST_VERTICES}): raise `regions.simplify_um`")
    if len(objects) > MOST_OBJECTS:
        found.append(f"{len(objects)} objects (above {MOST_OBJECTS}, where undo gets slow): flag fewer tiles")
    return found
