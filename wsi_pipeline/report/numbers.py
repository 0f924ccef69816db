"""How figures are written: rounded to what they can carry, with their unit, and never a number for a gap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

NARROW = "\u202f"  # narrow no-break space: between a number and its unit, and between thousands
MINUS = "\u2212"
DASH = "–"
NOT_MEASURED = "not measured"

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

UM2_PER_MM2 = 1e6


def known(value: object) -> float | None:
    """`value` as a finite float; None for anything that is no number (None, NaN, text, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def integer(value: float | None) -> str:
    """`12 345` with narrow spaces; four digits stay together."""
    if value is None:
        return DASH
    digits = f"{abs(round(value)):,}" if abs(value) >= 9999.5 else f"{abs(round(value))}"
    return _signed(round(value), digits.replace(",", NARROW))


def significant(value: float | None, digits: int = 3) -> str:
    """A plain decimal number with `digits` significant digits, never in scientific notation."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    rounded = float(f"{abs(value):.{digits - 1}e}")
    places = max(0, digits - 1 - math.floor(math.log10(rounded)))
    if places == 0:
        return integer(math.copysign(rounded, value))
    return _signed(value, f"{rounded:.{places}f}")


def share(value: float | None) -> str:
    """A fraction as `n %`; what is neither nothing nor everything is never written as 0 % or 100 %."""
    if value is None:
        return DASH
    percent = 100 * value
    if 0 < percent < 0.1:
        return f"<{NARROW}0.1{NARROW}%"
    if 99.5 <= percent < 100:
        return f"{math.floor(percent * 10) / 10:.1f}{NARROW}%"
    text = f"{percent:.1f}" if percent < 9.95 else f"{percent:.0f}"
    return f"{text.removesuffix('.0') if percent == round(percent) else text}{NARROW}%"


def score(value: float | None) -> str:
    """A measure from 0 to 1 with two decimals; one short of 1 is never written as 1."""
    if value is None:
        return DASH
    if 0.995 <= value < 1:
        return f"{math.floor(value * 1000) / 1000:.3f}"
    return f"{value:.2f}"


def area(um2: float | None) -> str:
    """An area with its unit: µm² below 0.01 mm², mm² above."""
    if um2 is None:
        return DASH
    if um2 == 0:
        return f"0{NARROW}mm²"
    if abs(um2) < 0.01 * UM2_PER_MM2:
        return f"{significant(um2, 3)}{NARROW}µm²"
    return f"{mm2(um2)}{NARROW}mm²"


def mm2(um2: float | None) -> str:
    """An area of `um2` µm² as a bare number of mm², for columns whose head states the unit."""
    if um2 is None:
        return DASH
    value = um2 / UM2_PER_MM2
    if value == 0:
        return "0"
    if abs(value) < 0.001:
        return f"<{NARROW}0.001" if value > 0 else f"{MINUS}0.001"
    if abs(value) < 1:
        return _signed(value, f"{abs(value):.3f}")
    return _signed(value, f"{abs(value):.2f}") if abs(value) < 100 else integer(value)


def signed(value: float | None) -> str:
    """A difference with its sign, three decimals."""
    if value is None:
        return DASH
    return f"{'+' if value >= 0 else MINUS}{abs(value):.3f}"


def micrometres(value: float | None) -> str:
    """A length in µm with its unit."""
    return DASH if value is None else f"{significant(value, 3 if abs(value) >= 100 else 2)}{NARROW}µm"


def duration(seconds: float | None) -> str:
    """A time span in words: `42 s`, `8.5 min`, `1 h 42 min`."""
    if seconds is None:
        return DASH
    if seconds < 59.5:
        return f"{seconds:.0f}{NARROW}s" if seconds >= 9.95 or seconds == 0 else f"{seconds:.1f}{NARROW}s"
    minutes = seconds / 60
    if minutes < 19.95:
        return f"{minutes:.1f}{NARROW}min"
    if minutes < 59.5:
        return f"{minutes:.0f}{NARROW}min"
    hours, rest = divmod(round(minutes), 60)
    return f"{integer(hours)}{NARROW}h" + (f" {rest}{NARROW}min" if rest else "")


def minutes(seconds: float | None) -> str:
    """A time span as a bare number of minutes, for columns whose head states the unit."""
    return DASH if seconds is None else f"{seconds / 60:.1f}"


def money(value: float | None, currency: str) -> str:
    """An amount with its currency, with two decimals below 100."""
    if value is None:
        return DASH
    amount = _signed(value, f"{abs(value):.2f}") if abs(value) < 99.995 else integer(value)
    return f"{amount}{NARROW}{currency}"


def days(dates: Sequence[str]) -> str:
    """Days from ISO dates, first to last: `12 May 2026`, `12–14 May 2026`, `30 April – 2 May 2026`."""
    parsed = [date.fromisoformat(d) for d in dates]
    first, last = parsed[0], parsed[-1]
    end = f"{last.day} {MONTHS[last.month - 1]} {last.year}"
    if first == last:
        return end
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}{DASH}{end}"
    year = f" {first.year}" if first.year != last.year else ""
    return f"{first.day} {MONTHS[first.month - 1]}{year} {DASH} {end}"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """`1 slide`, `12 slides`."""
    return f"{integer(number)} {singular if number == 1 else plural or singular + 's'}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def sentence(words: str) -> str:
    """The words with a capital at the start and a full stop, if they have none."""
    words = words[:1].upper() + words[1:]
    return words if words.endswith((".", "!", "?")) else f"{words}."


def _signed(value: float, digits: str) -> str:
    return f"{MINUS}{digits}" if value < 0 else digits
