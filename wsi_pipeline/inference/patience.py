"""Waiting for workers of a dask scheduler, but not for ever."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from distributed import Client, Future

from wsi_pipeline.errors import ClusterError

logger = logging.getLogger(__name__)

LOOK_S: Final = 5.0
"""How often the scheduler is asked for its workers while something is waited for."""
QUIET_S: Final = 20.0
"""How long none may be there without a word: processes take some seconds to start, and to start again."""


class Patience:
    """Waits for workers, but not for ever when there are none: one that died is started again, or comes back, or not.

    Parameters
    ----------
    client
        Of the scheduler that is asked.
    seconds
        How long there may be no worker at all; None: batch systems may take days.
    resource
        Only workers count that say they have it ("GPU"): what is waited for is sent to these alone. None: all.
    """

    def __init__(self, client: Client, seconds: float | None, *, resource: str | None = None) -> None:
        self._client = client
        self._seconds = seconds
        self._resource = resource
        self._kind = "dask worker" if resource is None else f"dask worker with a {resource}"
        self._told = False
        self._seen = self._asked = time.monotonic()

    def look(self) -> None:
        """To be called again and again while something is waited for.

        Raises
        ------
        ClusterError
            There has been no worker for too long.
        """
        now = time.monotonic()
        if now - self._asked < LOOK_S:
            return
        # Where nobody looked for a while, what was then is not known.
        if now - self._asked > 10 * LOOK_S or self._there():
            self._seen, self._told = now, False
        elif not self._told and now - self._seen > QUIET_S:
            self._told = True
            limit = "" if self._seconds is None else f", {self._seconds:.0f} s at most"
            logger.warning("there is no %s; waiting for one%s (see the logs of the workers)", self._kind, limit)
        self._asked = now
        if self._seconds is not None and now - self._seen > self._seconds:
            raise ClusterError(
                f"there has been no {self._kind} for {self._seconds:.0f} s: all died and none came back (out of "
                "memory? see their logs); start some, and run again: what is done is kept"
            )

    def _there(self) -> bool:
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        except (OSError, RuntimeError):
            # A scheduler that went away has its own error, which comes with every future.
            return True
        return any(self._resource is None or w["resources"].get(self._resource) for w in workers)

    def wait(self, future: Future[Any]) -> BaseException | None:
        """What the call of a future ended with, None if well."""
        while True:
            try:
                error: BaseException | None = future.exception(timeout=LOOK_S)
                return error
            except TimeoutError:
                self.look()
