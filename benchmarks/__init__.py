"""Measured comparisons; not tests. Each prints JSON lines, ratios always from one run."""

import os

# As the command does, see `wsi_pipeline.cli`.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
