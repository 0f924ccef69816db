"""What reviewing cost, at the rates of the configuration; and what must be known before anything was saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsi_pipeline.config import Costs


def not_measured(reason: str) -> dict[str, Any]:
    """A figure that is not there, and why."""
    return {"status": "not measured", "reason": reason}


def review_cost(active_s: Sequence[float], costs: Costs, *, slides: int) -> dict[str, Any]:
    """Cost of the pathologist's active time.

    Parameters
    ----------
    active_s
        Active seconds of each reviewed slide that has a time.
    slides
        Reviewed slides in all; the cost covers only those with a time, and says how many these are.
    """
    if not active_s:
        return not_measured("no reviewed slide has a time")
    if costs.pathologist_per_hour is None:
        return not_measured("the configuration gives no `costs.pathologist_per_hour`")
    total = sum(active_s) / 3600 * costs.pathologist_per_hour
    return {
        "source": "rates of the configuration, active time of the raters",
        "currency": costs.currency,
        "total": total,
        "per_slide": total / len(active_s),
        "slides_with_time": len(active_s),
        "slides_reviewed": slides,
        "included": ["pathologist"],
        "not_included": ["compute", "set-up", "storage"],
    }


def saving() -> dict[str, Any]:
    """Whether a saving can be stated: it cannot.

    A saving compares slides that were corrected with slides that were drawn from scratch by the same raters. Every
    batch that this version hands out holds pre-annotations, so nothing was measured, whatever the times are.
    """
    return not_measured("no slide was annotated without pre-annotations (there is no control arm)")
