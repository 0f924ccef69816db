"""Bytes of a slide: ranges of a local file, or of an object behind fsspec, many in one call and from any thread."""

from __future__ import annotations

import hashlib
import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from wsi_pipeline.slides.archives import Window, archive_of, stored_at
from wsi_pipeline.slides.remote import HeaderFile, RemoteFile

# One request is dearer than the bytes of a gap like this.
GAP = 16 * 1024
COMPRESSED = (
    "it is compressed inside its archive, so that every part of it is unpacked from its beginning on: store it as it "
    "is (zip -0)"
)
# Bytes of each sample of a fingerprint.
SAMPLE = 64 * 1024
# Fingerprints that a process keeps of files elsewhere.
MOST_SAMPLED = 1000

_sampled: dict[tuple[str, str, int, int], str] = {}
"""By address, version, start and length."""


class ByteSource:
    """Byte ranges of one file.

    Attributes
    ----------
    size
        Length in bytes.
    path
        Of a local file; None where it lies elsewhere, or is a part of a file.
    notes
        What makes it slow to read.

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
        self._start = 0
        self._name = self._local = uri
        self.path: str | None = None
        self.notes: tuple[str, ...] = ()
        inside = archive_of(uri)
        if inside is None:
            self._open(uri)
            return
        member, archive = inside
        self._open(archive)
        try:
            self._enter(member, uri)
        except BaseException:
            self.close()
            raise

    def _open(self, uri: str) -> None:
        if "://" in uri or "::" in uri:
            self._remote = RemoteFile(uri)
            self._name, self.size = str(self._remote.path), self._remote.size
        else:
            self._descriptor = os.open(uri, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self._name = self._local = uri
            self._opened = os.fstat(self._descriptor)
            self.size = self._opened.st_size
            self.path = uri

    def _enter(self, member: str, uri: str) -> None:
        """From the archive to what it holds."""
        with self.open() as archive:
            span = stored_at(archive, member)
        if span is None:
            self.close()
            self._open(uri)
            self.notes = (COMPRESSED,)
        else:
            self._start, self.size = span
        self._name, self.path = member, None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._name.rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_local(self) -> bool:
        return self._remote is None

    def open(self) -> Any:
        """A file object for what reads headers; a remote one fetches small blocks, each once."""
        file: Any = io.FileIO(self._local) if self._remote is None else HeaderFile(self._remote)
        return Window(file, self._start, self.size) if self._start else file

    def ranges(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, count); remote ones are joined where they are near and fetched together."""
        if self._remote is None:
            return [os.pread(self._descriptor, count, self._start + offset) for offset, count in spans]
        spans = [(self._start + offset, count) for offset, count in spans]
        joined = coalesced(spans)
        parts = self._remote.ranges(joined)
        starts = [start for start, _ in joined]
        found = []
        for offset, count in spans:
            part = bisect_right(starts, offset) - 1
            found.append(parts[part][offset - starts[part] : offset - starts[part] + count])
        return found

    def changed(self) -> bool:
        """Whether another file lies there now than the one that was opened, or none, or it was written to."""
        return self._remote.changed() if self._remote is not None else file_changed(self._local, self._opened)

    def fingerprint(self) -> str:
        """A digest of the length and of three samples of the bytes: for finding copies, not for proving identity.

        Of a file elsewhere whose store names versions, the samples are fetched once by a process.
        """
        remote = self._remote
        if remote is None or remote.version is None:
            return self._sampled()
        key = (remote.uri, remote.version, self._start, self.size)
        found = _sampled.get(key)
        if found is None:
            if len(_sampled) >= MOST_SAMPLED:
                _sampled.clear()
            found = _sampled[key] = self._sampled()
        return found

    def _sampled(self) -> str:
        starts = sorted({0, max(0, self.size // 2 - SAMPLE // 2), max(0, self.size - SAMPLE)})
        digest = hashlib.sha256(str(self.size).encode())
        for data in self.ranges([(start, min(SAMPLE, self.size - start)) for start in starts]):
            digest.update(data)
        return digest.hexdigest()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def file_changed(path: str, before: os.stat_result) -> bool:
    """Whether a local file is no longer what it was."""
    try:
        now = os.stat(path)
    except OSError:
        return True
    # Not its number: mounts of servers make these up.
    return (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)


def coalesced(spans: Sequence[tuple[int, int]], gap: int = GAP) -> list[tuple[int, int]]:
    """(start, end) of the fewest ranges that hold all (offset, count), sorted; gaps up to `gap` bytes are bridged."""
    found: list[tuple[int, int]] = []
    for offset, count in sorted(spans):
        if found and offset <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], offset + count))
        else:
            found.append((offset, offset + count))
    return found
