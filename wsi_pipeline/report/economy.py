"""What the saving is worth: when it has paid for itself, and what it means for the slides that are left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import mapping, text
from wsi_pipeline.report.savings import MEASURED, is_simulated

NEVER = "never"
DEFINITION = (
    "Saved per slide: hourly rate · hours by hand · (1 − ratio of total hours), less what computing and storage of a "
    "slide cost where they are counted. Break-even: set-up over that. The ends are those of the 95 % interval of total "
    "hours; “never” where nothing is saved. The hours by hand are taken as they are, without an interval."
)


@dataclass(frozen=True, slots=True)
class Economy:
    """Break-even and forecast as name and value; without any, `missing` says why."""

    rows: tuple[tuple[str, str], ...]
    missing: str
    n: str
    source: str


def economy(run: Run) -> Economy:
    """Read `break_even` and `forecast` below `saving` of metrics.json."""
    payback, ahead = mapping(run.saving.get("break_even")), mapping(run.saving.get("forecast"))
    rows = [*_payback(payback), *_forecast(ahead, "assisted reading" if run.is_study else "slide")]
    source = "simulated" if is_simulated(run) else text(run.saving.get("source")) or ""
    if not rows:
        return Economy((), _missing(run), "", "")
    return Economy(tuple(rows), "" if payback else "Break-even needs `costs.set_up`.", _n(run), source)


def _missing(run: Run) -> str:
    if text(run.saving.get("kind")) != MEASURED:
        return "They need a saving that was measured."
    return "They need an hourly rate, and break-even a set-up: `costs` in the configuration."


def _n(run: Run) -> str:
    raters, slides = (known(run.saving.get(key)) for key in ("raters", "slides"))
    return "" if raters is None or slides is None else f"{fmt.counted(round(raters), 'rater')}, {round(slides)} slides"


def _payback(raw: object) -> list[tuple[str, str]]:
    found = mapping(raw)
    if not found:
        return []
    interval = found.get("interval")
    value = _slides(found.get("slides"))
    if isinstance(interval, list) and len(interval) == 2:
        value += f" ({_slides(interval[0])} to {_slides(interval[1])})"
    else:
        value += ", too few readings for an interval"
    currency = text(found.get("currency")) or ""
    saved = _ends(found.get("saved_per_slide"), lambda v: fmt.money(v, currency))
    return [("Break-even", value), *([] if saved is None else [("Saved per slide", saved)])]


def _forecast(raw: object, what: str) -> list[tuple[str, str]]:
    found = mapping(raw)
    slides = known(found.get("slides"))
    if slides is None or slides <= 0:
        return []
    currency = text(found.get("currency")) or ""
    hours = _ends(found.get("hours"), lambda v: fmt.duration(3600 * v))
    saved = _ends(found.get("saved"), lambda v: fmt.money(v, currency))
    name = f"Forecast for the {fmt.counted(round(slides), what)} left"
    rows = [] if hours is None else [(name, f"{hours} of reviewing")]
    return rows if saved is None else [*rows, ("Saved on these, less set-up", saved)]


def _ends(raw: object, form: Callable[[float], str]) -> str | None:
    """`value (low to high)`; None where there is no value."""
    found = mapping(raw)
    value, low, high = (known(found.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return None
    if low is None or high is None:
        return f"{form(value)}, no interval"
    return f"{form(value)} ({form(low)} to {form(high)})"


def _slides(value: object) -> str:
    number = known(value)
    return NEVER if number is None else fmt.counted(round(number), "slide")
