"""Bytes of a slide: ranges of a local file, or of an object behind fsspec, many in one call and from any thread."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger(__name__)

# One request is dearer than the bytes of a gap like this.
GAP = 16 * 1024
# Headers and directories are read through a cache of blocks of this size: they lie scattered over the file.
HEADER_BLOCK = 128 * 1024
HEADER_BLOCKS = 64
# Bytes of each sample of a fingerprint.
SAMPLE = 64 * 1024
# A store that answers 503 is asked again after these seconds.
PAUSES = (0.2, 1.0, 4.0)


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
    OSError
        It cannot be read, or does not say how long it is.
    """

    def __init__(self, uri: str) -> None:
        self._descriptor: int | None = None
        self._path = uri
        if "://" in uri or "::" in uri:
            import fsspec

            self._fs, self._path = fsspec.core.url_to_fs(uri)
            size = self._fs.size(self._path)
            if size is None:
                raise OSError("the server does not say how long the file is, so parts of it cannot be asked for")
            self.size = int(size)
        else:
            self._descriptor = os.open(uri, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self.size = os.fstat(self._descriptor).st_size

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_local(self) -> bool:
        return self._descriptor is not None

    def open(self) -> Any:
        """A file object for what reads headers; a remote one fetches small blocks, each once."""
        if self._descriptor is not None:
            return open(self._path, "rb")
        return self._fs.open(
            self._path,
            "rb",
            block_size=HEADER_BLOCK,
            cache_type="blockcache",
            cache_options={"maxblocks": HEADER_BLOCKS},
        )

    def ranges(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, count); remote ones are joined where they are near and fetched together."""
        if self._descriptor is not None:
            return [os.pread(self._descriptor, count, offset) for offset, count in spans]
        joined = coalesced(spans)
        parts = self._fetched(joined)
        starts = [start for start, _ in joined]
        found = []
        for offset, count in spans:
            part = bisect_right(starts, offset) - 1
            found.append(parts[part][offset - starts[part] : offset - starts[part] + count])
        return found

    def _fetched(self, joined: Sequence[tuple[int, int]]) -> list[bytes]:
        parts: dict[int, bytes] = {}
        for pause in (*PAUSES, None):
            missing = [index for index in range(len(joined)) if index not in parts]
            # Asynchronous stores return the error of a range in its place, others raise.
            answers = self._fs.cat_ranges(
                [self._path] * len(missing), [joined[i][0] for i in missing], [joined[i][1] for i in missing]
            )
            parts.update((i, data) for i, data in zip(missing, answers, strict=True) if not isinstance(data, Exception))
            errors = [data for data in answers if isinstance(data, Exception)]
            if not errors:
                break
            if pause is None or isinstance(errors[0], FileNotFoundError | PermissionError):
                raise errors[0]
            logger.warning("%s: %s; asking again in %g s", self._path, errors[0], pause)
            time.sleep(pause)
        return [parts[index] for index in range(len(joined))]

    def fingerprint(self) -> str:
        """A digest of the length and of three samples of the bytes: for finding copies, not for proving identity."""
        starts = sorted({0, max(0, self.size // 2 - SAMPLE // 2), max(0, self.size - SAMPLE)})
        digest = hashlib.sha256(str(self.size).encode())
        for data in self.ranges([(start, min(SAMPLE, self.size - start)) for start in starts]):
            digest.update(data)
        return digest.hexdigest()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def coalesced(spans: Sequence[tuple[int, int]], gap: int = GAP) -> list[tuple[int, int]]:
    """(start, end) of the fewest ranges that hold all (offset, count), sorted; gaps up to `gap` bytes are bridged."""
    found: list[tuple[int, int]] = []
    for offset, count in sorted(spans):
        if found and offset <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], offset + count))
        else:
            found.append((offset, offset + count))
    return found
