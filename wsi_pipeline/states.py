"""What a project image says about its own review: metadata that QuPath shows, sorts and keeps."""

from __future__ import annotations

from collections.abc import Mapping
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
# How many of the image's review tiles are judged, in the review panel's words: "3 of 12 judged, 1 flagged".
META_PROGRESS = "wsi_progress"

# Property in an image's data.qpdata: which handout its objects are of (`handout.held.marker_of`). It is saved with the
# objects, so it comes back with an older state of them, which the metadata in project.qpproj do not.
PROPERTY_HANDOUT = "wsi_handout"

# A project folder that holds this file is ours: the scripts stay idle everywhere else.
MARKER = "wsi_pipeline.json"
EVENTS = "events"

# Class and name prefix of the review tiles, which are detections so that the brush never touches them.
REVIEW_CLASS = "Review"
# Measurement of a review tile that a person has judged; a tile that nobody judged has none.
REVIEW_VERDICT = "Review: verdict"


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


class Verdict(StrEnum):
    """What a person said of a review tile in the panel."""

    ACCEPTED = "accepted"
    FLAGGED = "flagged"


# The panel's numbers: QuPath's measurements hold nothing else.
_VERDICTS = {1.0: Verdict.ACCEPTED, 2.0: Verdict.FLAGGED}


def verdict_of(measurements: Mapping[str, float]) -> Verdict | None:
    """The verdict among the measurements of a review tile; None while nobody has judged it (or took it back)."""
    return _VERDICTS.get(measurements.get(REVIEW_VERDICT, 0.0))


class Source(StrEnum):
    """Where a figure comes from; it stands beside every record."""

    MEASURED = "measured"
    SIMULATED = "simulated"
