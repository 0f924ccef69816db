"""Measured comparisons; not tests. Each prints JSON lines, ratios always from one run."""

from wsi_pipeline.start import settle

# As the command does.
settle()
