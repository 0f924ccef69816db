"""The command `wsi-pipeline`: arguments in, stages called, exit codes out. No logic."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    # NumPy's linear algebra starts a thread for each core as it is loaded, which takes 0.1 CPU seconds on two, more on
    # more; its matrices are small here, and blocks and windows have threads of their own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from wsi_pipeline.cli.app import run

    sys.exit(run(sys.argv[1:]))
