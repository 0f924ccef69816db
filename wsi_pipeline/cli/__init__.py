"""The command `wsi-pipeline`: arguments in, stages called, exit codes out. No logic."""

from __future__ import annotations

import sys

from wsi_pipeline.start import loading, settle

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    settle()
    with loading():
        from wsi_pipeline.cli.app import run

    sys.exit(run(sys.argv[1:]))
