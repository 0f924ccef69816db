"""What computing took: one line for each slide that was predicted and each training, in `log/compute.jsonl`.

It lies in the log, outside of what must be the same when a stage runs twice; the ledger of `collect` reads it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
PREDICT: Final = "predict"
TRAIN: Final = "train"


@dataclass(frozen=True, slots=True)
class Spent:
    """Some time of machines.

    Attributes
    ----------
    stage
        `predict` or `train`.
    device
        "cpu", or what the accelerator is called.
    units
        Machines that were at work at once, or accelerators where `device` is one.
    wall_s
        Seconds on the clock; what is paid is `units` times as much.
    cpu_s
        Processor seconds of this process; None where others computed.
    slide_id
        The slide that was through at the end of this time; None for time of no slide.
    """

    stage: str
    device: str
    units: int
    wall_s: float
    cpu_s: float | None = None
    slide_id: str | None = None

    @property
    def paid_s(self) -> float:
        """Seconds of one machine, or accelerator."""
        return self.units * self.wall_s

    @property
    def on_gpu(self) -> bool:
        """Whether it was the time of an accelerator."""
        return self.device != "cpu"


class Meter:
    """A clock that starts now; each lap appends the time since the one before, so that laps add up to the whole.

    A call that is killed loses the time since its last lap, nothing else.
    """

    def __init__(self, path: Path, stage: str) -> None:
        self._path = path
        self._stage = stage
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def lap(self, *, device: str, units: int = 1, here: bool = True, slide_id: str | None = None) -> None:
        """Note the time since the last lap.

        Parameters
        ----------
        here
            Whether this process alone did the work: else its processor time says nothing.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        spent = Spent(
            self._stage,
            device,
            units,
            round(wall - self._wall, 3),
            round(cpu - self._cpu, 3) if here else None,
            slide_id,
        )
        self._wall, self._cpu = wall, cpu
        try:
            append(self._path, [spent])
        except OSError as error:
            # The work itself is done: a bill that lacks a line is no reason to lose it.
            logger.warning("what computing took cannot be kept in %s: %s", self._path, error.strerror or error)


def append(path: Path, spent: Iterable[Spent]) -> None:
    """Add lines to the file, which is made where it is not there.

    Raises
    ------
    OSError
        It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_off = path.is_file() and path.stat().st_size > 0 and not _ends_a_line(path)
    with path.open("ab") as file:
        file.write((b"\n" if cut_off else b"") + lines_of(spent))


def lines_of(spent: Iterable[Spent]) -> bytes:
    """The lines of the file."""
    return b"".join(orjson.dumps({"schema": SCHEMA_VERSION, **asdict(item)}) + b"\n" for item in spent)


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def read_spent(path: Path) -> list[Spent]:
    """All lines in their order; empty without the file. Lines that a crash cut off, or that are newer, are left out."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    return [item for line in lines if (item := _item(line)) is not None]


def _item(line: bytes) -> Spent | None:
    try:
        value: dict[str, Any] = orjson.loads(line)
        if not 1 <= value["schema"] <= SCHEMA_VERSION:
            return None
        cpu, slide_id = value["cpu_s"], value["slide_id"]
        item = Spent(
            str(value["stage"]),
            str(value["device"]),
            int(value["units"]),
            float(value["wall_s"]),
            None if cpu is None else float(cpu),
            None if slide_id is None else str(slide_id),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    return item if item.units >= 1 and item.wall_s >= 0 and math.isfinite(item.wall_s) else None
