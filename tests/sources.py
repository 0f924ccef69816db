"""Everything that a run wrote, looked through for figures of a simulation that pass for measured ones."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.report.reading_html import read_page

# Names under which a figure says what it is.
TELLING = {"source", "time_source", "basis", "fitted_on"}
# What a program saw, a person said, or nobody doubted: none of it may stand in a run that a program reviewed.
OF_PEOPLE = {"measured", "events", "timestamps", "view_tracker", "exact", "self_report"}
# Words of the page in which nothing is called measured.
_NOT = re.compile(
    r"not measured|never set against a measured|It needs a measured|saving that was measured"
    r"|was measured here|not defined or not measured|never measured",
    re.IGNORECASE,
)


def passing_for_measured(root: Path) -> list[str]:
    """Where something below `root` says that it is measured: file, place in it, and the words."""
    found: list[str] = []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        found += [f"{name}{place}: {said}" for place, said in _claims(path)]
    return found


def _claims(path: Path) -> Iterator[tuple[str, str]]:
    if ".zarr" in str(path):
        return
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        for column in TELLING & set(table.column_names):
            yield from ((f" {column}", v) for v in sorted(OF_PEOPLE & {*table[column].to_pylist()}))
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for column in TELLING:
            yield from ((f" {column}", v) for v in sorted(OF_PEOPLE & {row.get(column) or "" for row in rows}))
    elif path.suffix in {".json", ".geojson", ".qpproj"}:
        yield from _in_json(json.loads(path.read_bytes()), "")
    elif path.suffix == ".jsonl":
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            yield from _in_json(json.loads(line), f" line {number}")
    elif path.suffix == ".html":
        text = _NOT.sub("", " ".join(read_page(path).text.split()))
        for match in re.finditer(r"\bmeasured\b|[Ss]ource: (?!simulated)(\w[\w ]*)", text):
            if (match[1] or "") not in {"run directory", "prediction", "model of simulated times"}:
                yield "", text[max(0, match.start() - 60) : match.end() + 30]


def _in_json(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in TELLING and inner in OF_PEOPLE:
                yield f"{place}.{key}", f"{inner} ({value.get('name', '')})"
            yield from _in_json(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _in_json(inner, f"{place}[{number}]")


def unsourced(page: Path) -> list[str]:
    """Sections of a report, all but the methods, without a line on where figures come from, and lines that lack a part.

    A line has to tell of how many (n), what the figures are, their source, and a file that holds them. One with neither
    source nor file is of words alone.
    """
    found = []
    text = page.read_text("utf-8")
    for section in re.finditer(r'<section id="([\w-]+)".*?</section>', text, re.DOTALL):
        lines = re.findall(r'<p class="source">(.*?)</p>', section[0], re.DOTALL)
        if not lines and section[1] != "methods":
            found.append(f"{section[1]}: no line")
        for line in lines:
            told = " ".join(re.sub(r"<[^>]+>", "", line).split())
            parts = {"n": "<b>" in line, "source": "Source: " in told, "data": "<a href=" in line}
            # Words of a definition remain when all else is taken away.
            rest = re.sub(r"<b>.*?</b>|Source: [^.]*\.|Data: .*", "", line, flags=re.DOTALL)
            parts["definition"] = len(re.findall(r"\w+", rest)) >= 3
            missing = [name for name, there in parts.items() if not there]
            if missing and (parts["source"] or parts["data"]):
                found.append(f"{section[1]}: {', '.join(missing)} missing in: {told[:70]}")
    return found
