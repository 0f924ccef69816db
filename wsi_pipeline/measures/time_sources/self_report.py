"""Times that people wrote down: a CSV with `rater`, `slide` and either `minutes` or `start` and `end`.

`arm` is optional. Several rows of one slide are added up. A self-reported time is labelled so, fills gaps only, and
takes no part in savings: people round, and remember long work as longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from wsi_pipeline.measures.time_sources.table import columns_and_rows


@dataclass(frozen=True, slots=True)
class Report:
    """What one rater says of one slide, in seconds; `arm` where it is told, `rows` is how many lines were added up."""

    rater: str
    slide: str
    arm: str | None
    seconds: float
    rows: int = 1


def read_reports(text: str, log: str) -> tuple[list[Report], list[str]]:
    """The reports of one file, by rater, slide and arm, and what was odd in it, in plain words.

    Commas or semicolons part the columns; with semicolons a decimal comma is taken. `start` and `end` are ISO 8601.
    """
    first = text.partition("\n")[0]
    names, rows = columns_and_rows(text, delimiter=";" if first.count(";") > first.count(",") else ",")
    if not {"rater", "slide"} <= set(names) or not ("minutes" in names or {"start", "end"} <= set(names)):
        return [], [f"{log}: needs the columns rater, slide and minutes (or start and end); it is left out"]
    found: dict[tuple[str, str, str | None], Report] = {}
    problems = []
    for number, row in enumerate(rows, start=2):
        cells = {name: cell.strip() for name, cell in row.items()}
        try:
            seconds = _seconds(cells)
        except (ValueError, TypeError, OverflowError) as error:
            problems.append(f"{log}: line {number} is left out: {error}")
            continue
        if not cells["rater"] or not cells["slide"]:
            problems.append(f"{log}: line {number} is left out: it names no rater or no slide")
            continue
        key = cells["rater"], cells["slide"], cells.get("arm") or None
        before = found.get(key)
        found[key] = Report(*key, seconds + (before.seconds if before else 0.0), 1 + (before.rows if before else 0))
    return list(found.values()), problems


def _seconds(cells: dict[str, str]) -> float:
    minutes = cells.get("minutes", "")
    if minutes:
        seconds = 60.0 * float(minutes.replace(",", "."))
    elif cells.get("start") and cells.get("end"):
        start, end = (datetime.fromisoformat(cells[name]) for name in ("start", "end"))
        seconds = (end - start).total_seconds()
    else:
        raise ValueError("it has no minutes and no start and end")
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("its time is negative or no number")
    return seconds
