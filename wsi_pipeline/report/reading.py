"""Files of a run directory, read with tolerance: what is missing or damaged becomes a gap, and is listed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wsi_pipeline.errors import QuPathFormatError, StoreError
from wsi_pipeline.files import read_json
from wsi_pipeline.objects import PathObject
from wsi_pipeline.qupath.geojson import read_geojson
from wsi_pipeline.report.numbers import known

logger = logging.getLogger(__name__)

# The newest schema of each kind of file that this report understands.
SCHEMAS: Mapping[str, int] = {"run.json": 1, "summary.json": 1, "plan.json": 1, "metrics.json": 1}
OTHER_SCHEMA = 1


@dataclass(slots=True)
class Reader:
    """Reads below `root` and keeps what could not be read, in the order in which it was met."""

    root: Path
    problems: list[str] = field(default_factory=list)

    def json(self, path: Path) -> dict[str, Any] | None:
        """The mapping in a JSON file; None where there is no file, and with a problem noted where it is unusable."""
        if not path.is_file():
            return None
        try:
            value = read_json(path)
        except StoreError as error:
            self._refuse(path, str(error))
            return None
        if not isinstance(value, dict):
            self._refuse(path, "does not hold a JSON object")
            return None
        newest = SCHEMAS.get(path.name, OTHER_SCHEMA)
        if (known(value.get("schema")) or 0) > newest:
            self._refuse(path, f"has schema {value['schema']}; this report reads up to {newest}")
            return None
        return value

    def table(self, path: Path) -> pa.Table | None:
        """The table in a Parquet file; None as for `json`."""
        if not path.is_file():
            return None
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            logger.debug("Parquet: %s", error)
            self._refuse(path, "cannot be read as Parquet: it is damaged or of another kind")
            return None
        version = _table_schema(table)
        if version > OTHER_SCHEMA:
            self._refuse(path, f"has schema {version}; this report reads up to {OTHER_SCHEMA}")
            return None
        return table

    def objects(self, path: Path) -> list[PathObject] | None:
        """The objects in a GeoJSON file; None as for `json`."""
        if not path.is_file():
            return None
        try:
            return read_geojson(path)
        except (StoreError, QuPathFormatError) as error:
            self._refuse(path, str(error))
            return None

    def relative(self, path: Path) -> str:
        """`path` as it is named inside the run directory."""
        return path.relative_to(self.root).as_posix()

    def _refuse(self, path: Path, cause: str) -> None:
        name = self.relative(path)
        cause = " ".join(cause.replace(str(path), name).split())
        line = cause if cause.startswith(name) else f"{name} {cause}"
        logger.warning("left out of the report: %s", line)
        self.problems.append(line)


def _table_schema(table: pa.Table) -> int:
    metadata = table.schema.metadata or {}
    text = metadata.get(b"schema", b"0")
    return int(text) if text.isdigit() else 0


def mapping(value: object) -> Mapping[str, Any]:
    """`value` when it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    """`value` as text when it says anything."""
    if value is None or isinstance(value, dict | list):
        return None
    return str(value).strip() or None


def texts(value: object) -> tuple[str, ...]:
    """The entries of a list of words, or one word."""
    values = value if isinstance(value, list) else [value]
    return tuple(word for v in values if (word := text(v)) is not None)
