"""Python's collector of reference cycles, which only costs time while a great many objects are made that have none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collection() -> Iterator[None]:
    """Pause the collector; what it would have done is done later. Reference counting goes on.

    Two threads may overlap: the worst is that it runs again while the second is still at work.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
