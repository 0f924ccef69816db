"""Batches that a device's memory does not hold: halved, gone on with, and remembered. Loads no torch."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from wsi_pipeline.errors import ModelError

_log = logging.getLogger(__name__)

T = TypeVar("T")

_TOLD: Final = re.compile(
    r"out of memory|can't allocate memory|failed to allocate memory|STATUS_ALLOC_FAILED|unable to find an engine", re.I
)
"""How TorchScript (which knows RuntimeErrors only), cuDNN, cuBLAS, a CPU's allocator and ONNX Runtime put it.

cuDNN finds no engine where there is no room for any engine's workspace.
"""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, whichever library raised it."""
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or (not isinstance(error, ModelError) and _TOLD.search(str(error)) is not None)


class HalvingBatches:
    """Runs a batch in as many parts as the memory of the device asks for, and remembers what fitted.

    Threads that share a device may take the memory from each other: one image that finds none is tried once more
    while no other thread runs.

    Parameters
    ----------
    free
        Called after memory ran out: gives back what is only kept for later.
    """

    def __init__(self, free: Callable[[], None] = lambda: None) -> None:
        self._free = free
        self._most_pixels: int | None = None
        self._state = threading.Condition()
        self._running = 0
        self._one_alone = False

    def run_slices(self, run: Callable[[slice], T], shape: tuple[int, ...], *, most: int | None = None) -> list[T]:
        """Results of `run` for consecutive slices of the first axis of images of `shape` (N, H, W, ...).

        Parameters
        ----------
        most
            Images to a slice, at most.

        Raises
        ------
        ModelError
            Not even one image fits.
        """
        count, height, width = shape[:3]
        pixels = height * width
        size = self._fitting(pixels, count if most is None else min(count, most))
        results: list[T] = []
        start = 0
        while start < count:
            part = slice(start, min(start + size, count))
            length = part.stop - start
            found = self._try(run, part)
            if not found and length == 1:
                self._free()
                found = self._try(run, part, alone=True)
                if not found:
                    raise ModelError(
                        f"the device's memory does not hold one window of {width} x {height} px; set a smaller "
                        "`inference.window`, or `model.device: cpu`"
                    )
            elif not found:
                size = length // 2
                self._most_pixels = size * pixels
                _log.warning("out of memory: going on with %d windows of %d px at once", size, pixels)
                self._free()
                continue
            results += found
            start += length
        return results

    def _try(self, run: Callable[[slice], T], part: slice, *, alone: bool = False) -> list[T]:
        """The result, in a list; an empty one where memory ran out. The error is gone by then, and what it held."""
        with self._alone() if alone else self._beside_others():
            try:
                return [run(part)]
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                return []

    @contextmanager
    def _beside_others(self) -> Iterator[None]:
        with self._state:
            self._state.wait_for(lambda: not self._one_alone)
            self._running += 1
        try:
            yield
        finally:
            with self._state:
                self._running -= 1
                self._state.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._state:
            self._state.wait_for(lambda: not self._one_alone)
            self._one_alone = True
            self._state.wait_for(lambda: not self._running)
        try:
            yield
        finally:
            with self._state:
                self._one_alone = False
                self._state.notify_all()

    def _fitting(self, pixels: int, count: int) -> int:
        if self._most_pixels is None:
            return count
        return min(count, max(1, self._most_pixels // pixels))
