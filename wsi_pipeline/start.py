"""What a program sets before and while it loads its modules: what costs time at each start and serves nobody."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


def settle() -> None:
    """Set what must be set before NumPy is loaded; for programs, not for a package that others import.

    What the user has set in the environment stays.
    """
    # NumPy's linear algebra starts a thread for each core as it is loaded, which takes 0.1 CPU seconds on two, more on
    # more; its matrices are small here, and blocks and windows have threads of their own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@contextmanager
def loading() -> Iterator[None]:
    """Modules are loaded within: no cycles are looked for among the 150,000 objects that they make, which all stay.

    Python would look 250 times, a tenth of the start. Where the collector is off already it stays off.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
