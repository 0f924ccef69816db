"""A call that is killed at its n-th act on the file system, as by a power cut: in a fork, without cleaning up."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ACTS = {"os.rename", "os.remove", "os.mkdir", "os.utime", "os.truncate"}
_KILLED = 9
_FAILED = 70
# What was appended last and did not reach the disk whole.
_TORN_BYTES = 7


def killed_at(act: int, call: Callable[[], object], below: Path) -> bool:
    """Run `call` in a process that ends before its `act`-th act on a file below a folder; tells whether it came to it.

    Acts are: opening for writing, renaming, removing, making a folder, setting a time, and the end of an `fsync`, where
    the last bytes that were written are cut off. Raises `AssertionError` when the call itself failed.
    """
    with warnings.catch_warnings():
        # The child runs one call and ends; no thread of the parent holds a lock that it needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            _arm(act, str(below))
            call()
        except BaseException as error:  # noqa: BLE001  (the parent runs the test, not this process)
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.stderr.flush()
            os._exit(_FAILED)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, _KILLED), f"the call failed by itself (exit code {code})"
    return code == _KILLED


def _arm(act: int, below: str) -> None:
    left = act

    def spend() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (writes or event in _ACTS) and str(args[0]).startswith(below) and spend():
            os._exit(_KILLED)

    fsync = os.fsync

    def torn(file: Any) -> None:
        if spend():
            descriptor = file if isinstance(file, int) else file.fileno()
            os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - _TORN_BYTES))
            os._exit(_KILLED)
        fsync(file)

    os.fsync = torn  # type: ignore[assignment]
    sys.addaudithook(hook)
