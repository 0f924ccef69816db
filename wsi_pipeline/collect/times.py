"""From event logs to the active time of each handed-out slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from wsi_pipeline.collect.events import read_logs
from wsi_pipeline.collect.tables import write_table
from wsi_pipeline.config import Review
from wsi_pipeline.handout import Plan
from wsi_pipeline.measures import CAPS_S, RULE, active_times
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import EVENTS, Source


@dataclass(frozen=True, slots=True)
class ImageTime:
    """One row of time.parquet: active seconds of one rater on one slide, with the configured cut-off and two others."""

    slide_id: str
    batch: str
    rater: str
    active_s: float
    active_s_cap60: float
    active_s_cap100: float
    visits: int
    cap_s: float
    time_source: str
    source: str
    rule: str


def times_of(run: RunDir, plan: Plan, review: Review) -> tuple[list[ImageTime], list[str]]:
    """Times of a batch's slides from the event logs in its project, and what was odd in them, in plain words.

    Only logs of the batch's own rater count; those of others are listed.
    """
    folder = (run.root / plan.project).parent / EVENTS
    logs, problems = read_logs(folder)
    own = [log for log in logs if log.rater == plan.rater]
    problems += [
        f"events/{log.session.name}: was written by {log.rater}, not by {plan.rater}; its time is left out"
        for log in logs
        if log.rater != plan.rater
    ]
    caps = sorted({*CAPS_S, review.idle_s})
    times, anomalies = active_times([log.session for log in own], caps)
    problems += [f"events/{a.session}: image {a.image or '–'}: {a.kind}; {a.treatment}" for a in anomalies]
    source = Source.SIMULATED if any(log.source is Source.SIMULATED for log in own) else Source.MEASURED
    slides = {str(slide.entry_id): slide.slide_id for slide in plan.slides}
    rows = [
        ImageTime(
            slide_id=slides[image],
            batch=plan.batch,
            rater=plan.rater,
            active_s=time.seconds[review.idle_s],
            active_s_cap60=time.seconds[60.0],
            active_s_cap100=time.seconds[100.0],
            visits=time.visits,
            cap_s=review.idle_s,
            time_source="events" if source is Source.MEASURED else "simulated",
            source=str(source),
            rule=RULE,
        )
        for image, time in times.items()
        if image in slides
    ]
    return sorted(rows, key=lambda row: row.slide_id), problems


_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("slide_id", "batch", "rater"), pa.string()),
    **dict.fromkeys(("active_s", "active_s_cap60", "active_s_cap100"), pa.float64()),
    "visits": pa.int32(),
    "cap_s": pa.float64(),
    **dict.fromkeys(("time_source", "source", "rule"), pa.string()),
}


def write_times(path: Path, times: Sequence[ImageTime]) -> None:
    """Write time.parquet; the same rows give the same bytes."""
    write_table(path, [asdict(time) for time in times], _TYPES)
