"""Where times come from besides the project's own event logs; each reader gives sessions, or reports of one image.

Readers take text and read no file. What they cannot read they say in plain words, and go on.
"""

from __future__ import annotations

from wsi_pipeline.measures.time_sources.exact import Export, read_export, session_of
from wsi_pipeline.measures.time_sources.self_report import Report, read_reports
from wsi_pipeline.measures.time_sources.timestamps import is_timestamps, read_timestamps
from wsi_pipeline.measures.time_sources.view_tracker import read_recording

__all__ = [
    "Export",
    "Report",
    "is_timestamps",
    "read_export",
    "read_recording",
    "read_reports",
    "read_timestamps",
    "session_of",
]
