"""What was saved, as it was measured: only a saving with a control arm is called one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import mapping, text, texts

NO_CONTROL = (
    "A saving is the difference to drawing the same kind of slide by hand. No slide of this run was annotated "
    "without pre-annotation, so there is nothing to compare with."
)
MEASURED, BEFORE_AFTER, SIMULATED = "measured", "before_after", "simulated"
CONFOUNDED = "before/after, confounded with practice and memory"


@dataclass(frozen=True, slots=True)
class Saving:
    """The answer of page one, its reason, and the figures behind it as name and value."""

    answer: str
    why: str
    rows: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    n: str
    source: str

    @property
    def measured(self) -> bool:
        return self.answer != fmt.NOT_MEASURED.capitalize()


def saving_of(run: Run) -> Saving:
    """Read `saving` of metrics.json; a before/after comparison never becomes the answer."""
    raw = run.saving
    kind, ratio, interval = text(raw.get("kind")), known(raw.get("ratio")), _interval(raw)
    warnings = texts(raw.get("warnings") or [])
    source = text(raw.get("source")) or run.sources.get("times", run.source)
    if kind == MEASURED and ratio is not None and is_simulated(run):
        why = f"The times are simulated; their ratio, which says nothing about people, is {fmt.significant(ratio, 2)}."
        return Saving(fmt.NOT_MEASURED.capitalize(), why, _rows(raw), warnings, _n(raw), SIMULATED)
    if kind == MEASURED and ratio is not None:
        return Saving(_share(ratio), _why(raw, ratio, interval), _rows(raw), warnings, _n(raw), source)
    why = fmt.sentence(text(raw.get("reason")) or NO_CONTROL)
    if kind == BEFORE_AFTER and ratio is not None:
        label = text(raw.get("label")) or CONFOUNDED
        why = f"The slides were read in a fixed order ({label}), which cannot tell a saving. The comparison is below."
        return Saving(fmt.NOT_MEASURED.capitalize(), why, _rows(raw), warnings, _n(raw), source)
    return Saving(fmt.NOT_MEASURED.capitalize(), why, (), warnings, "", source)


def is_simulated(run: Run) -> bool:
    """Whether a time behind the saving is a simulated one."""
    return SIMULATED in {text(run.saving.get("source")), run.sources.get("times")}


def _interval(raw: Mapping[str, Any]) -> tuple[float, float] | None:
    return _pair(raw.get("ci95"))


def _pair(value: object) -> tuple[float, float] | None:
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = known(value[0]), known(value[1])
        if low is not None and high is not None:
            return low, high
    return None


def _share(ratio: float) -> str:
    """`34 % less time`; a ratio above one is more time."""
    change = abs(1 - ratio)
    if change < 0.005:
        return "No time"
    return f"{fmt.share(change)} {'less' if ratio < 1 else 'more'} time"


def _why(raw: Mapping[str, Any], ratio: float, interval: tuple[float, float] | None) -> str:
    words = f"Active time per slide with pre-annotation is {fmt.significant(ratio, 2)} times that of drawing by hand"
    if interval is None:
        return f"{words}. The data are too few for an interval."
    low, high = (fmt.significant(v, 2) for v in interval)
    level = fmt.share(known(raw.get("level")) or 0.95)
    words = f"{words}, {level} interval {low} to {high}: {_between(*interval)}."
    label = text(raw.get("label"))
    return f"{words} {label[:1].upper()}{label[1:].removesuffix('.')}." if label else words


def _between(low: float, high: float) -> str:
    """What an interval of the ratio means for the time."""
    if low <= 1 <= high:
        return "it includes 1, so no saving is shown"
    more = "less" if high < 1 else "more"
    ends = sorted((abs(1 - low), abs(1 - high)))
    return f"{fmt.share(ends[0])} to {fmt.share(ends[1])} {more} time"


def _rows(raw: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    rows = [("Ratio of active times, assisted to manual", _with(raw, "ratio", _interval(raw)))]
    if known(raw.get("ratio_of_totals")) is not None:
        interval = _pair(raw.get("ratio_of_totals_ci95"))
        rows.append(("Ratio of total hours, which is what is paid", _with(raw, "ratio_of_totals", interval)))
    label = text(raw.get("label"))
    if label and text(raw.get("kind")) == MEASURED:
        rows.append(("The intervals hold", label))
    hours = mapping(raw.get("hours"))
    if known(hours.get("assisted")) is not None and known(hours.get("manual")) is not None:
        assisted, manual = (fmt.duration(3600 * (known(hours.get(arm)) or 0.0)) for arm in ("assisted", "manual"))
        rows.append(("Hours compared", f"{assisted} assisted, {manual} manual"))
    first = known(raw.get("manual_first"))
    if first is not None:
        rows.append(("Manual reading first", f"in {fmt.share(first)} of the comparisons"))
    left_out = [(known(raw.get(key)), words) for key, words in (("dropped", "no time"), ("unpaired", "no partner"))]
    told = [f"{fmt.integer(count)} with {words}" for count, words in left_out if count]
    if told:
        rows.append(("Readings left out", fmt.listed(told)))
    for key, name in (("design", "Design"), ("rule", "Rule of time"), ("method", "Method")):
        if text(raw.get(key)):
            rows.append((name, str(text(raw.get(key)))))
    check = _pair(raw.get("bootstrap_ci95"))
    if check is not None:
        rows.append(("Bootstrap by rater, a check only", f"{_ratio(check[0])} to {_ratio(check[1])}"))
    return tuple(rows)


def _with(raw: Mapping[str, Any], key: str, interval: tuple[float, float] | None) -> str:
    """The figure with its interval, or that it has none."""
    value = _ratio(known(raw.get(key)))
    if interval is None:
        return f"{value}, too few readings for an interval"
    level = fmt.share(known(raw.get("level")) or 0.95)
    return f"{value} ({level} interval {_ratio(interval[0])} to {_ratio(interval[1])})"


def _ratio(value: float | None) -> str:
    return fmt.significant(value, 3)


def _n(raw: Mapping[str, Any]) -> str:
    parts = []
    for key, singular in (("raters", "rater"), ("slides", "slide"), ("pairs", "pair")):
        count = known(raw.get(key))
        if count is not None:
            parts.append(fmt.counted(round(count), singular))
    return ", ".join(parts)
