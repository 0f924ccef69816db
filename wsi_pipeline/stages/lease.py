"""One run at a time writes maps to a folder of an object store, where no lock exists: a lease that expires."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeGuard

import orjson

from wsi_pipeline.errors import RunLocked, StoreError
from wsi_pipeline.inference.access import files_of
from wsi_pipeline.stages.swap import Place, Unconditional, Version, place_of

logger = logging.getLogger(__name__)

NAME = "run.lease"
# A run that was killed on a machine that does not come back keeps others out for so long.
LEASE_S = 180.0
RENEW_S = 30.0
# On a store that knows no conditions, how long who wrote the lease waits whether it is overwritten.
SETTLE_S = 5.0
ATTEMPTS = 3


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
        lease = _Lease(place_of(fs, f"{folder}/{NAME}"), url, output)
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
    def __init__(self, place: Place, url: str, output: Path) -> None:
        self._place, self._url = place, url
        # The store may be read by others: it is told no paths.
        self._whose = hashlib.sha256(f"{socket.gethostname()}:{output}".encode()).hexdigest()[:16]
        # Of this call: an expired lease of this very output is not this call's.
        self._token = uuid.uuid4().hex

    def take(self) -> None:
        for _ in range(ATTEMPTS):
            begun = time.monotonic()
            said, version = self._place.read()
            holder = _parsed(said)
            if holder is not None and holder.get("token") == self._token:
                return  # a write whose answer was lost
            self._refuse(holder)
            if self._written(version, begun):
                return
        raise self._taken()

    def _refuse(self, holder: dict[str, Any] | None) -> None:
        if self._is_of_another(holder) and float(holder.get("until", 0)) > time.time():
            until = time.strftime("%H:%M:%S", time.localtime(float(holder["until"])))
            raise RunLocked(
                f"{self._url} is being written by {holder.get('holder')}; wait for it (its lease would end at "
                f"{until}), or give another `inference.maps`"
            )

    def _written(self, version: Version, begun: float) -> bool:
        """Whether the lease is this call's in place of `version`, which was read after the moment `begun`."""
        try:
            return self._place.write(self._said(), version)
        except Unconditional:
            pass
        # Who wrote last holds it. A run whose writing takes longer than the others wait is not let in: so of two runs
        # that both found nobody, either one saw what the other wrote, or it is this one.
        self._place.overwrite(self._said())
        if time.monotonic() - begun >= SETTLE_S:
            # It may lie over the lease of another, who then writes it again.
            self.leave()
            raise self._taken()
        time.sleep(SETTLE_S)
        holder = _parsed(self._place.read()[0])
        return holder is not None and holder.get("token") == self._token

    def _taken(self) -> RunLocked:
        return RunLocked(
            f"{self._url} may have been taken by another run just now; try again, or give another `inference.maps`"
        )

    def keep(self, over: threading.Event) -> None:
        """Say again and again that the run is alive; not over the lease of another that took it meanwhile."""
        while not over.wait(RENEW_S):
            try:
                said, version = self._place.read()
                holder = _parsed(said)
                if self._is_of_another(holder):
                    logger.error(
                        "%s: %s took the lease while this run stood still, and both write there; stop one of them",
                        self._url, holder.get("holder"),
                    )  # fmt: skip
                    return
                self._renew(version)
            except Exception as error:  # noqa: BLE001 - a busy store is no reason to stop; the maps have their own errors
                logger.warning("%s: the lease could not be renewed: %s", self._url, error)

    def _renew(self, version: Version) -> None:
        try:
            # Too late: somebody took it between; told the next time.
            self._place.write(self._said(), version)
        except Unconditional:
            self._place.overwrite(self._said())

    def leave(self) -> None:
        # What is not removed expires.
        with suppress(Exception):
            if not self._is_of_another(_parsed(self._place.read()[0])):
                self._place.remove()

    def _is_of_another(self, holder: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
        """Whether a run with another output says that it holds the lease."""
        return holder is not None and bool(holder) and holder.get("place") != self._whose

    def _said(self) -> bytes:
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        until = time.time() + LEASE_S
        return orjson.dumps({"holder": holder, "place": self._whose, "until": until, "token": self._token})


def _parsed(said: bytes | None) -> dict[str, Any] | None:
    """What a lease says, {} if nothing that could be read; None when there is none."""
    if said is None:
        return None
    try:
        value = orjson.loads(said)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
