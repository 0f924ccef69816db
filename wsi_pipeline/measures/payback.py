"""When pre-annotation has paid for its set-up, and what comes next.

Interval ends are those of the ratio of total hours; the manual time per slide is taken as measured, without an interval
of its own.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from wsi_pipeline.config import Costs
from wsi_pipeline.measures.savings import Saving, SavingKind

NEVER = "never"


@dataclass(frozen=True, slots=True)
class Ends:
    """A figure with the ends that the interval of total hours gives it; None is `never`, or no interval at all."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Payback:
    """Slides until pre-annotation has paid for its set-up; None in `slides` is never, in `latest` perhaps never."""

    slides: int | None
    earliest: int | None
    latest: int | None
    has_interval: bool
    per_slide: Ends
    currency: str

    def as_json(self) -> dict[str, Any]:
        """JSON values, `never` spelled out."""
        found: dict[str, Any] = {
            "currency": self.currency,
            "slides": _or_never(self.slides),
            "saved_per_slide": asdict(self.per_slide),
        }
        if self.has_interval:
            found["interval"] = [_or_never(self.earliest), _or_never(self.latest)]
        return found

    @property
    def words(self) -> str:
        """One sentence."""
        if not self.has_interval:
            return f"Break-even: {_words(self.slides)}; the readings are too few for an interval."
        return f"Break-even: {_words(self.slides)}; interval {_words(self.earliest)} to {_words(self.latest)}."


def _or_never(slides: int | None) -> int | str:
    return NEVER if slides is None else slides


def _words(slides: int | None) -> str:
    return NEVER if slides is None else f"{slides} slide{'' if slides == 1 else 's'}"


def break_even(rates: Costs, saving: Saving, *, extra_per_slide: float = 0.0) -> Payback | None:
    """When the set-up is paid back; None unless a saving was measured and set-up and hourly rate are configured.

    Parameters
    ----------
    extra_per_slide
        What pre-annotation adds to each slide (computing, storage), in the currency of the configuration.

    Notes
    -----
    Saved per slide: rate · manual hours per slide · (1 − ratio of total hours) − extra; slides: set-up over that.
    """
    ends = saved_per_slide(rates, saving, extra_per_slide=extra_per_slide)
    if ends is None or rates.set_up is None:
        return None
    point, best, worst = (_slides(rates.set_up, amount) for amount in (ends.value, ends.high, ends.low))
    return Payback(point, best, worst, ends.low is not None, ends, rates.currency)


def _slides(set_up: float, saved: float | None) -> int | None:
    if saved is None or saved <= 0:
        return None
    # Rounded first, or 1500.0000000000002 would be one slide more.
    return math.ceil(round(set_up / saved, 9))


def saved_per_slide(rates: Costs, saving: Saving, *, extra_per_slide: float = 0.0) -> Ends | None:
    """Amount saved on each slide; negative where pre-annotation costs more."""
    manual = saving.hours_per_reading.get("manual")
    if saving.kind is not SavingKind.MEASURED or saving.ratio_of_totals is None:
        return None
    if manual is None or rates.pathologist_per_hour is None:
        return None
    drawn = rates.pathologist_per_hour * manual

    def saved(ratio: float) -> float:
        return drawn * (1 - ratio) - extra_per_slide

    interval = saving.ratio_of_totals_ci95
    if interval is None:
        return Ends(saved(saving.ratio_of_totals))
    return Ends(saved(saving.ratio_of_totals), saved(interval[1]), saved(interval[0]))


@dataclass(frozen=True, slots=True)
class Forecast:
    """So many slides more: hours with pre-annotation, and what it saves after set-up and extras."""

    slides: int
    hours: Ends
    saved: Ends
    currency: str

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def forecast(rates: Costs, saving: Saving, slides: int, *, extra_per_slide: float = 0.0) -> Forecast | None:
    """Hours and saving for `slides` further slides like those that were compared; None as for `break_even`.

    Set-up counts where the configuration gives it.
    """
    ends = saved_per_slide(rates, saving, extra_per_slide=extra_per_slide)
    if ends is None or saving.ratio_of_totals is None:
        return None
    drawn = saving.hours_per_reading["manual"] * slides
    set_up = rates.set_up or 0.0
    low, high = saving.ratio_of_totals_ci95 or (None, None)
    hours = Ends(drawn * saving.ratio_of_totals, _times(drawn, low), _times(drawn, high))
    saved = [None if end is None else slides * end - set_up for end in (ends.value, ends.low, ends.high)]
    return Forecast(slides, hours, Ends(*saved), rates.currency)


def _times(factor: float, end: float | None) -> float | None:
    return None if end is None else factor * end
