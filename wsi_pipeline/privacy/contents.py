"""The text inside files of a run: plain files, tables, pictures' tags, models' headers and QuPath's binary files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tifffile
from PIL import ExifTags, Image, UnidentifiedImageError

TEXTS = {
    ".json", ".geojson", ".jsonl", ".qpproj", ".backup", ".md", ".txt", ".log", ".csv", ".html", ".xml", ".yaml",
    ".yml", ".groovy", ".lock", ".tsv", "",
}  # fmt: skip
_DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+")
# Of a binary file only runs of text this long are read: shorter ones appear by chance.
_RUN = re.compile(rb"[\x20-\x7e\xa0-\xff]{8,}")
_LONGEST_HEADER = 100_000_000

Part = tuple[str, str]


def parts_of(path: Path) -> Iterator[Part] | None:
    """What is written in a file, as (where in it, text); None for what holds no text (chunks of a zarr store).

    Raises
    ------
    OSError, ValueError
        The file cannot be read as what its name says.
    """
    if _is_chunk(path):
        return None
    suffix = path.suffix.lower()
    if suffix in TEXTS:
        return _text(path)
    return READERS.get(suffix, _binary)(path)


def _is_chunk(path: Path) -> bool:
    """Pixels of a zarr store: they lie in folders named `c` and are compressed numbers."""
    return not path.suffix and "c" in path.parts and any(part.endswith(".zarr") for part in path.parts)


def _text(path: Path) -> Iterator[Part]:
    yield "", _DATA_URI.sub("", path.read_bytes().decode("utf-8", errors="replace"))


def _table(path: Path) -> Iterator[Part]:
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    yield "columns", "\n".join(table.column_names)
    for key, value in (table.schema.metadata or {}).items():
        # Arrow keeps its own copy of the schema there, in base64.
        if key != b"ARROW:schema":
            yield f"metadata {key.decode(errors='replace')}", value.decode(errors="replace")
    for name in table.column_names:
        column = table[name]
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            yield f"column {name}", "\n".join(str(v) for v in pc.unique(column).to_pylist() if v is not None)
        elif pa.types.is_nested(column.type):
            yield f"column {name}", "\n".join(str(v) for v in column.to_pylist() if v is not None)


def _picture(path: Path) -> Iterator[Part]:
    try:
        with Image.open(path) as image:
            image.load()
            yield from _tags(image.info)
            for tag, value in image.getexif().items():
                yield f"EXIF {ExifTags.TAGS.get(tag, tag)}", _words(value)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def _tags(info: Mapping[Any, Any]) -> Iterator[Part]:
    for key, value in info.items():
        if isinstance(value, str | bytes) and key not in {"icc_profile", "exif"}:
            yield f"chunk {key}", _words(value)


def _words(value: object) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _tiff(path: Path) -> Iterator[Part]:
    """All text tags: description, software, date, artist, host."""
    try:
        with tifffile.TiffFile(path) as file:
            for number, page in enumerate(file.pages):
                for tag in getattr(page, "tags", ()):
                    if isinstance(tag.value, str | bytes) and tag.name not in {"JPEGTables", "InterColorProfile"}:
                        yield f"page {number} {tag.name}", _words(tag.value)
    except tifffile.TiffFileError as error:
        raise ValueError(str(error)) from error


def _safetensors(path: Path) -> Iterator[Part]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError("its header is too long to be one")
        yield "header", file.read(length).decode("utf-8", errors="replace")


def _binary(path: Path) -> Iterator[Part]:
    """Runs of text in a binary file such as data.qpdata, whose strings stand there as they are."""
    data = path.read_bytes()
    words = io.StringIO()
    for run in _RUN.findall(data):
        words.write(run.decode("utf-8", errors="replace") + "\n")
    yield "", words.getvalue()


READERS: Mapping[str, Callable[[Path], Iterator[Part]]] = {
    ".parquet": _table,
    **dict.fromkeys((".png", ".jpg", ".jpeg"), _picture),
    **dict.fromkeys((".tif", ".tiff", ".svs"), _tiff),
    ".safetensors": _safetensors,
}
