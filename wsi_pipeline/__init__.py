"""Pre-annotate whole-slide images, correct in QuPath, measure what it saved, learn from the corrections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_pipeline.inference.maps import open_prediction

__version__ = "0.1.0"

__all__ = ["__version__", "open_prediction"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `import wsi_pipeline` stays quick.
    if name == "open_prediction":
        from wsi_pipeline.inference.maps import open_prediction

        return open_prediction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
