"""Progress bars on a terminal, log lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars

from wsi_pipeline.cli.console import stderr
from wsi_pipeline.progress import LogProgress, Progress, logger

# Blocks take seconds; drawing ten times a second, as is usual, takes a fiftieth of a processor.
REFRESH_HZ = 2


class BarProgress:
    """One bar for the stage and one for each item that is under way."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._stage: TaskID | None = None
        self._items: dict[str, TaskID] = {}

    def begin(self, title: str, total: int) -> None:
        self._stage = self._bars.add_task(title, total=total)

    def advance(self, item: str, done: int, total: int) -> None:
        if item not in self._items:
            self._items[item] = self._bars.add_task(f"  {item}", total=total)
        self._bars.update(self._items[item], completed=done, total=total)

    def finish(self, item: str, note: str) -> None:
        if item in self._items:
            self._bars.remove_task(self._items.pop(item))
        if self._stage is not None:
            self._bars.advance(self._stage)
        if note:
            logger.info("%s: %s", item, note)

    def end(self) -> None:
        for task in self._items.values():
            self._bars.remove_task(task)
        self._items.clear()
        if self._stage is not None:
            self._bars.remove_task(self._stage)
            self._stage = None


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Bars that live while the block runs; plain lines where nobody looks."""
    if not sys.stderr.isatty():
        yield LogProgress()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with RichBars(*columns, console=stderr, transient=True, refresh_per_second=REFRESH_HZ) as bars:
        yield BarProgress(bars)
