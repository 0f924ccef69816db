"""Tables of figures that metrics.json holds in lists: splits, conflicts and modelled times, one row for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import mapping, text

SCHEMA_VERSION = 1
FIGURE_TABLES = ("splits", "conflicts", "modelled_time")


def _schema(columns: Sequence[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(columns, metadata={"schema": str(SCHEMA_VERSION)})


def _all(kind: pa.DataType, *names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, kind) for name in names]


SPLITS = _schema(
    [
        *_all(pa.string(), "split", "group", "label", "refused"),
        *_all(pa.float64(), "ratio", "low", "high"),
        *_all(pa.int64(), "raters", "slides", "readings"),
        *_all(pa.string(), "source"),
    ]
)
CONFLICTS = _schema(
    [
        *_all(pa.int64(), "conflict"),
        *_all(pa.string(), "slide_id", "object", "differs"),
        *_all(pa.float64(), "iou"),
        *_all(pa.bool_(), "adjudicated"),
        *_all(pa.string(), "rater", "batch", "change", "class_before", "class_after", "source"),
    ]
)
MODELLED = _schema(
    [
        *_all(pa.string(), "slide_id", "batch", "rater", "arm"),
        *_all(pa.float64(), "seconds", "low", "high", "level"),
        *_all(pa.string(), "time_source", "rule", "fitted_on"),
    ]
)


def figure_tables(facts: Run) -> dict[str, pa.Table]:
    """By file name; a table without rows is left out, as nothing of the kind was measured."""
    made = {
        "splits.parquet": pa.Table.from_pylist(list(_splits(facts)), schema=SPLITS),
        "conflicts.parquet": pa.Table.from_pylist(list(_conflicts(facts)), schema=CONFLICTS),
        "modelled_time.parquet": pa.Table.from_pylist(list(_modelled(facts)), schema=MODELLED),
    }
    return {name: table for name, table in made.items() if table.num_rows}


def _list(value: object) -> list[Mapping[str, Any]]:
    return [mapping(item) for item in value] if isinstance(value, list) else []


def _splits(facts: Run) -> Iterator[dict[str, Any]]:
    source = text(facts.saving.get("source"))
    for split in _list(facts.saving.get("splits")):
        row = {"split": text(split.get("name")), "label": text(split.get("label")), "source": source}
        if text(split.get("refused")):
            yield {**row, "refused": text(split.get("refused"))}
            continue
        for part in _list(split.get("parts")):
            ends = part.get("ci95")
            low, high = ends if isinstance(ends, list) and len(ends) == 2 else (None, None)
            yield {
                **row,
                "group": text(part.get("group")),
                "ratio": known(part.get("ratio")),
                "low": known(low),
                "high": known(high),
                **{name: _count(part.get(name)) for name in ("raters", "slides", "readings")},
            }


def _conflicts(facts: Run) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(_list(facts.metrics.get("conflicts")), start=1):
        for side in _list(item.get("raters")):
            yield {
                "conflict": number,
                **{name: text(item.get(name)) for name in ("slide_id", "object", "differs")},
                "iou": known(item.get("iou")),
                "adjudicated": item.get("adjudicated") is True,
                **{name: text(side.get(name)) for name in ("rater", "batch", "change", "class_before", "class_after")},
                "source": facts.source,
            }


def _modelled(facts: Run) -> Iterator[dict[str, Any]]:
    raw = mapping(facts.time.get("modelled"))
    for item in _list(raw.get("images")):
        yield {
            **{name: text(item.get(name)) for name in ("slide_id", "batch", "rater", "arm")},
            **{name: known(item.get(name)) for name in ("seconds", "low", "high")},
            "level": known(raw.get("level")),
            "time_source": text(raw.get("time_source")),
            "rule": text(raw.get("rule")),
            "fitted_on": text(raw.get("fitted_on")),
        }


def _count(value: object) -> int | None:
    number = known(value)
    return None if number is None else round(number)
