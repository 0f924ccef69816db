"""Bytes of a slide: ranges of a local file, or of an object behind fsspec, many in one call and from any thread."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from wsi_pipeline.slides.remote import HeaderFile, RemoteFile

# One request is dearer than the bytes of a gap like this.
GAP = 16 * 1024
# Bytes of each sample of a fingerprint.
SAMPLE = 64 * 1024


class ByteSource:
    """Byte ranges of one file.

    Attributes
    ----------
    size
        Length in bytes.

    Raises
    ------
    FileNotFoundError
        There is nothing there.
    StoreFailed
        The store that it lies on answers with errors, or not at all.
    OSError
        It cannot be read, or does not say how long it is.
    """

    def __init__(self, uri: str) -> None:
        self._descriptor = -1
        self._remote: RemoteFile | None = None
        self._path = uri
        if "://" in uri or "::" in uri:
            self._remote = RemoteFile(uri)
            self._path, self.size = self._remote.path, self._remote.size
        else:
            self._descriptor = os.open(uri, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self.size = os.fstat(self._descriptor).st_size

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_local(self) -> bool:
        return self._remote is None

    def open(self) -> Any:
        """A file object for what reads headers; a remote one fetches small blocks, each once."""
        return open(self._path, "rb") if self._remote is None else HeaderFile(self._remote)

    def ranges(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, count); remote ones are joined where they are near and fetched together."""
        if self._remote is None:
            return [os.pread(self._descriptor, count, offset) for offset, count in spans]
        joined = coalesced(spans)
        parts = self._remote.ranges(joined)
        starts = [start for start, _ in joined]
        found = []
        for offset, count in spans:
            part = bisect_right(starts, offset) - 1
            found.append(parts[part][offset - starts[part] : offset - starts[part] + count])
        return found

    def fingerprint(self) -> str:
        """A digest of the length and of three samples of the bytes: for finding copies, not for proving identity."""
        starts = sorted({0, max(0, self.size // 2 - SAMPLE // 2), max(0, self.size - SAMPLE)})
        digest = hashlib.sha256(str(self.size).encode())
        for data in self.ranges([(start, min(SAMPLE, self.size - start)) for start in starts]):
            digest.update(data)
        return digest.hexdigest()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def coalesced(spans: Sequence[tuple[int, int]], gap: int = GAP) -> list[tuple[int, int]]:
    """(start, end) of the fewest ranges that hold all (offset, count), sorted; gaps up to `gap` bytes are bridged."""
    found: list[tuple[int, int]] = []
    for offset, count in sorted(spans):
        if found and offset <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], offset + count))
        else:
            found.append((offset, offset + count))
    return found
