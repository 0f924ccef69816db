"""Writing one small object only if nobody else wrote it meanwhile, on whatever store."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

Version = Any
"""Of what was read, for the `write` that is to replace it; None: there was nothing."""

# What S3 says when the object is another one, or gone, or being written by another at this moment.
_TOO_LATE: Final = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "412", "409"}
# What stores that speak S3 say when they know no conditions.
_UNKNOWN: Final = {"NotImplemented", "InvalidArgument", "501"}


class Unconditional(Exception):
    """The store knows no conditions: who wrote last has written."""


class Place(Protocol):
    """Where the object lies."""

    def read(self) -> tuple[bytes | None, Version]:
        """What is there now, None for nothing, and its version."""

    def write(self, data: bytes, version: Version) -> bool:
        """Write, if what is there is of this version still; false: it is not, and nothing was written.

        Raises
        ------
        Unconditional
            The store cannot do that; nothing was written, or it was written in any case.
        """

    def overwrite(self, data: bytes) -> None:
        """Write, whatever is there."""

    def remove(self) -> None:
        """Delete it."""


def place_of(fs: Any, path: str) -> Place:
    """The object `path` on an fsspec file system."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if protocols & {"s3", "s3a"}:
        return _OnS3(fs, path)
    if "file" in protocols:
        return _Locked(fs, path, lambda: _file_lock(Path(f"{path}.lock")))
    if "memory" in protocols:
        return _Locked(fs, path, lambda: _MEMORY)
    return _Anywhere(fs, path)


class _Anywhere:
    """A store of which nothing is known."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path

    def read(self) -> tuple[bytes | None, Version]:
        try:
            found: bytes = self._fs.cat_file(self._path)
        except FileNotFoundError:
            return None, None
        return found, found

    def write(self, data: bytes, version: Version) -> bool:
        raise Unconditional

    def overwrite(self, data: bytes) -> None:
        self._fs.pipe_file(self._path, data)

    def remove(self) -> None:
        self._fs.rm_file(self._path)


_MEMORY: Final = threading.RLock()


class _Locked(_Anywhere):
    """A file or an object of this process: looked at and written under a lock."""

    def __init__(self, fs: Any, path: str, lock: Any) -> None:
        super().__init__(fs, path)
        self._lock = lock

    def read(self) -> tuple[bytes | None, Version]:
        with self._lock():
            return super().read()

    def write(self, data: bytes, version: Version) -> bool:
        with self._lock():
            if super().read()[1] != version:
                return False
            super().overwrite(data)
            return True

    def overwrite(self, data: bytes) -> None:
        with self._lock():
            super().overwrite(data)


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    # The kernel drops it with its owner, however that ends; the empty file stays.
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _OnS3(_Anywhere):
    """By the conditions of `PutObject`: S3 compares and writes at once."""

    def read(self) -> tuple[bytes | None, Version]:
        try:
            # The version first: if the object changes in between, what is read is newer, and the write comes too late.
            version = self._fs.info(self._path, refresh=True)["ETag"]
            return self._fs.cat_file(self._path), version
        except FileNotFoundError:
            return None, None

    def write(self, data: bytes, version: Version) -> bool:
        if not self._put(data, {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}):
            return False
        # Some servers pass conditions over: this one cannot hold, since the object is there.
        if self._put(data, {"IfNoneMatch": "*"}):
            raise Unconditional
        return True

    def _put(self, data: bytes, condition: dict[str, str]) -> bool:
        from botocore.exceptions import ParamValidationError

        bucket, key, _ = self._fs.split_path(self._path)
        try:
            self._fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
        except ParamValidationError as error:  # a botocore that is too old
            raise Unconditional from error
        except OSError as error:
            code = _code(error)
            if code in _TOO_LATE or isinstance(error, FileExistsError):
                return False
            if code in _UNKNOWN:
                raise Unconditional from error
            raise
        return True


def _code(error: OSError) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
