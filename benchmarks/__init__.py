"""Measured comparisons; not tests. Each prints JSON lines, ratios always from one run."""
