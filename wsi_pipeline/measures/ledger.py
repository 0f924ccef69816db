"""The ledger: what people, machines and storage cost, line by line, each with how it is known.

What the configuration gives no rate for, or nobody counted, has no amount and is named: it is never 0. When it has
paid for itself, and what comes next, is in `wsi_pipeline.measures.payback`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from wsi_pipeline.config import Costs

_SECONDS = 3600.0


class Basis(StrEnum):
    """How an amount is known."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    MODELLED = "modelled"
    ASSUMED = "assumed"
    NOT_COUNTED = "not counted"


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be said of a count: how it is known, and of what it is, or why there is none."""

    basis: Basis = Basis.MEASURED
    why: str = ""


UNTOLD = Told()


@dataclass(frozen=True, slots=True)
class Work:
    """What was spent; None where nobody counted. Times in seconds, storage in GB · months, area in mm².

    Attributes
    ----------
    compute_s, gpu_s
        Of machines, and of accelerators, which have a price of their own.
    slides
        Reviewed ones: what people did, and the set-up, is for these.
    predicted
        Computing and storage are shared among so many; None: among `slides`.
    told
        By name of the line.
    """

    pathologist_s: float | None = None
    reviewer_s: float | None = None
    adjudicator_s: float | None = None
    compute_s: float | None = None
    storage_gb_months: float | None = None
    slides: int = 0
    area_mm2: float | None = None
    gpu_s: float | None = None
    predicted: int | None = None
    told: Mapping[str, Told] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One line; without an amount `basis` is NOT_COUNTED and `why` says what is missing."""

    name: str
    basis: Basis
    why: str
    amount: float | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON values; an amount that is not known is absent."""
        found: dict[str, Any] = {"name": self.name, "basis": str(self.basis), "why": self.why}
        return found if self.amount is None else {**found, "amount": self.amount}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Amounts in one currency; `total` is their sum, set-up included. `not_included` has no rate or no count."""

    currency: str
    lines: tuple[Line, ...]
    slides: int = 0
    area_mm2: float | None = None
    predicted: int | None = None

    @property
    def amounts(self) -> dict[str, float]:
        """What was counted, by name."""
        return {line.name: line.amount for line in self.lines if line.amount is not None}

    @property
    def not_included(self) -> tuple[str, ...]:
        """Names of what was not counted."""
        return tuple(line.name for line in self.lines if line.amount is None)

    @property
    def total(self) -> float:
        """Sum of the amounts."""
        return math.fsum(self.amounts.values())

    @property
    def machines_per_slide(self) -> float:
        """Computing and storage of a slide; 0 where neither was counted."""
        slides = self.slides if self.predicted is None else self.predicted
        amount = math.fsum(self.amounts.get(name, 0.0) for name in _OF_MACHINES)
        return amount / slides if slides else 0.0

    @property
    def per_slide(self) -> float | None:
        """What people did and the set-up, over reviewed slides, and what machines cost for each; None without any."""
        if not self.slides or not self.amounts:
            return None
        people = math.fsum(amount for name, amount in self.amounts.items() if name not in _OF_MACHINES)
        return people / self.slides + self.machines_per_slide

    @property
    def per_mm2(self) -> float | None:
        """The same over the reviewed area in mm²; None where the area is not known."""
        each = self.per_slide
        return each * self.slides / self.area_mm2 if self.area_mm2 and each is not None else None

    def as_json(self) -> dict[str, Any]:
        """JSON values; what is not known is absent."""
        found: dict[str, Any] = {"currency": self.currency, "included": list(self.amounts)}
        found |= {"not_included": list(self.not_included), **self.amounts}
        if self.amounts:
            found["total"] = self.total
        parts = {"per_slide": self.per_slide, "per_mm2": self.per_mm2}
        return found | {name: value for name, value in parts.items() if value is not None}


_OF_MACHINES = ("compute", "storage")
# Key of the rate, rate, count.
_Part = tuple[str, float | None, float | None]
NOBODY_COUNTED = "nobody counted it"


def ledger(rates: Costs, work: Work) -> Ledger:
    """The amounts that have both a rate in the configuration and a count."""
    hourly = {
        "pathologist": ("pathologist_per_hour", work.pathologist_s),
        "reviewer": ("reviewer_per_hour", work.reviewer_s),
        "adjudicator": ("adjudicator_per_hour", work.adjudicator_s),
    }
    people = [
        _line(name, work, [(key, getattr(rates, key), None if seconds is None else seconds / _SECONDS)])
        for name, (key, seconds) in hourly.items()
    ]
    machines: list[_Part] = [
        (key, getattr(rates, key), seconds / _SECONDS)
        for key, seconds in (("compute_per_hour", work.compute_s), ("gpu_per_hour", work.gpu_s))
        if seconds is not None
    ]
    compute = _line("compute", work, machines or [("compute_per_hour", rates.compute_per_hour, None)])
    storage = _line("storage", work, [("storage_per_gb_month", rates.storage_per_gb_month, work.storage_gb_months)])
    set_up = Line("set_up", Basis.ASSUMED, "the amount that the configuration gives", rates.set_up)
    if rates.set_up is None:
        set_up = Line("set_up", Basis.NOT_COUNTED, _not_given("set_up"))
    lines = (*people, compute, storage, set_up)
    return Ledger(rates.currency, lines, work.slides, work.area_mm2, work.predicted)


def _line(name: str, work: Work, parts: Sequence[_Part]) -> Line:
    """Sum of rate times count; none where a count lacks its rate, since a part of it would pass for the whole."""
    told = work.told.get(name, UNTOLD)
    counted = [(key, rate, count) for key, rate, count in parts if count is not None]
    if not counted:
        return Line(name, Basis.NOT_COUNTED, told.why or NOBODY_COUNTED)
    missing = [key for key, rate, _ in counted if rate is None]
    if missing:
        return Line(name, Basis.NOT_COUNTED, "; ".join(part for part in (_not_given(*missing), told.why) if part))
    amount = math.fsum(rate * count for _, rate, count in counted if rate is not None)
    return Line(name, told.basis, told.why, amount)


def _not_given(*keys: str) -> str:
    names = " and ".join(f"`costs.{key}`" for key in keys)
    return f"{names} {'is' if len(keys) == 1 else 'are'} not given"
