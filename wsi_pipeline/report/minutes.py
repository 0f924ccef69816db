"""Where the minutes went: by what was done to a region, by source of time, and what a model of time fills in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.facts import CHANGES, Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import mapping, text

GONE = "drawn and deleted again, or no annotation"
NO_REGION = "no region: looking around, and what was only accepted"


@dataclass(frozen=True, slots=True)
class RegionLine:
    """Active time of one kind of change: regions, seconds in all, median of a region."""

    name: str
    regions: int | None
    active_s: float
    share: float
    median_s: float | None


@dataclass(frozen=True, slots=True)
class Regions:
    """Time by what was done to a region."""

    lines: tuple[RegionLine, ...]
    n: str
    rule: str
    source: str


def region_minutes(run: Run) -> Regions | None:
    """Read `time.regions` of metrics.json; None where no log tells of regions."""
    raw = mapping(run.time.get("regions"))
    whole = known(raw.get("active_s"))
    if not whole:
        return None
    lines = []
    for kind, own in mapping(raw.get("by_change")).items():
        found = mapping(own)
        active, regions = known(found.get("active_s")) or 0.0, round(known(found.get("regions")) or 0)
        name = CHANGES.get(str(kind), GONE)
        lines.append(RegionLine(name, regions, active, active / whole, known(found.get("median_s"))))
    rest = known(raw.get("no_region_s")) or 0.0
    lines.append(RegionLine(NO_REGION, None, rest, rest / whole, None))
    images = round(known(raw.get("images")) or 0)
    return Regions(
        tuple(lines),
        f"{fmt.counted(images, 'image')} with a log, {fmt.duration(whole)}",
        text(raw.get("rule")) or "",
        text(raw.get("source")) or "",
    )


@dataclass(frozen=True, slots=True)
class Modelled:
    """Times by a model, which are in no sum and no saving."""

    rows: tuple[tuple[str, str, str], ...]
    images: int
    not_estimated: int
    rule: str
    n: str
    source: str


def modelled(run: Run) -> Modelled | None:
    """Read `time.modelled` of metrics.json; None where no time was missing, or none could be modelled."""
    raw = mapping(run.time.get("modelled"))
    images = raw.get("images")
    found = [mapping(item) for item in images] if isinstance(images, list) else []
    if not found:
        return None
    level = fmt.share(known(raw.get("level")) or 0.95)
    seen = "simulated" if text(raw.get("fitted_on")) == "simulated" else "measured"
    rows = tuple((text(item.get("slide_id")) or "", *_estimate(item)) for item in found)
    return Modelled(
        rows,
        len(found),
        round(known(raw.get("not_estimated")) or 0),
        text(raw.get("rule")) or "",
        f"fitted on {fmt.counted(round(known(raw.get('n')) or 0), f'{seen} image')}, {level} prediction interval",
        "model" if seen == "measured" else "model of simulated times",
    )


def _estimate(raw: Mapping[str, Any]) -> tuple[str, str]:
    seconds, low, high = (known(raw.get(key)) for key in ("seconds", "low", "high"))
    return fmt.duration(seconds), f"{fmt.duration(low)} to {fmt.duration(high)}"
