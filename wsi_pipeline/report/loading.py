"""From the files of a run directory to `facts.Run`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from wsi_pipeline.config import Privacy
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json
from wsi_pipeline.objects import RGB
from wsi_pipeline.report.facts import GREY, UNCLASSIFIED, Review, Run, Slide, Summary, model_classes
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import SCHEMAS, Reader, mapping, text, texts
from wsi_pipeline.report.workdays import batch_days, handed_out_days, workdays
from wsi_pipeline.rundir import RunDir

# Okabe and Ito's colours, for classes whose model names none: told apart by colour-blind readers too.
_PALETTE: tuple[RGB, ...] = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))


def load_run(run: RunDir, privacy: Privacy | None = None) -> Run:
    """Read all that the report shows, pictures and outlines aside.

    Parameters
    ----------
    privacy
        As the configuration says now; without it, as the run was made with.

    Raises
    ------
    StoreError
        There is no usable run.json; everything else may be missing.
    """
    record = _run_json(run)
    reader = Reader(run.root)
    metrics = reader.json(run.metrics) or {}
    plans = _plans(reader, run)
    corrections = reader.table(run.corrections)
    time = reader.table(run.time)
    privacy = privacy or _privacy(record)
    days = workdays(run, plans)
    handed_out = handed_out_days(run, plans)
    model = mapping(record.get("model"))
    known_classes = model_classes(model)
    learned = {
        reader.relative(path): value
        for path in sorted((run.root / "learning").glob("*.json"))
        if (value := reader.json(path)) is not None
    }
    slides = tuple(
        _slide(reader, run, slide_id, mapping(raw), metrics, plans, known_classes, handed_out.get(slide_id))
        for slide_id, raw in mapping(record.get("slides")).items()
    )
    flagged = tuple(row for slide in slides for row in _flagged(reader, run, slide.slide_id))
    return Run(
        name=run.root.resolve().name,
        run_id=text(record.get("run_id")) or "unknown",
        model=model,
        runtime=mapping(record.get("runtime")),
        versions={str(k): str(v) for k, v in mapping(record.get("versions")).items()},
        config=mapping(record.get("config")),
        colors=_colors(model, slides, metrics),
        slides=slides,
        metrics=metrics,
        sources=_sources(metrics, corrections, time, learned),
        raters=_raters(corrections, plans),
        dates=days.span,
        last_touched=days.last_touched,
        touched_readings=days.readings,
        batch_days=batch_days(run, plans),
        purpose=privacy.purpose,
        show_raters=privacy.raters_in_report,
        notes=_notes(run.notes),
        learning=learned,
        flagged=flagged,
        files=_files(run),
        problems=tuple(reader.problems + _contradictions(metrics, corrections)),
    )


def _run_json(run: RunDir) -> Mapping[str, Any]:
    if not run.run_json.is_file():
        raise StoreError(f"there is no run in {run.root}; start one with `wsi-pipeline run CONFIG`")
    record = mapping(read_json(run.run_json))
    if (known(record.get("schema")) or 0) > SCHEMAS["run.json"]:
        raise StoreError(f"{run.run_json} was written by a newer version; update wsi-pipeline")
    return record


def _plans(reader: Reader, run: RunDir) -> dict[str, Mapping[str, Any]]:
    """Handout plans by batch."""
    paths = sorted(run.handout.glob("*/plan.json"))
    return {path.parent.name: plan for path in paths if (plan := reader.json(path)) is not None}


def _slide(
    reader: Reader,
    run: RunDir,
    slide_id: str,
    raw: Mapping[str, Any],
    metrics: Mapping[str, Any],
    plans: Mapping[str, Mapping[str, Any]],
    known_classes: Collection[str],
    handed_out: date | None,
) -> Slide:
    summary = reader.json(run.slide(slide_id).summary)
    reviews = mapping(metrics.get("slides"))
    size = [known(raw.get(key)) for key in ("width", "height")]
    uri = text(raw.get("uri"))
    review = Review.of(mapping(reviews[slide_id]), known_classes) if slide_id in reviews else None
    return Slide(
        slide_id=slide_id,
        name=text(raw.get("name")) or slide_id,
        state=text(raw.get("state")) or "queued",
        reason=_cause(text(raw.get("reason")), slide_id, text(raw.get("name"))),
        uri=uri,
        width=None if size[0] is None else round(size[0]),
        height=None if size[1] is None else round(size[1]),
        mpp=known(raw.get("mpp")),
        mpp_source=text(raw.get("mpp_source")),
        patient=text(raw.get("patient")),
        site=text(raw.get("site")),
        scanner=text(raw.get("scanner")),
        tissue=text(raw.get("tissue")),
        summary=None if summary is None else Summary.of(summary),
        review=review,
        snapshots=tuple(
            path for folder, plan in _own_last(plans, review) for path in _snapshots(folder, plan, slide_id)
        ),
        alarm=_alarm(metrics, slide_id),
        handed_out=handed_out,
    )


def _cause(reason: str | None, *names: str | None) -> str | None:
    """A reason without the slide's name before it: the page has just said which slide it is."""
    for name in names:
        if reason is not None and name is not None:
            reason = reason.removeprefix(f"{name}: ")
    return reason


