"""What stays of event logs that were deleted: active time per slide, and the day of the last action.

`privacy.keep_events_days` deletes raw logs; a later `collect` adds what is here to the times of the logs that remain.
Pauses between a log that is gone and one that remains are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from wsi_pipeline.collect.times import ImageTime, write_times
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import Source

SCHEMA_VERSION = 1


def kept_path(run: RunDir) -> Path:
    return run.review / "kept" / "time.parquet"


def _days_path(run: RunDir) -> Path:
    return run.review / "kept" / "days.json"


def kept_times(run: RunDir) -> list[ImageTime]:
    """Times of logs that are gone; an empty list where none was deleted."""
    path = kept_path(run)
    if not path.is_file():
        return []
    names = [field.name for field in fields(ImageTime)]
    try:
        rows = pq.read_table(path).to_pylist()
        return [ImageTime(**{name: row[name] for name in names}) for row in rows]
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path} cannot be read: {error}; restore it from a backup") from error


def kept_days(run: RunDir) -> dict[str, date]:
    """The last day on which each slide was worked on, by logs that are gone."""
    path = _days_path(run)
    if not path.is_file():
        return {}
    return {slide_id: date.fromisoformat(day) for slide_id, day in read_json(path)["days"].items()}


def keep(run: RunDir, times: Sequence[ImageTime], days: Mapping[str, date]) -> None:
    """Add to what is kept; to be called before the logs are deleted."""
    write_times(kept_path(run), with_times(kept_times(run), times))
    known = kept_days(run)
    merged = {s: max(d for d in (known.get(s), days.get(s)) if d is not None) for s in {*known, *days}}
    write_json(_days_path(run), {"schema": SCHEMA_VERSION, "days": {s: d.isoformat() for s, d in merged.items()}})


def with_times(first: Sequence[ImageTime], second: Sequence[ImageTime]) -> list[ImageTime]:
    """Times of two disjoint sets of logs: seconds and visits of the same slide, batch and rater are added."""
    merged: dict[tuple[str, str, str], ImageTime] = {}
    for time in (*first, *second):
        key = (time.slide_id, time.batch, time.rater)
        merged[key] = _sum(merged[key], time) if key in merged else time
    return [merged[key] for key in sorted(merged)]


def _sum(one: ImageTime, other: ImageTime) -> ImageTime:
    added = [f.name for f in fields(ImageTime) if f.name.startswith("active_s") or f.name == "visits"]
    changes: dict[str, Any] = {name: getattr(one, name) + getattr(other, name) for name in added}
    # Anything simulated makes the whole simulated.
    simulated = next((time for time in (one, other) if time.source == Source.SIMULATED), one)
    return replace(simulated, **changes)
