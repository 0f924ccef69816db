"""One process at a time works on a run directory."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_pipeline.errors import RunLocked, StoreError


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    The kernel drops the lock when the process ends in whatever way, so that a killed run never blocks
    its resume.

    Raises
    ------
    RunLocked
        Another process holds it; names that process.
    StoreError
        The folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(
            f"cannot write {path.parent}: {error.strerror}; give another `output` or mend its permissions"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            raise RunLocked(
                f"{path.parent} is being written by {holder}; wait for it, or give another `output`"
            ) from None
        except OSError as error:
            # Some file systems of clusters are mounted without locks.
            raise StoreError(
                f"{path} cannot be locked: {error.strerror}; give an `output` on a file system that knows flock"
            ) from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}; make room, or give another `output`") from error
        yield
        # Empty while nobody holds it: a call that changes nothing leaves the folder as it was.
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
