"""One self-contained HTML page about a run directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_pipeline.report.page import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    # matplotlib and pyarrow are loaded when a report is written, not when the package is imported.
    if name == "write_report":
        from wsi_pipeline.report.page import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
