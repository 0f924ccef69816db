"""What a correction changed and what it took: areas, boundaries, time, cost. Pure: nothing here reads or writes files.

Definitions, formulas and sources are in docs/measures.md, test vectors for other programs in tests/vectors.
"""

from __future__ import annotations

from wsi_pipeline.measures.boundary import Boundaries, compare_boundaries, compare_many_boundaries
from wsi_pipeline.measures.cost import not_measured, review_cost
from wsi_pipeline.measures.overlap import Areas, compare_areas, compare_many_areas, region_of, regions_of, union_of
from wsi_pipeline.measures.time import (
    OTHER_CUTOFFS_S,
    ActiveTime,
    Event,
    EventType,
    ImageKey,
    Session,
    active_times,
    rule_text,
)

__all__ = [
    "OTHER_CUTOFFS_S",
    "ActiveTime",
    "Areas",
    "Boundaries",
    "Event",
    "EventType",
    "ImageKey",
    "Session",
    "active_times",
    "compare_areas",
    "compare_boundaries",
    "compare_many_areas",
    "compare_many_boundaries",
    "not_measured",
    "region_of",
    "regions_of",
    "review_cost",
    "rule_text",
    "union_of",
]
