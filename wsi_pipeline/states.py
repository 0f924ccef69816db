"""What a project image says about its own review: metadata that QuPath shows, sorts and keeps."""

from __future__ import annotations

from enum import StrEnum

# Keys of an image's metadata in the QuPath project. The Groovy scripts use the same names.
META_STATE = "wsi_state"
META_SLIDE = "wsi_slide_id"
META_BATCH = "wsi_batch"
META_RATER = "wsi_rater"
META_ARM = "wsi_arm"
META_PRIORITY = "wsi_priority"
META_FLAGS = "wsi_flags"
META_SOURCE = "source"

# A project folder that holds this file is ours: the scripts stay idle everywhere else.
MARKER = "wsi_pipeline.json"
EVENTS = "events"

# Class and name prefix of the review tiles, which are detections so that the brush never touches them.
REVIEW_CLASS = "Review"


class ImageState(StrEnum):
    """How far the review of one project image is."""

    TODO = "todo"
    IN_PROGRESS = "in_progress"
    REVIEWED = "reviewed"
    ADJUDICATED = "adjudicated"
    LOCKED = "locked"

    @property
    def is_reviewed(self) -> bool:
        """Whether untouched objects of the image count as accepted (otherwise nobody has seen them)."""
        return self in {ImageState.REVIEWED, ImageState.ADJUDICATED, ImageState.LOCKED}


class Source(StrEnum):
    """Where a figure comes from; it stands beside every record."""

    MEASURED = "measured"
    SIMULATED = "simulated"
