"""What was done to the pre-annotations, as charts with their n, definition and source."""

from __future__ import annotations

import statistics

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.charts import Row, SlideRow, changes_chart, slides_chart
from wsi_pipeline.report.facts import CHANGES, Run, Slide
from wsi_pipeline.report.gallery import by_change
from wsi_pipeline.report.numbers import UM2_PER_MM2
from wsi_pipeline.report.parts import Chart
from wsi_pipeline.report.screen import change_look, review_counts, spread_of

# More lines than this cannot be read in one chart.
MOST_ROWS = 40


def charts(run: Run) -> tuple[Chart, ...]:
    """The charts of the corrections; none before a slide was reviewed."""
    if not run.reviewed:
        return ()
    return tuple(chart for chart in (_by_kind(run), _by_slide(run)) if chart is not None)


def _by_kind(run: Run) -> Chart | None:
    counts = review_counts(run)
    if not counts:
        return None
    title = "Objects by what was done to them"
    words = fmt.listed([f"{n} {CHANGES[kind]}" for kind, n in counts.items()])
    svg = changes_chart(
        [Row(CHANGES[kind], (float(n),)) for kind, n in counts.items()],
        [change_look(kind) for kind in counts],
        title=title,
        description=f"Bar chart: {words}.",
    )
    return Chart(
        title=title,
        svg=svg,
        n=f"{fmt.counted(sum(counts.values()), 'object')} on {run.reviewed_words}",
        definition="Each annotation that was handed out or drawn, matched with its correction by id, then by overlap.",
        source=run.source,
        links=("corrections.parquet", "slides.parquet", "metrics.json"),
    )


def _by_slide(run: Run) -> Chart | None:
    ordered = by_change(run.reviewed)
    rows = [_row(slide) for slide in ordered[:MOST_ROWS]]
    title = "Slide by slide, most changed first"
    dice = [value for slide in ordered if (value := lowest(slide, "dice")) is not None]
    changed = [value for slide in ordered if slide.reviewed and (value := slide.reviewed.changed_um2) is not None]
    n = fmt.counted(len(ordered), "reviewed slide")
    if len(ordered) > MOST_ROWS:
        n += f", the {MOST_ROWS} most changed shown"
    described = [f"Dice: {spread_of(dice)}."] if dice else []
    if changed:
        described.append(
            f"Area changed: median {fmt.area(statistics.median(changed))}, largest {fmt.area(max(changed))}."
        )
    tolerance = fmt.micrometres(run.tolerance_um) if run.tolerance_um is not None else "the stated tolerance"
    several = any(slide.reviewed and sum(c.predictable for c in slide.reviewed.classes) > 1 for slide in ordered)
    return Chart(
        title=title,
        svg=slides_chart(rows, title=title, description=" ".join(described) or "No area was measured."),
        n=n,
        definition=(
            " ".join(described)
            + " Removed: predicted, not in the correction. Added: in the correction, not predicted. "
            + f"Surface Dice: share of both outlines that lie within {tolerance} of each other."
            + (" With several classes, areas are summed and the lowest Dice is shown." if several else "")
        ).strip(),
        source=run.source,
        links=("slides.parquet", "corrections.parquet", "metrics.json"),
    )


def _row(slide: Slide) -> SlideRow:
    review = slide.reviewed
    removed, added, active = (
        (None, None, None) if review is None else (review.total("removed"), review.total("added"), review.active_s)
    )
    return SlideRow(
        label=slide.slide_id,
        removed=None if removed is None else removed / UM2_PER_MM2,
        added=None if added is None else added / UM2_PER_MM2,
        dice=lowest(slide, "dice"),
        surface_dice=lowest(slide, "surface_dice"),
        minutes=None if active is None else active / 60,
    )


def lowest(slide: Slide, field: str) -> float | None:
    """The lowest value of a measure over the model's classes of a reviewed slide; None where no class has it."""
    return None if slide.reviewed is None else slide.reviewed.lowest(field)
