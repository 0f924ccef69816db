"""A call that travels as bytes, and is opened where it is made: a worker that cannot open it says so.

What dask itself sends is opened while it is received. A worker whose environment lacks this package ends over that, and
the next one after it; and the scheduler, which needs nothing of this package, would need it too.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any

from distributed import get_worker
from distributed.protocol.pickle import dumps

from wsi_pipeline import __version__
from wsi_pipeline.errors import ModelError, SlideError, SlideNotFound, StoreError, WorkerUnfit

logger = logging.getLogger(__name__)

PACKAGE = __name__.partition(".")[0]


def packed(function: Callable[..., Any], *args: Any, named: bool, **kwargs: Any) -> bytes:
    """A call, for `pickle.loads` on the worker to make: what that returns is what the call returns.

    Parameters
    ----------
    named
        Errors about slide, store and model are to say on which worker they came up: what is there for one may be out
        of reach for another.
    """
    call: bytes = dumps(_Call(dumps((function, args, kwargs)), named))
    return call


class _Call:
    """Becomes the outcome of a call when it is unpickled."""

    def __init__(self, inner: bytes, named: bool) -> None:
        self._inner = inner
        self._named = named

    def __reduce__(self) -> tuple[Any, ...]:
        return made, (__version__, self._inner, self._named)


def made(version: str, inner: bytes, named: bool) -> Any:
    """Make the call here.

    Raises
    ------
    WorkerUnfit
        This package has another version here than where the call comes from.
    """
    if version != __version__:
        raise WorkerUnfit(
            f"{_here()} has {PACKAGE} {__version__}, this command {version}; install the same version for both"
        )
    # As safe as dask is, which would have opened the call itself.
    function, args, kwargs = pickle.loads(inner)  # noqa: S301
    try:
        return function(*args, **kwargs)
    except (SlideError, StoreError, ModelError) as error:
        logger.debug("what led to it", exc_info=True)
        told = _named(error) if named else error
    # By itself: what led to it may be an error of another library that does not come through, and would take it along.
    told.__cause__ = told.__context__ = None
    raise told


def missing(error: BaseException) -> str | None:
    """Why a worker could not open a call for want of this package; None where the error is another."""
    lost = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == PACKAGE
    # An older or newer version, which knows calls of another form.
    other = isinstance(error, AttributeError) and str(error).startswith("Can't get attribute") and PACKAGE in str(error)
    if not (lost or other):
        return None
    return (
        f"a dask worker cannot use {PACKAGE} ({error}); install version {__version__}, which this command has, in the "
        "environment of every worker"
    )


def _named(error: SlideError | StoreError | ModelError) -> SlideError | StoreError | ModelError:
    reach = "every worker must reach slides, model and output under the paths of this command"
    if isinstance(error, SlideError):
        remedy = reach if isinstance(error, SlideNotFound) else error.remedy
        return _with(error, f"{error.cause} ({_here()})", remedy)
    return type(error)(f"{error} ({_here()}: {reach})")


def _with(error: SlideError, cause: str, remedy: str) -> SlideError:
    # Leaves have other parameters.
    make, (kind, slide, _, _) = error.__reduce__()
    found: SlideError = make(kind, slide, cause, remedy)
    return found


def _here() -> str:
    worker = get_worker()
    return (
        f"the dask worker {worker.address}"
        if worker.name == worker.address
        else (f"the dask worker {worker.name} at {worker.address}")
    )
