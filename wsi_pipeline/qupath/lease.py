"""Who writes into a project: an advisory lease of ours, and the signs that QuPath has it open."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from wsi_pipeline.errors import ProjectError, StoreError
from wsi_pipeline.states import EVENTS

NAME = "wsi_lease.json"
LASTS_S = 6 * 3600
# A lease is empty for an instant only, while it is written.
_BEGINS_S = 10
# The event log of an open QuPath gets a line at least every 30 s while it has the focus.
FRESH_S = 120


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold the project's lease while the block runs.

    Raises
    ------
    ProjectError
        Somebody else holds it: who, where, since when, and what to do.
    """
    path = root / NAME
    now = time.time()
    mine = orjson.dumps(
        {
            "schema": 1,
            "who": _user(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": int(now),
            "expires": int(now) + LASTS_S,
        }
    )
    _take(path, mine)
    try:
        yield
    finally:
        # One that ran out may be somebody else's by now.
        with suppress(OSError):
            if path.read_bytes() == mine:
                path.unlink()


def _take(path: Path, mine: bytes) -> None:
    for _ in range(2):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            _set_aside(path, _refuse_held(path))
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
        else:
            with os.fdopen(descriptor, "wb") as file:
                file.write(mine)
            return
    raise _just_now(path)


def _set_aside(path: Path, stale: bytes) -> None:
    """Remove a lease that holds no more; one that somebody has taken since it was read is put back."""
    aside = path.with_name(f"{NAME}.{os.getpid()}.stale")
    try:
        path.replace(aside)
        if aside.read_bytes() != stale:
            aside.replace(path)
            raise _just_now(path)
        aside.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error


def _just_now(path: Path) -> ProjectError:
    return ProjectError(f"{path.parent}: another program took the lease just now; run again when it is done")


def refuse_while_open(root: Path, *, ours: bool = False) -> None:
    """Raise `ProjectError` when QuPath seems to have the project open, by its event logs, or the lease is held.

    Parameters
    ----------
    ours
        True where the caller holds the lease.
    """
    if not ours:
        _refuse_held(root / NAME)
    for log in sorted((root / EVENTS).glob("*.jsonl")):
        age = time.time() - log.stat().st_mtime
        if age < FRESH_S and _last_type(log) != "close":
            raise ProjectError(
                f"{root}: QuPath seems to have it open ({EVENTS}/{log.name} was written {age:.0f} s ago); "
                f"close QuPath and try again {FRESH_S} s later"
            )


def _refuse_held(path: Path) -> bytes:
    """Raise `ProjectError` for a lease that holds; the bytes of one that does not."""
    try:
        raw = path.read_bytes()
        age = time.time() - path.stat().st_mtime
    except OSError:
        return b""
    try:
        lease: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        lease = None
    if not isinstance(lease, dict):
        if age < _BEGINS_S:
            raise _just_now(path)
        return raw  # its writer was killed before it said who it is
    if not isinstance(lease.get("expires"), int) or lease["expires"] < time.time():
        return raw
    if lease.get("host") == socket.gethostname() and not _alive(lease.get("pid")):
        return raw
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(lease.get("since", 0)))
    raise ProjectError(
        f"{path.parent}: {lease.get('who')} on {lease.get('host')} works on it since {since} UTC; "
        f"wait until that is done, or remove {path.name} if it was stopped"
    )


def _alive(pid: Any) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _last_type(log: Path) -> str | None:
    lines = log.read_bytes().strip().rsplit(b"\n", 1)
    try:
        value = orjson.loads(lines[-1])
    except orjson.JSONDecodeError:
        return None
    return value.get("type") if isinstance(value, dict) else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
