"""Slides with known truth, and a simulated pathologist: for the demo, tests and benchmarks.

Everything made here says so in its data (`source: simulated`); nothing of it is a measurement of people.
"""

from __future__ import annotations

from wsi_pipeline.synthetic.camelyon import DemoCohort, DemoSlide, Role, build_cohort
from wsi_pipeline.synthetic.pathologist import Did, Habits, correct
from wsi_pipeline.synthetic.review import SimulatedEdit, review_project
from wsi_pipeline.synthetic.slide import Painter, Recipe, make_slide
from wsi_pipeline.synthetic.truth import Truth, read_truth

__all__ = [
    "DemoCohort",
    "DemoSlide",
    "Did",
    "Habits",
    "Painter",
    "Recipe",
    "Role",
    "SimulatedEdit",
    "Truth",
    "build_cohort",
    "correct",
    "make_slide",
    "read_truth",
    "review_project",
]
