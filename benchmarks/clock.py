"""CPU seconds of a block, children included: on a shared machine they are steadier than the wall clock."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Took:
    """Wall and CPU seconds; filled in when the block ends."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


def cpu_now() -> float:
    """User and system seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


@contextmanager
def clock() -> Iterator[Took]:
    """Time a block."""
    took = Took()
    wall, cpu = time.perf_counter(), cpu_now()
    try:
        yield took
    finally:
        took.wall_s, took.cpu_s = time.perf_counter() - wall, cpu_now() - cpu


def report(**values: Any) -> None:
    """One JSON line on standard output; floats rounded to four digits."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    sys.stdout.write(json.dumps(rounded) + "\n")
    sys.stdout.flush()


def peak_mb(*, of_children: bool = False) -> float:
    """Largest resident memory of this process so far, or of the largest child that has ended, in MB."""
    who = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF
    return resource.getrusage(who).ru_maxrss / 1024
