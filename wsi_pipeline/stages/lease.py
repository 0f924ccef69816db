"""One run at a time writes maps to a folder of an object store, where no lock exists: a lease that expires."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeGuard

import orjson

from wsi_pipeline.errors import RunLocked, StoreError
from wsi_pipeline.inference.access import files_of

logger = logging.getLogger(__name__)

NAME = "run.lease"
# A run that was killed on a machine that does not come back keeps others out for so long.
LEASE_S = 180.0
RENEW_S = 30.0


@contextmanager
def leased(url: str, output: Path) -> Iterator[None]:
    """Hold the lease of the folder `url` while the block runs.

    Parameters
    ----------
    output
        The run directory, whose lock the caller holds: a lease that it left earlier is its own.

    Raises
    ------
    RunLocked
        A run with another output holds it; names that process, and when it would expire.
    StoreError
        The store cannot be written.
    """
    try:
        fs, folder = files_of(url)
        lease = _Lease(fs, f"{folder}/{NAME}", url, output)
        lease.take()
    except RunLocked:
        raise
    except Exception as error:
        raise StoreError(
            f"cannot write {url}: {' '.join(str(error).split()) or type(error).__name__}; give another "
            "`inference.maps`, or mend the access"
        ) from error
    over = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(over,), name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        lease.leave()


class _Lease:
    def __init__(self, fs: Any, path: str, url: str, output: Path) -> None:
        self._fs, self._path, self._url = fs, path, url
        # The store may be read by others: it is told no paths.
        self._place = hashlib.sha256(f"{socket.gethostname()}:{output}".encode()).hexdigest()[:16]

    def take(self) -> None:
        for _ in range(2):
            try:
                self._fs.pipe_file(self._path, self._said(), mode="create")
                return
            except Exception:
                # Every store has its own error for an object that is there already.
                holder = self._holder()
                if holder is None:
                    raise
            if self._is_of_another(holder) and float(holder.get("until", 0)) > time.time():
                until = time.strftime("%H:%M:%S", time.localtime(float(holder["until"])))
                raise RunLocked(
                    f"{self._url} is being written by {holder.get('holder')}; wait for it (its lease would end at "
                    f"{until}), or give another `inference.maps`"
                )
            self._fs.rm_file(self._path)
        raise RunLocked(f"{self._url} was taken by another run just now; try again, or give another `inference.maps`")

    def keep(self, over: threading.Event) -> None:
        """Say again and again that the run is alive; not over the lease of another that took it meanwhile."""
        while not over.wait(RENEW_S):
            try:
                holder = self._holder()
                if self._is_of_another(holder):
                    logger.error(
                        "%s: %s took the lease while this run stood still, and both write there; stop one of them",
                        self._url, holder.get("holder"),
                    )  # fmt: skip
                    return
                self._fs.pipe_file(self._path, self._said())
            except Exception as error:  # noqa: BLE001 - a busy store is no reason to stop; the maps have their own errors
                logger.warning("%s: the lease could not be renewed: %s", self._url, error)

    def leave(self) -> None:
        # What is not removed expires.
        with suppress(Exception):
            if not self._is_of_another(self._holder()):
                self._fs.rm_file(self._path)

    def _is_of_another(self, holder: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
        """Whether a run with another output says that it holds the lease."""
        return holder is not None and bool(holder) and holder.get("place") != self._place

    def _holder(self) -> dict[str, Any] | None:
        """What the lease says; None when there is none."""
        try:
            data = self._fs.cat_file(self._path)
        except FileNotFoundError:
            return None
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}

    def _said(self) -> bytes:
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        return orjson.dumps({"holder": holder, "place": self._place, "until": time.time() + LEASE_S})
