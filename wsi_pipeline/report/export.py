"""Tidy tables for other programs: one row for each slide, class, object, time, tile and figure, as Parquet and CSV.

The columns are described in docs/tables.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from wsi_pipeline.files import atomic
from wsi_pipeline.report.facts import CHANGES, ClassFigures, Run, Slide
from wsi_pipeline.report.figure_tables import FIGURE_TABLES, figure_tables
from wsi_pipeline.report.reading import Reader
from wsi_pipeline.rundir import RunDir

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
FOLDER = "tables"
# Those that `collect` writes.
REVIEW_TABLES = ("corrections", "time", "region_time", "changed_tiles", "judged_tiles")
PARQUET = {f"{name}.parquet" for name in ("slides", "classes", *FIGURE_TABLES)}
# The first column of each table, where it is not the slide.
_FIRST = {"splits": "split", "conflicts": "conflict"}
_FIGURES = ("area_before_um2", "area_after_um2", "kept_um2", "removed_um2", "added_um2")

_Columns = list[tuple[str, pa.DataType]]


def _all(names: Iterable[str], kind: pa.DataType) -> _Columns:
    return [(name, kind) for name in names]


_SLIDES: _Columns = [
    *_all(("slide_id", "status", "patient", "site", "scanner", "tissue", "batch", "arm", "rater"), pa.string()),
    ("week", pa.date32()),
    *_all(("mpp", "tissue_mm2", "predicted_mm2"), pa.float64()),
    ("regions", pa.int64()),
    ("tiles_flagged", pa.int64()),
    ("flags", pa.string()),
    *_all(CHANGES, pa.int64()),
    ("removed_um2", pa.float64()),
    ("added_um2", pa.float64()),
    ("dice", pa.float64()),
    ("surface_dice", pa.float64()),
    ("active_s", pa.float64()),
    ("time_source", pa.string()),
    ("source", pa.string()),
]
_CLASSES: _Columns = [
    ("slide_id", pa.string()),
    ("class", pa.string()),
    ("reviewed", pa.bool_()),
    ("predictable", pa.bool_()),
    *_all((*_FIGURES, "dice", "iou", "surface_dice", "hd95_um"), pa.float64()),
    ("source", pa.string()),
]
SLIDES = pa.schema(_SLIDES, metadata={"schema": str(SCHEMA_VERSION)})
CLASSES = pa.schema(_CLASSES, metadata={"schema": str(SCHEMA_VERSION)})


def metrics_schema() -> str:
    """The JSON Schema of review/metrics.json, as text."""
    return resources.files("wsi_pipeline.report").joinpath("metrics.schema.json").read_text("utf-8")


def write_tables(run: RunDir, facts: Run) -> dict[str, Path]:
    """Write `report/tables/slides.parquet` and `classes.parquet`, and those of `figure_tables` that have rows.

    The same run gives the same bytes; a table of an earlier report that has no rows any more is removed.
    """
    folder = run.report.parent / FOLDER
    made = {"slides.parquet": slides_table(facts), "classes.parquet": classes_table(facts), **figure_tables(facts)}
    for name in PARQUET - set(made):
        (folder / name).unlink(missing_ok=True)
    for name, table in made.items():
        with atomic(folder / name) as file:
            pq.write_table(table, file, compression="zstd")
    return {name: folder / name for name in made}


def slides_table(facts: Run) -> pa.Table:
    """One row for each slide of the run, in its order; what was not measured is null."""
    return pa.Table.from_pylist([_slide(facts, slide) for slide in facts.slides], schema=SLIDES)


def classes_table(facts: Run) -> pa.Table:
    """One row for each class of each collected slide."""
    rows = [
        _class(facts, slide, figures)
        for slide in facts.slides
        if slide.review is not None
        for figures in slide.review.classes
    ]
    return pa.Table.from_pylist(rows, schema=CLASSES)


def _slide(facts: Run, slide: Slide) -> dict[str, Any]:
    summary, review = slide.summary, slide.reviewed
    row: dict[str, Any] = {
        "slide_id": slide.slide_id,
        "status": slide.status.value,
        "patient": slide.patient,
        "site": slide.site,
        "scanner": slide.scanner,
        "tissue": slide.tissue,
        "batch": slide.review.batch if slide.review else None,
        "arm": slide.review.arm if slide.review else None,
        "rater": slide.review.rater if slide.review else None,
        "week": facts.weeks.get(slide.slide_id) if review else None,
        "mpp": slide.mpp,
    }
    if summary is not None:
        row |= {
            "tissue_mm2": summary.tissue_mm2,
            "predicted_mm2": sum(summary.area_mm2.values()) if summary.area_mm2 else None,
            "regions": summary.regions,
            "tiles_flagged": summary.tiles_flagged,
            "flags": "; ".join(summary.flags) or None,
        }
    if review is not None:
        row |= {kind: review.counts.get(kind, 0) for kind in CHANGES}
        row |= {
            "removed_um2": review.total("removed"),
            "added_um2": review.total("added"),
            "dice": review.lowest("dice"),
            "surface_dice": review.lowest("surface_dice"),
            "active_s": review.active_s,
            "time_source": review.time_source,
            "source": facts.source,
        }
    return row


def _class(facts: Run, slide: Slide, figures: ClassFigures) -> dict[str, Any]:
    return {
        "slide_id": slide.slide_id,
        "class": figures.name,
        "reviewed": slide.reviewed is not None,
        "predictable": figures.predictable,
        "area_before_um2": figures.area_before,
        "area_after_um2": figures.area_after,
        "kept_um2": figures.kept,
        "removed_um2": figures.removed,
        "added_um2": figures.added,
        "dice": figures.dice,
        "iou": figures.iou,
        "surface_dice": figures.surface_dice,
        "hd95_um": figures.hd95_um,
        "source": facts.source,
    }


def write_csv(run: RunDir, facts: Run) -> list[Path]:
    """Write every table of the run as `report/tables/<name>.csv` (UTF-8, a point in decimals, nothing for a gap).

    Tables whose Parquet file is not there are left out, and their CSV of an earlier report is removed; the tiles of all
    slides become one table.
    """
    folder = run.report.parent / FOLDER
    written = []
    for name, table in _csv_tables(run, facts).items():
        path = folder / f"{name}.csv"
        found = table()
        if found is not None:
            with atomic(path) as file:
                pa_csv.write_csv(_flat(found), file)
            written.append(path)
        elif is_csv_of(path, name):
            path.unlink()
    return written


def renew_csv(run: RunDir, facts: Run) -> None:
    """Write those CSV tables anew that an earlier report left, so that none contradicts the page beside it.

    A table that has no rows any more is removed. What is not of this program stays as it is.
    """
    folder = run.report.parent / FOLDER
    for name, table in _csv_tables(run, facts).items():
        path = folder / f"{name}.csv"
        if not is_csv_of(path, name):
            continue
        found = table()
        if found is None:
            path.unlink()
            continue
        with atomic(path) as file:
            pa_csv.write_csv(_flat(found), file)


def _csv_tables(run: RunDir, facts: Run) -> dict[str, Callable[[], pa.Table | None]]:
    """Every table by its name, made when it is asked for; None for one without rows or without its file."""
    reader, figures = Reader(run.root), figure_tables(facts)
    return {
        "slides": lambda: slides_table(facts),
        "classes": lambda: classes_table(facts),
        **{name: partial(figures.get, f"{name}.parquet") for name in FIGURE_TABLES},
        **{name: partial(reader.table, run.review / f"{name}.parquet") for name in REVIEW_TABLES},
        "tiles": lambda: _joined(reader.table(run.slide(slide.slide_id).tiles) for slide in facts.slides),
    }


def is_csv_of(path: Path, name: str) -> bool:
    """Whether a CSV is the table that this program writes under that name: by its first column."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().strip().split(",")[0].strip('"') == _FIRST.get(name, "slide_id")


def _joined(tables: Iterable[pa.Table | None]) -> pa.Table | None:
    there = [table for table in tables if table is not None]
    return pa.concat_tables(there, promote_options="default") if there else None


def _flat(table: pa.Table) -> pa.Table:
    """The table with lists and records as text: CSV has neither."""
    for index, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            texts = [None if value is None else str(value) for value in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table


def figures_of(facts: Run) -> Mapping[str, float]:
    """The run's numbers by a dotted name, as trackers of experiments want them: what was not measured is left out."""
    found: dict[str, float] = {}
    for part in ("totals", "time", "cost", "saving", "quality", "planted"):
        _collect(part, facts.metrics.get(part), found)
    return found


def _collect(name: str, value: object, found: dict[str, float]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _collect(f"{name}.{key}", inner, found)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found[name] = float(value)
