"""What a process keeps between tasks: loaded models and open slides, few of each, shared by its threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models import Segmenter, load_segmenter
from wsi_pipeline.slides import Slide, open_slide

V = TypeVar("V")

MODELS: Final = 2
SLIDES: Final = 4
"""How many of each a process keeps; more only while they are in use."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How every worker loads the model: a path that it can read, and the way of running chosen once per run.

    `threads` is for CPU runtimes; None leaves all cores to it. A CPU computes up to `batch` small windows at once.
    """

    path: str
    device: str
    runtime: str
    precision: str
    threads: int | None
    batch: int = 1


@dataclass(slots=True)
class _Entry(Generic[V]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: V | None = None
    users: int = 0


class Shared(Generic[V]):
    """Values by key, each loaded once, the least recently used closed when there are too many.

    Parameters
    ----------
    limit
        Values that stay; one that is in use is never closed.
    close
        Called with a value that is given up.
    """

    def __init__(self, limit: int, close: Callable[[V], None]) -> None:
        self._limit = limit
        self._close = close
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def use(self, key: Hashable, load: Callable[[], V]) -> Iterator[V]:
        """The value of `key`, loaded if need be, and kept open while the block runs; errors of `load` pass."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            entry.users += 1
        try:
            with entry.lock:
                if entry.value is None:
                    entry.value = load()
            yield entry.value
        finally:
            with self._lock:
                entry.users -= 1
                dropped = self._surplus()
            self._close_all(dropped)

    def clear(self) -> None:
        """Give up everything that nobody uses."""
        with self._lock:
            dropped = self._surplus(limit=0)
        self._close_all(dropped)

    def _surplus(self, limit: int | None = None) -> list[V]:
        """Take out what is too much, and what could not be loaded; the lock is held."""
        limit = self._limit if limit is None else limit
        idle = [key for key, entry in self._entries.items() if not entry.users]
        empty = [key for key in idle if self._entries[key].value is None]
        full = [key for key in idle if self._entries[key].value is not None]
        surplus = full[: max(0, len(self._entries) - len(empty) - limit)]
        taken = [self._entries.pop(key) for key in (*empty, *surplus)]
        return [entry.value for entry in taken if entry.value is not None]

    def _close_all(self, values: list[V]) -> None:
        for value in values:
            self._close(value)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, and how many blocks may be computed with it at the same time.

    A CPU runtime takes all cores for one window, so one task has the turn for a whole block while others read and
    write. If they took turns window by window, they would end and read at the same time, and the model would wait.
    """

    segmenter: Segmenter
    turn: AbstractContextManager[object]


_models: Shared[LoadedModel] = Shared(MODELS, lambda model: None)
_slides: Shared[Slide] = Shared(SLIDES, lambda slide: slide.close())
_stopped: set[str] = set()


def use_model(session: str, spec: ModelSpec) -> AbstractContextManager[LoadedModel]:
    """The model of `spec` in this process."""
    return _models.use((session, spec), partial(_load, spec))


def use_slide(session: str, ref: SlideRef, content: str | None = None) -> AbstractContextManager[Slide]:
    """The slide in this process, of this content; a new session opens it anew, for it may be another one by then."""
    return _slides.use((session, ref, content), partial(open_slide, ref, content=content))


def _load(spec: ModelSpec) -> LoadedModel:
    try:
        segmenter = load_segmenter(
            spec.path, device=spec.device, runtime=spec.runtime, precision=spec.precision, threads=spec.threads
        )
    except ImportError as error:
        # A worker may lack what another machine has, or have it broken: no fault of any slide.
        raise ModelError(
            f"the model is to run with {spec.runtime}, which cannot be loaded: {error}; install it wherever the model "
            "runs, or give another `model.runtime` and a new `output`"
        ) from error
    if segmenter.runtime == "numpy":
        return LoadedModel(segmenter, nullcontext())
    return LoadedModel(segmenter, threading.Semaphore(1 if spec.device == "cpu" else 2))


def stop(session: str, wanted: bool) -> None:
    """Have the tasks of a session end after the block that they are at, or (`wanted` false) go on again."""
    if wanted:
        _stopped.add(session)
    else:
        _stopped.discard(session)


def is_stopped(session: str) -> bool:
    """Whether `stop` was called."""
    return session in _stopped


def forget(session: str) -> None:
    """Close what nobody uses any more; for a process that goes on after the session."""
    _stopped.discard(session)
    _models.clear()
    _slides.clear()
