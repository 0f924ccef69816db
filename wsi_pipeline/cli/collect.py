"""`collect`."""

from __future__ import annotations

from typing import Annotated

import typer

from wsi_pipeline.cli.arguments import AsJson, ConfigFile
from wsi_pipeline.cli.console import print_json, say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED
from wsi_pipeline.cli.progress import shown_progress
from wsi_pipeline.config import load_config

Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Processes at most; one for each core unless told."),
]


def collect(config: ConfigFile, as_json: AsJson = False, workers: Workers = None) -> int:
    """Read the corrections back and say what happened to each region. Writes nothing into the project."""
    from wsi_pipeline.cli.predict import log_to_run
    from wsi_pipeline.stages.collect import collect_run

    settings = load_config(config)
    log_to_run(settings.output, private=settings.privacy.strict)
    with shown_progress() as progress:
        result = collect_run(settings, workers=workers, progress=progress)
    if as_json:
        print_json(result.metrics)
    else:
        say(result.summary)
        for line in result.alarms:
            say(f"  alarm: {line}")
    return SOME_FAILED if result.alarms else OK
