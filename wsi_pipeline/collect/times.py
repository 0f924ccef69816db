"""From event logs to the active time of each handed-out slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from wsi_pipeline.collect.events import read_logs
from wsi_pipeline.collect.tables import write_table
from wsi_pipeline.config import Review
from wsi_pipeline.handout import Plan
from wsi_pipeline.measures import OTHER_CUTOFFS_S, Session, active_times, rule_text
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import EVENTS, Source


@dataclass(frozen=True, slots=True)
class ImageTime:
    """One row of time.parquet: active seconds of one rater on one slide, by the configured cut-off and three others."""

    slide_id: str
    patient: str | None
    batch: str
    rater: str
    arm: str
    position: int | None
    repeat: bool
    active_s: float
    active_s_cap60: float
    active_s_cap100: float
    active_s_cap300: float
    visits: int
    cap_s: float
    time_source: str
    source: str
    rule: str


def logs_of(run: RunDir, plan: Plan) -> tuple[list[Session], list[str]]:
    """All event logs in a batch's project, and what was odd in them, in plain words."""
    return read_logs((run.root / plan.project).parent / EVENTS, plan.project)


def times_of(sessions: Sequence[Session], plan: Plan, review: Review) -> tuple[list[ImageTime], list[str]]:
    """Times of a batch's slides, and what was odd, in plain words.

    Only logs of the batch's own rater count; those of others are listed.
    """
    own = [session for session in sessions if session.rater == plan.rater]
    problems = [
        f"events/{log}: was written by {rater}, not by {plan.rater}; its time is left out"
        for log, rater in sorted({(s.log, s.rater) for s in sessions if s.rater != plan.rater})
    ]
    times = active_times(own, review.idle_s)
    beside = {cut: active_times(own, cut) for cut in OTHER_CUTOFFS_S}
    slides = {str(slide.entry_id): slide for slide in plan.slides}
    rows = []
    for key, time in times.items():
        if key.image not in slides:
            continue
        source = Source.SIMULATED if Source.SIMULATED in time.sources else Source.MEASURED
        rows.append(
            ImageTime(
                slide_id=slides[key.image].slide_id,
                patient=slides[key.image].patient,
                batch=plan.batch,
                rater=plan.rater,
                arm=slides[key.image].arm,
                position=slides[key.image].position,
                repeat=slides[key.image].repeat,
                active_s=time.seconds,
                active_s_cap60=beside[60.0][key].seconds,
                active_s_cap100=beside[100.0][key].seconds,
                active_s_cap300=beside[300.0][key].seconds,
                visits=time.visits,
                cap_s=review.idle_s,
                time_source="events" if source is Source.MEASURED else str(source),
                source=str(source),
                rule=rule_text(review.idle_s),
            )
        )
    return sorted(rows, key=lambda row: row.slide_id), problems


_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("slide_id", "patient", "batch", "rater", "arm"), pa.string()),
    "position": pa.int32(),
    "repeat": pa.bool_(),
    **dict.fromkeys(("active_s", "active_s_cap60", "active_s_cap100", "active_s_cap300"), pa.float64()),
    "visits": pa.int32(),
    "cap_s": pa.float64(),
    **dict.fromkeys(("time_source", "source", "rule"), pa.string()),
}


def write_times(path: Path, times: Sequence[ImageTime]) -> None:
    """Write time.parquet; the same rows give the same bytes."""
    write_table(path, times, _TYPES)