def _own_last(plans: Mapping[str, Mapping[str, Any]], review: Review | None) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Plans by folder, that of this reading last: in a study others are of another rater or of the manual arm."""
    if review is None or review.batch is None:
        return plans.items()
    own = (review.batch, review.rater)
    return sorted(plans.items(), key=lambda item: (text(item[1].get("batch")), text(item[1].get("rater"))) == own)


def _snapshots(batch: str, plan: Mapping[str, Any], slide_id: str) -> list[str]:
    """What a batch handed out of a slide, as a path from the run directory; empty when the slide is not in it."""
    slides = plan.get("slides")
    return [
        f"handout/{batch}/{text(slide.get('snapshot')) or f'snapshot/{slide_id}.geojson'}"
        for slide in map(mapping, slides if isinstance(slides, list) else ())
        if slide.get("slide_id") == slide_id
    ]


def _alarm(metrics: Mapping[str, Any], slide_id: str) -> str | None:
    """Why the collection left a slide out: its alarms begin with the slide's id."""
    prefix = f"{slide_id}: "
    return next((a.removeprefix(prefix) for a in texts(metrics.get("alarms")) if a.startswith(prefix)), None)


def _flagged(reader: Reader, run: RunDir, slide_id: str) -> list[dict[str, Any]]:
    table = reader.table(run.slide(slide_id).tiles)
    if table is None:
        return []
    try:
        rows = table.filter(pc.field("flagged")).sort_by("rank").to_pylist()
    except (pa.ArrowException, KeyError) as error:
        reader.problems.append(f"{reader.relative(run.slide(slide_id).tiles)} lacks a column: {error}")
        return []
    return [{**row, "slide_id": slide_id} for row in rows]


def _sources(
    metrics: Mapping[str, Any],
    corrections: pa.Table | None,
    time: pa.Table | None,
    learning: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    """Source of each kind of figure; anything simulated among measured records makes the whole simulated."""
    learned = [
        source
        for value in learning.values()
        for record in (value, mapping(value.get("decision")))
        if (source := text(record.get("source")))
    ]
    stated: dict[str, list[str | None]] = {
        "corrections": [text(metrics.get("source")), *_distinct(corrections, "source")],
        "times": [text(mapping(metrics.get("time")).get("source")), *_distinct(time, "source")],
        "the comparison of models": [*learned],
    }
    return {
        what: "simulated" if "simulated" in sources else sorted(s for s in sources if s)[0]
        for what, sources in stated.items()
        if any(sources)
    }


def _distinct(table: pa.Table | None, column: str) -> list[str]:
    if table is None or column not in table.column_names:
        return []
    return sorted(str(v) for v in pc.unique(table[column]).to_pylist() if v is not None)


def _raters(corrections: pa.Table | None, plans: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    planned = {rater for plan in plans.values() if (rater := text(plan.get("rater")))}
    return tuple(sorted(planned | set(_distinct(corrections, "rater"))))


def _privacy(record: Mapping[str, Any]) -> Privacy:
    """The section of the configuration that the run was made with; the defaults where there is none of use."""
    try:
        return Privacy.model_validate(mapping(mapping(record.get("config")).get("privacy")))
    except ValidationError:
        return Privacy()


def _contradictions(metrics: Mapping[str, Any], corrections: pa.Table | None) -> list[str]:
    """Whether metrics.json and corrections.parquet tell of the same slides: they are written one after the other."""
    if corrections is None or not metrics or "slide_id" not in corrections.column_names:
        return []
    told = set(mapping(metrics.get("slides")))
    listed = set(_distinct(corrections, "slide_id"))
    if listed <= told:
        return []
    return [
        f"review/corrections.parquet holds {len(listed - told)} slides that review/metrics.json does not know: "
        "run `wsi-pipeline collect` again"
    ]


def _notes(path: Path) -> tuple[str, ...]:
    """Paragraphs of what the people of the run want every reader to know; shown at the top of the page."""
    if not path.is_file():
        return ()
    words = path.read_text(encoding="utf-8", errors="replace")
    return tuple(" ".join(part.split()) for part in re.split(r"\n\s*\n", words) if part.strip())


def _colors(model: Mapping[str, Any], slides: Sequence[Slide], metrics: Mapping[str, Any]) -> dict[str, RGB]:
    """Class colours as the model's card has them; classes beyond it get one of the palette."""
    colors = model_classes(model)
    # In a study the sums are of more readings than the ones that stand for their slides.
    pooled = {str(name) for name in mapping(mapping(metrics.get("totals")).get("classes"))}
    names = sorted(pooled | {c.name for s in slides if s.review for c in s.review.classes})
    names += sorted({name for s in slides if s.summary for name in s.summary.area_mm2})
    for name in names:
        if name == UNCLASSIFIED:
            colors[name] = GREY
        colors.setdefault(name, _PALETTE[len(colors) % len(_PALETTE)])
    return colors


def _files(run: RunDir) -> dict[str, str]:
    """Data files that are there, by their name, as links from the report's folder."""
    paths: tuple[Path, ...] = (run.run_json, run.metrics, *sorted(run.review.glob("*.parquet")), run.queue, run.project)
    return {path.name: f"../{path.relative_to(run.root).as_posix()}" for path in paths if path.is_file()}
