"""A file that is read in ranges of bytes, as Python's own files are read."""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import Any


class RangedFile(io.RawIOBase):
    """Read only, of `size` bytes; what it is made of gives the bytes of a range."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    @abstractmethod
    def _bytes(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`, which lie inside of the file; fewer where it turns out shorter."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        data = self._bytes(self._at, end) if end > self._at else b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
