"""One tree of errors. Each leaf also derives from the builtin it is, and names slide, cause and remedy.

The command line turns a `WsiError` into one clear line; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

from typing import Any


class WsiError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(WsiError, ValueError):
    """The configuration, the command line or a manifest cannot be used as it stands."""


class SlideError(WsiError):
    """Something is wrong with one slide; the rest of the cohort goes on.

    The text reads `slide: cause; remedy`.
    """

    def __init__(self, slide: str, cause: str, remedy: str) -> None:
        super().__init__(slide, cause, remedy)
        self.slide = slide
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.slide}: {self.cause}; {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Leaves have other parameters, and an error must come back from a worker process as it left.
        return _slide_error, (type(self), self.slide, self.cause, self.remedy)


def _slide_error(kind: type[SlideError], slide: str, cause: str, remedy: str) -> SlideError:
    error = kind.__new__(kind)
    SlideError.__init__(error, slide, cause, remedy)
    return error


class SlideNotFound(SlideError, FileNotFoundError):
    """There is no file (or object) at the slide's URI."""

    # OSError.__str__ would format errno and file name instead.
    __str__ = SlideError.__str__


class SlideUnreadable(SlideError, ValueError):
    """No reader opens the slide, or a part of it cannot be decoded."""


class MppMissing(SlideError, ValueError):
    """The slide does not say, or not plausibly, how large its pixels are."""

    def __init__(self, slide: str, found: float | None) -> None:
        cause = "states no mpp" if found is None else f"states an implausible mpp of {found:g} µm/px"
        super().__init__(slide, cause, "give it as `cohort.mpp` or in the manifest's column `mpp`")


class SlideTooCoarse(SlideError, ValueError):
    """The finest level has less resolution than the model can use."""

    def __init__(self, slide: str, mpp: float, needed: float) -> None:
        super().__init__(
            slide,
            f"is too coarse: its finest level has {mpp:.4g} µm/px, the model works at {needed:.4g}",
            "use a scan at higher magnification, or a model made for this resolution",
        )


class ModelError(WsiError, ValueError):
    """A model, its card or its weights cannot be used."""


class StoreError(WsiError, OSError):
    """A file of the run directory cannot be read or written."""


class ClusterError(WsiError, ConnectionError):
    """The dask cluster that was asked for cannot be reached, has no workers, or went away."""


class WorkerUnfit(ClusterError):
    """A dask worker has not what it needs for the work: this package, in the version of the command."""


class RunLocked(WsiError, BlockingIOError):
    """Another process works on the same run directory."""


class ProjectError(WsiError, ValueError):
    """A QuPath project or a file inside it cannot be used."""


class QuPathFormatError(ProjectError):
    """Bytes of a QuPath file are damaged, or of a kind that this package does not know."""


class ProjectChanged(ProjectError):
    """A file changed since it was read: writing it now could overwrite a pathologist's work."""
