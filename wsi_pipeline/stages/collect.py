"""Collecting the corrections of a run."""

from __future__ import annotations

from wsi_pipeline.collect import CollectResult, collect
from wsi_pipeline.config import Config
from wsi_pipeline.privacy import expire_events
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.lock import exclusive


def collect_run(config: Config) -> CollectResult:
    """Read every project of the run and write `review/`; see `wsi_pipeline.collect.collect`."""
    run = RunDir(config.output)
    with exclusive(run.lock):
        result = collect(run, config.review, config.costs)
        if config.privacy.keep_events_days is not None:
            expire_events(run, config.review, config.privacy.keep_events_days)
        return result
