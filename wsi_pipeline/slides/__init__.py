"""Slides: open, check, read; tissue, thumbnails and overview pictures."""

from wsi_pipeline.slides.readers import Level
from wsi_pipeline.slides.slide import Slide, open_slide, working_downsample
from wsi_pipeline.slides.tissue import TissueMask, find_tissue

__all__ = ["Level", "Slide", "TissueMask", "find_tissue", "open_slide", "working_downsample"]
