"""Files that are never half there: written beside their name and renamed into place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import orjson

from wsi_pipeline.errors import StoreError

PARTIAL = ".partial"


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open `<path>.<pid>.partial` for writing and rename it to `path` when the block ends well.

    On any error the partial file is removed and `path` stays as it was.

    Raises
    ------
    StoreError
        The folder cannot be made or written, or the disk is full; names the path and the cause.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        _discard(partial)
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        _discard(partial)
        raise


def _discard(path: Path) -> None:
    # What went wrong before is the error to tell, not that there is nothing to remove.
    with suppress(OSError):
        path.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with sorted keys and two spaces of indent: the same value, the same bytes."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    write_bytes(path, orjson.dumps(value, option=options))


def read_json(path: Path) -> Any:
    """Parse the JSON file at `path`; a missing or damaged one raises `StoreError` that names it."""
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except orjson.JSONDecodeError as error:
        raise StoreError(f"{path} is not valid JSON: {error}") from error


def remove_partials(folder: Path, *, deep: bool = True) -> int:
    """Delete what a killed run left half written in `folder` (and below, if `deep`); returns how many files.

    Raises
    ------
    StoreError
        They cannot be deleted.
    """
    leftovers = sorted(folder.rglob(f"*{PARTIAL}") if deep else folder.glob(f"*{PARTIAL}"))
    for path in leftovers:
        remove(path)
    return len(leftovers)


def remove(path: Path) -> None:
    """Delete the file at `path`, if there is one.

    Raises
    ------
    StoreError
        It cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot delete {path}: {error.strerror or error}; mend the permissions there") from error


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of the file at `path`, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
