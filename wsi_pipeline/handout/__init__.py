"""Handing out: the plan, the snapshot that corrections are compared with, and the QuPath project."""

from wsi_pipeline.handout.budget import over_budget
from wsi_pipeline.handout.images import HandoutResult, HandoutSlide, state_of
from wsi_pipeline.handout.plan import BATCH, HandedOutSlide, Plan, read_plan, read_plans, snapshot_of
from wsi_pipeline.handout.write import hand_out

__all__ = [
    "BATCH",
    "HandedOutSlide",
    "HandoutResult",
    "HandoutSlide",
    "Plan",
    "hand_out",
    "over_budget",
    "read_plan",
    "read_plans",
    "snapshot_of",
    "state_of",
]
