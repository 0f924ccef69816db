"""Exploratory splits of the saving, side by side; they answer nothing and say so."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import mapping, text

DEFINITION = (
    "Exploratory: the ratio of active times, assisted to manual, in each group. Groups were not drawn by chance, and "
    "of several comparisons one may differ by accident. No interval under five raters or ten slides."
)
FALSE_POSITIVES = "False-positive area: share of the predicted area that assisted corrections removed."


@dataclass(frozen=True, slots=True)
class Group:
    """One group of a split, as it is shown."""

    name: str
    ratio: str
    interval: str
    n: str


@dataclass(frozen=True, slots=True)
class Split:
    """One split: its groups, or why it is refused."""

    name: str
    groups: tuple[Group, ...]
    refused: str | None


def splits(run: Run) -> tuple[Split, ...]:
    """Read `splits` below `saving` of metrics.json; a simulated one stands under the banner of the page."""
    raw = run.saving.get("splits")
    return tuple(_split(mapping(item)) for item in (raw if isinstance(raw, list) else ()))


def _split(raw: object) -> Split:
    found = mapping(raw)
    parts = found.get("parts")
    name = text(found.get("name")) or "unnamed"
    refused = text(found.get("refused"))
    groups = () if refused or not isinstance(parts, list) else tuple(_group(name, mapping(p)) for p in parts)
    return Split(name[:1].upper() + name[1:], groups, None if refused is None else fmt.sentence(refused))


def _group(split: str, raw: object) -> Group:
    found = mapping(raw)
    interval = found.get("ci95")
    shown = "none: too few"
    if isinstance(interval, list) and len(interval) == 2:
        shown = " to ".join(fmt.significant(known(end), 3) for end in interval)
    group = text(found.get("group")) or ""
    raters, slides, readings = (round(known(found.get(key)) or 0) for key in ("raters", "slides", "readings"))
    n = f"{fmt.counted(raters, 'rater')}, {fmt.counted(slides, 'slide')}, {fmt.counted(readings, 'reading')}"
    name = fmt.days((group,)) if split == "week" else group
    return Group(f"from {name}" if split == "week" else name, fmt.significant(known(found.get("ratio")), 3), shown, n)
