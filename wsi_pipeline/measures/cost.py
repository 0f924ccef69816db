"""What reviewing costs at the configured rates. What was not given is not shown, what was assumed says so."""

from __future__ import annotations

from typing import Any

from wsi_pipeline.config import Costs
from wsi_pipeline.states import Source

NOT_MEASURED = "not measured"
ASSUMED = "assumed"
NO_CONTROL = "no slide was annotated without pre-annotation (control arm), so there is nothing to compare with"

_SECONDS = 3600.0


def not_measured(reason: str) -> dict[str, str]:
    """What stands where a figure would stand, and why there is none."""
    return {"status": NOT_MEASURED, "reason": reason}


def review_cost(
    rates: Costs,
    *,
    active_s: float | None,
    reviewed_s: float | None = None,
    reviewed: int = 0,
    compute_s: float | None = None,
    source: Source = Source.MEASURED,
) -> dict[str, Any]:
    """The cost of reviewing, in the currency of the configuration.

    Parameters
    ----------
    active_s
        Active time on all slides that were handed out; None when it was not measured.
    reviewed_s, reviewed
        Active time on the reviewed slides that have one, and how many these are.
    compute_s
        Machine time; None when it is not known.
    source
        Of the time.

    Returns
    -------
    JSON values: `currency`, `source`, `rates`, each amount that could be computed (`pathologist`, `compute`, `total`
    as their sum, `per_slide` of the pathologist's time on reviewed slides), and `assumed` for what rests on the
    configured guess about drawing by hand. Without time or rate, `status` and `reason` instead of the amounts.
    """
    cost: dict[str, Any] = {"currency": rates.currency}
    if active_s is None:
        cost |= not_measured("it needs a measured time")
    elif rates.pathologist_per_hour is None:
        cost |= not_measured("it needs an hourly rate: `costs.pathologist_per_hour` in the configuration")
    else:
        amounts = {"pathologist": active_s / _SECONDS * rates.pathologist_per_hour}
        if compute_s is not None and rates.compute_per_hour is not None:
            amounts["compute"] = compute_s / _SECONDS * rates.compute_per_hour
        cost |= {"source": source.value, "rates": "configuration", **amounts, "total": sum(amounts.values())}
        if reviewed and reviewed_s is not None:
            cost["per_slide"] = reviewed_s / _SECONDS * rates.pathologist_per_hour / reviewed
    if rates.manual_minutes_per_slide is not None:
        cost["assumed"] = _assumed(rates, rates.manual_minutes_per_slide)
    return cost


def _assumed(rates: Costs, minutes: float) -> dict[str, Any]:
    """The configured guess about drawing a slide by hand. It is never set against a measured time as a saving."""
    guess: dict[str, Any] = {"label": ASSUMED, "manual_minutes_per_slide": minutes}
    if rates.pathologist_per_hour is not None:
        guess["manual_per_slide"] = minutes / 60.0 * rates.pathologist_per_hour
    return guess
