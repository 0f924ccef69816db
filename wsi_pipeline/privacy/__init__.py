"""What a run directory gives away about patients and people: finding it, forgetting it, and letting it expire."""

from __future__ import annotations

from wsi_pipeline.privacy.forget import Forgotten, forget_rater, forget_slide
from wsi_pipeline.privacy.patterns import Known
from wsi_pipeline.privacy.retention import expire_events
from wsi_pipeline.privacy.scan import Finding, scan

__all__ = ["Finding", "Forgotten", "Known", "expire_events", "forget_rater", "forget_slide", "scan"]
