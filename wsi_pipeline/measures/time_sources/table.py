"""Rows of a CSV that a person or another program wrote, read leniently."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

# An outline of many vertices is one field; the module's own limit is 128 KiB.
_LONGEST_FIELD = 64 * 1024 * 1024


def columns_and_rows(text: str, *, delimiter: str = ",") -> tuple[list[str], Iterator[dict[str, str]]]:
    """Column names in lower case with `_` for spaces, and the rows; a cell that is missing is empty."""
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    body = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    lines = csv.reader(io.StringIO(body), delimiter=delimiter)
    names = [name.strip().casefold().replace(" ", "_") for name in next(lines, [])]
    return names, ({**dict.fromkeys(names, ""), **dict(zip(names, row, strict=False))} for row in lines if row)
