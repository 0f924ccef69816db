"""`report`."""

from __future__ import annotations

from wsi_pipeline.cli.arguments import ConfigFile
from wsi_pipeline.cli.console import say
from wsi_pipeline.config import load_config
from wsi_pipeline.rundir import RunDir


def report(config: ConfigFile) -> None:
    """Write the report: one HTML file that needs nothing else."""
    from wsi_pipeline.report import write_report

    say(f"wrote {write_report(RunDir(load_config(config).output))}")
