"""`demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_pipeline.cli.console import say
from wsi_pipeline.cli.progress import shown_progress

Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where everything goes.")]


def demo(output: Output = Path("build/demo")) -> None:
    """The whole loop on a small cohort of real tissue: train, predict, correct (simulated), measure, retrain."""
    from wsi_pipeline.cli.predict import log_to_run
    from wsi_pipeline.demo import run_demo

    log_to_run(output)
    with shown_progress() as progress:
        outcome = run_demo(output, progress=progress)
    for line in outcome.lines:
        say(line)
