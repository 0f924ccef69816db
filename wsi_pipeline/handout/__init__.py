"""Handing out: the plan, the snapshot that corrections are compared with, and the QuPath project."""

from wsi_pipeline.handout.batches import batches_alone
from wsi_pipeline.handout.budget import over_budget
from wsi_pipeline.handout.held import handout_held
from wsi_pipeline.handout.images import HandoutResult, HandoutSlide, state_of
from wsi_pipeline.handout.plan import BATCH, HandedOutSlide, Plan, plan_path, read_plan, read_plans, run_of, snapshot_of
from wsi_pipeline.handout.planted import PlantedObjects, plant, planted_in, repaired
from wsi_pipeline.handout.study import Case, Design, PlannedSlide, StudyBatch
from wsi_pipeline.handout.study_files import Study, extend_study, note_handout, read_study, waits_for, write_study
from wsi_pipeline.handout.write import Part, hand_out

__all__ = [
    "BATCH",
    "Case",
    "Design",
    "HandedOutSlide",
    "HandoutResult",
    "HandoutSlide",
    "Part",
    "Plan",
    "PlannedSlide",
    "PlantedObjects",
    "Study",
    "StudyBatch",
    "batches_alone",
    "extend_study",
    "hand_out",
    "handout_held",
    "note_handout",
    "over_budget",
    "plan_path",
    "plant",
    "planted_in",
    "read_plan",
    "read_plans",
    "read_study",
    "repaired",
    "run_of",
    "snapshot_of",
    "state_of",
    "waits_for",
    "write_study",
]
