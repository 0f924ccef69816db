"""An object behind fsspec: ranges asked for together, patience with a busy store, and none with one that is gone."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from wsi_pipeline.slides.ranged import RangedFile

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A store that fails is asked again after these seconds.
PAUSES: tuple[float, ...] = (0.2, 1.0, 4.0, 12.0)
# After the last of them nobody waits for it again for so long: a dead store is to cost a cohort seconds, not hours.
GIVEN_UP_S = 30.0
# An answer takes so long at most, and a second more for each piece of this size.
STALL_S = 30.0
BYTES_PER_S: Final = 128 * 1024
# Headers and directories lie scattered over a file: they are read in blocks of this size, each once.
BLOCK: Final = 64 * 1024
BLOCKS: Final = 128
# Headers of the files read last are kept: a slide is opened several times on its way.
HEADERS: Final = 4


class StoreFailed(OSError):
    """The store does not give what it was asked for; nothing is known to be wrong with the file."""


class RemoteFile:
    """One object on any store that fsspec reaches.

    Every request is bounded in time, and asked again when the store is busy, breaks off or stays silent. Once it has
    failed to the end, the requests of the next `GIVEN_UP_S` seconds fail at once with the same cause.

    Attributes
    ----------
    size
        Length in bytes.
    version
        What the store says of this content (its ETag); None where it says nothing.

    Raises
    ------
    FileNotFoundError, PermissionError
        There is nothing there, or it may not be read.
    StoreFailed
        The store answers with errors, or not at all.
    OSError
        It does not say how long the file is.
    """

    def __init__(self, uri: str) -> None:
        import fsspec

        self.uri = uri
        self._fs, self.path = fsspec.core.url_to_fs(uri)
        self._failed: tuple[float, str] | None = None
        size, self.version = self._said()
        if size is None:
            raise OSError("the server does not say how long the file is, so parts of it cannot be asked for")
        self.size = int(size)

    def changed(self) -> bool:
        """Whether another content lies there now, or none; a store that does not answer says nothing."""
        self._fs.invalidate_cache(self.path)
        try:
            size, version = self._said()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return (size, version) != (self.size, self.version)

    def _said(self) -> tuple[Any, str | None]:
        """Length and version, as the store tells them now."""
        info = self._patiently(lambda: self._ask("info", 0, self.path))
        version = info.get("ETag") or info.get("etag")
        return info.get("size"), None if version is None else str(version)

    def ranges(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes from each start to its end, asked for together; what fails of them is asked for again."""
        parts: dict[int, bytes] = {}

        def ask() -> None:
            missing = [index for index in range(len(spans)) if index not in parts]
            wanted = [spans[index] for index in missing]
            starts, ends = [start for start, _ in wanted], [end for _, end in wanted]
            paths, count = [self.path] * len(wanted), sum(ends) - sum(starts)
            errors = []
            # Asynchronous stores return the error of a range in its place, others raise.
            for index, (start, end), data in zip(
                missing, wanted, self._ask("cat_ranges", count, paths, starts, ends), strict=True
            ):
                if isinstance(data, Exception):
                    errors.append(data)
                elif len(data) != min(end, self.size) - start:
                    errors.append(OSError(f"it sent {len(data)} bytes where {end - start} were asked for"))
                else:
                    parts[index] = data
            if errors:
                raise errors[0]

        if spans:
            self._patiently(ask)
        return [parts[index] for index in range(len(spans))]

    def _patiently(self, ask: Callable[[], T]) -> T:
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise StoreFailed(self._failed[1])
        for pause in (*PAUSES, None):
            try:
                answer = ask()
            except (PermissionError, NotImplementedError, ImportError):
                raise
            except Exception as found:
                error = _behind(found)
                if isinstance(error, FileNotFoundError):
                    raise
                said = " ".join(str(error).split()) or type(error).__name__
                if pause is None or _is_refusal(error):
                    self._failed = (time.monotonic() + GIVEN_UP_S, f"the store fails: {said}")
                    raise StoreFailed(self._failed[1]) from error
                logger.warning("%s: %s; asking again in %g s", self.path, said, pause)
                time.sleep(pause)
            else:
                self._failed = None
                return answer
        raise AssertionError("the last pause is None")

    def _ask(self, name: str, count: int, *arguments: Any) -> Any:
        """Call a method of the file system; an asynchronous one is dropped when it takes too long for `count` bytes."""
        from fsspec.asyn import AsyncFileSystem

        if not isinstance(self._fs, AsyncFileSystem):
            return getattr(self._fs, name)(*arguments)
        limit = STALL_S + count / BYTES_PER_S
        future = asyncio.run_coroutine_threadsafe(getattr(self._fs, f"_{name}")(*arguments), self._fs.loop)
        try:
            return future.result(limit)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise TimeoutError(f"no answer within {limit:.0f} s") from None


class _Blocks:
    """Blocks of one file; the least recently used go first."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, file: RemoteFile, first: int, last: int) -> bytes:
        """All bytes of the blocks `first` to `last`; those that are missing come in one request."""
        with self._lock:
            missing = [number for number in range(first, last + 1) if number not in self._blocks]
            if missing:
                low, high = missing[0], missing[-1] + 1
                (data,) = file.ranges([(low * BLOCK, min(high * BLOCK, file.size))])
                for number in range(low, high):
                    self._blocks[number] = data[(number - low) * BLOCK : (number - low + 1) * BLOCK]
            found = b"".join(self._blocks[number] for number in range(first, last + 1))
            for number in range(first, last + 1):
                self._blocks.move_to_end(number)
            while len(self._blocks) > BLOCKS:
                self._blocks.popitem(last=False)
        return found


_headers: OrderedDict[tuple[str, int, str], _Blocks] = OrderedDict()
_headers_lock = threading.Lock()


def _blocks_of(file: RemoteFile) -> _Blocks:
    """What is known of a file whose content is the same as it was."""
    if file.version is None:
        return _Blocks()
    key = file.uri, file.size, file.version
    with _headers_lock:
        blocks = _headers.setdefault(key, _Blocks())
        _headers.move_to_end(key)
        while len(_headers) > HEADERS:
            _headers.popitem(last=False)
    return blocks


class HeaderFile(RangedFile):
    """A remote file to be read here and there: blocks come once, those that lie beside each other in one request."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__(file.size)
        self._file = file
        self._blocks = _blocks_of(file)

    def _bytes(self, start: int, end: int) -> bytes:
        first, last = start // BLOCK, (end - 1) // BLOCK
        found = self._blocks.get(self._file, first, last)
        return found[start - first * BLOCK : end - first * BLOCK]


def _behind(error: Exception) -> Exception:
    """The error itself; fsspec says of any answer and of none that there is no such URL, and raises that from it."""
    cause = error.__cause__
    of_http = type(cause).__module__.partition(".")[0] == "aiohttp"
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and of_http:
        return error if getattr(cause, "status", 0) in (404, 410) else cause
    return error


def _is_refusal(error: Exception) -> bool:
    """Whether the store has understood and will say the same again."""
    status = getattr(error, "status", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429)
