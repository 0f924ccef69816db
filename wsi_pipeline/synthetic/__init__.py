"""Slides with known truth, and a simulated pathologist: for the demo, tests and benchmarks.

Everything made here says so in its data (`source: simulated`); nothing of it is a measurement of people.
"""

from __future__ import annotations

from wsi_pipeline.synthetic.slide import Painter, Recipe, make_slide
from wsi_pipeline.synthetic.truth import Truth, read_truth

__all__ = ["Painter", "Recipe", "Truth", "make_slide", "read_truth"]
