"""The new model beside the old one, on slides that neither was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.charts import Row, dumbbell_chart
from wsi_pipeline.report.corrections import MOST_ROWS
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import mapping, text, texts

# The verdicts of `learning.promote`, in the words of a headline.
_HEADLINES: Mapping[str, str] = {
    "better": "The new model is better",
    "worse": "The new model is worse",
    "no difference shown": "No difference shown",
    "too few to tell": "Too few slides to tell",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One decision about a new model, and the scores that it rests on."""

    headline: str
    reason: str
    rows: tuple[tuple[str, str], ...]
    chart: Markup | None
    n: str
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    source: str
    link: str


def comparisons(run: Run) -> tuple[Comparison, ...]:
    """Every decision that lies in `learning/`, in the order of the file names.

    A file counts when it holds a decision (`learning.promote.Decision`) at its top or as `decision`; scores per
    slide (`learning.evaluate.SlideScore`) are taken from its lists `old` and `new`.
    """
    return tuple(
        _comparison(path, value, decision)
        for path, value in run.learning.items()
        if (decision := _decision(value)) is not None
    )


def _decision(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for candidate in (value, mapping(value.get("decision"))):
        if text(candidate.get("verdict")):
            return candidate
    return None


def _comparison(path: str, value: Mapping[str, Any], decision: Mapping[str, Any]) -> Comparison:
    verdict = text(decision.get("verdict")) or ""
    groups, unit = known(decision.get("groups")), text(decision.get("unit")) or "slides"
    pairs = _pairs(value)
    title = f"Dice of the old and the new model, {path}"
    chart = None
    if pairs:
        chart = dumbbell_chart(
            pairs[:MOST_ROWS],
            ("old model", "new model"),
            axis="Dice on slides that neither model was trained on",
            title=title,
            description=f"{fmt.counted(len(pairs), 'slide')}, old and new model side by side.",
        )
    return Comparison(
        headline=_HEADLINES.get(verdict, verdict.capitalize()),
        reason=text(decision.get("reason")) or "",
        rows=tuple(_figures(decision)),
        chart=chart,
        n=f"{fmt.integer(groups)} {unit}" if groups is not None else "",
        left_out=tuple((str(k), str(v)) for k, v in mapping(decision.get("left_out")).items()),
        notes=texts(value.get("notes")),
        source=text(decision.get("source")) or "not stated",
        link=f"../{path}",
    )


def _figures(decision: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for which in ("old", "new"):
        name, dice = text(decision.get(f"{which}_model")), known(decision.get(f"{which}_dice"))
        rows.append((f"{which.capitalize()} model, {name or 'not named'}", f"Dice {fmt.score(dice)}"))
    difference = known(decision.get("difference"))
    low, high, level = (known(decision.get(key)) for key in ("low", "high", "level"))
    if difference is not None:
        interval = "; too few for an interval"
        if low is not None and high is not None:
            level_text = "" if level is None else f"{fmt.share(level)} "
            interval = f" ({level_text}interval {fmt.signed(low)} to {fmt.signed(high)})"
        rows.append(("Mean difference", fmt.signed(difference) + interval))
    improved, groups = known(decision.get("improved")), known(decision.get("groups"))
    if improved is not None and groups:
        unit = text(decision.get("unit")) or "slides"
        rows.append(("New model ahead", f"in {fmt.integer(improved)} of {fmt.integer(groups)} {unit}"))
    return rows


def _pairs(value: Mapping[str, Any]) -> list[Row]:
    """Slides that both models were scored on, the largest change first."""
    scores = mapping(value.get("scores"))
    old, new = (_dice_by_slide(value.get(key) or scores.get(key)) for key in ("old", "new"))
    rows = [Row(slide_id, (old[slide_id], new[slide_id])) for slide_id in old if slide_id in new]
    return sorted(rows, key=lambda row: -abs((row.values[1] or 0) - (row.values[0] or 0)))


def _dice_by_slide(scores: object) -> dict[str, float]:
    if not isinstance(scores, list):
        return {}
    return {
        str(score["slide_id"]): dice
        for score in map(mapping, scores)
        if "slide_id" in score and (dice := known(score.get("mean_dice"))) is not None
    }
