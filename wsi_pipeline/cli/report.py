"""`report`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wsi_pipeline.cli.console import say
from wsi_pipeline.config import load_config
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.rundir import RunDir


class Format(StrEnum):
    """What `report` writes."""

    HTML = "html"
    CSV = "csv"


def report(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="The YAML file of the run.", show_default=False)
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="The page, or every table as CSV.")] = Format.HTML,
    mlflow: Annotated[
        str | None,
        typer.Option("--mlflow", metavar="URI", help="Also log the figures to this MLflow server (http or https)."),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of metrics.json and end.")] = False,
) -> None:
    """Write the report: one HTML file that needs nothing else, and tables beside it."""
    from wsi_pipeline.report import export

    if schema:
        sys.stdout.write(export.metrics_schema())
        return
    if config is None:
        raise ConfigError("report needs the CONFIG of the run; only --schema goes without")
    from wsi_pipeline.report.loading import load_run
    from wsi_pipeline.report.page import write_report

    settings = load_config(config)
    run = RunDir(settings.output)
    if form is Format.CSV:
        if run.report.is_file():
            # An older page would contradict them.
            write_report(run, settings.privacy)
        for path in export.write_csv(run, load_run(run, settings.privacy)):
            say(f"wrote {path}")
    else:
        say(f"wrote {write_report(run, settings.privacy)}")
    if mlflow is not None:
        from wsi_pipeline.report.tracking import log_run

        say(f"logged to MLflow as run {log_run(mlflow, load_run(run, settings.privacy))}")
