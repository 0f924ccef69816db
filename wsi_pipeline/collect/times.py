"""From event logs to the active time of each handed-out slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from wsi_pipeline.collect.events import read_logs
from wsi_pipeline.collect.tables import write_table
from wsi_pipeline.config import Review
from wsi_pipeline.handout import HandedOutSlide, Plan
from wsi_pipeline.measures import OTHER_CUTOFFS_S, Session, active_times, rule_text
from wsi_pipeline.measures.time import TimeSource
from wsi_pipeline.measures.time_rules import views
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
    cap_s: float | None
    time_source: str
    source: str
    rule: str


def logs_of(run: RunDir, plan: Plan) -> tuple[list[Session], list[str]]:
    """All event logs in a batch's project, and what was odd in them, in plain words."""
    return read_logs((run.root / plan.project).parent / EVENTS, plan.project)


def times_of(sessions: Sequence[Session], plan: Plan, review: Review) -> tuple[list[ImageTime], list[str]]:
    """Times of a batch's slides, and what was odd, in plain words.

    Only logs of the batch's own rater count, and those of adjudicators, as their time; others are listed.
    """
    counted = {plan.rater, *review.adjudicators}
    problems = [
        f"events/{log}: was written by {rater}, not by {plan.rater}; its time is left out"
        for log, rater in sorted({(s.log, s.rater) for s in sessions if s.rater not in counted})
    ]
    rows = [
        row
        for rater in sorted(counted)
        for row in rows_of([session for session in sessions if session.rater == rater], plan, review, rater)
    ]
    return sorted(rows, key=lambda row: (row.slide_id, row.rater != plan.rater, row.rater)), problems


def rows_of(sessions: Sequence[Session], plan: Plan, review: Review, rater: str | None = None) -> list[ImageTime]:
    """Times of a batch's slides from one person's sessions of one kind of source, by slide.

    Parameters
    ----------
    rater
        Who it is, if not the batch's rater.
    """
    times = active_times(sessions, review.idle_s)
    beside = {cut: active_times(sessions, cut) for cut in OTHER_CUTOFFS_S}
    slides = {str(slide.entry_id): slide for slide in plan.slides}
    said = next((session.time_source for session in sessions), TimeSource.EVENTS)
    rows = []
    for key, time in times.items():
        if key.image not in slides:
            continue
        source = Source.SIMULATED if Source.SIMULATED in time.sources else Source.MEASURED
        row = _row(
            plan,
            slides[key.image],
            rater=rater or plan.rater,
            seconds=(time.seconds, *(beside[cut][key].seconds for cut in OTHER_CUTOFFS_S)),
            visits=time.visits,
            cap_s=review.idle_s,
            time_source=said if source is Source.MEASURED else TimeSource.SIMULATED,
            source=source,
            rule=_rule_of(said, review.idle_s),
        )
        rows.append(row)
    return sorted(rows, key=lambda row: row.slide_id)


def reported(plan: Plan, slide: HandedOutSlide, seconds: float, entries: int) -> ImageTime:
    """A time that the rater wrote down; no cut-off changes it, so that all columns hold the same."""
    return _row(
        plan,
        slide,
        rater=plan.rater,
        seconds=(seconds,) * 4,
        visits=entries,
        cap_s=None,
        time_source=TimeSource.SELF_REPORT,
        source=Source.MEASURED,
        rule="self_report, version 1: as the rater wrote it down",
    )


def _rule_of(source: TimeSource, idle_s: float) -> str:
    return str(views(idle_s)) if source in {TimeSource.VIEW_TRACKER, TimeSource.TIMESTAMPS} else rule_text(idle_s)


def _row(
    plan: Plan,
    slide: HandedOutSlide,
    *,
    rater: str,
    seconds: tuple[float, ...],
    visits: int,
    cap_s: float | None,
    time_source: TimeSource,
    source: Source,
    rule: str,
) -> ImageTime:
    configured, *others = seconds
    return ImageTime(
        slide_id=slide.slide_id,
        patient=slide.patient,
        batch=plan.batch,
        rater=rater,
        arm=slide.arm,
        position=slide.position,
        repeat=slide.repeat,
        active_s=configured,
        active_s_cap60=others[0],
        active_s_cap100=others[1],
        active_s_cap300=others[2],
        visits=visits,
        cap_s=cap_s,
        time_source=str(time_source),
        source=str(source),
        rule=rule,
    )


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
