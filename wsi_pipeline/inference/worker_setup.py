"""What dask loads into each worker process that the engine starts (`preload`)."""

from __future__ import annotations

import signal


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C to the client.

    A terminal sends it to every process of the program; the client lets the blocks at work end, which a worker
    that stops at once would lose.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
