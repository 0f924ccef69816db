"""How long work says how far it is: plain log lines here, bars in the command line."""

from __future__ import annotations

import logging
import time
from typing import Protocol

logger = logging.getLogger("wsi_pipeline")


class Progress(Protocol):
    """Told by a stage what it does; called from one thread."""

    def begin(self, title: str, total: int) -> None:
        """A stage starts on `total` items (slides, unless the title says otherwise)."""

    def advance(self, item: str, done: int, total: int) -> None:
        """`done` of `total` parts of one item are finished."""

    def finish(self, item: str, note: str) -> None:
        """One item is through; `note` says in a few words how it went, or nothing where there are too many to tell."""

    def end(self) -> None:
        """The stage is over."""


class LogProgress:
    """One line when an item is through, and one every `every_s` seconds in between."""

    def __init__(self, *, every_s: float = 30.0) -> None:
        self._every_s = every_s
        self._title = ""
        self._total = 0
        self._through = 0
        self._said = time.monotonic()

    def begin(self, title: str, total: int) -> None:
        self._title, self._total, self._through = title, total, 0
        self._said = time.monotonic()
        logger.info("%s: %d to do", title, total)

    def advance(self, item: str, done: int, total: int) -> None:
        if time.monotonic() - self._said >= self._every_s:
            self._said = time.monotonic()
            logger.info("%s: %s, %d of %d parts", self._title, item, done, total)

    def finish(self, item: str, note: str) -> None:
        self._through += 1
        if not note and time.monotonic() - self._said < self._every_s:
            return
        self._said = time.monotonic()
        told = f"{item}: {note}" if note else item
        logger.info("%s: %d/%d %s", self._title, self._through, self._total, told)

    def end(self) -> None:
        """Nothing is left open."""
