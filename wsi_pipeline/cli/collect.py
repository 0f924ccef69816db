"""`collect`."""

from __future__ import annotations

from wsi_pipeline.cli.arguments import AsJson, ConfigFile
from wsi_pipeline.cli.console import print_json, say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED
from wsi_pipeline.config import load_config


def collect(config: ConfigFile, as_json: AsJson = False) -> int:
    """Read the corrections back and say what happened to each region. Writes nothing into the project."""
    from wsi_pipeline.cli.predict import log_to_run
    from wsi_pipeline.stages.collect import collect_run

    settings = load_config(config)
    log_to_run(settings.output, private=settings.privacy.strict)
    result = collect_run(settings)
    if as_json:
        print_json(result.metrics)
    else:
        say(result.summary)
        for line in result.alarms:
            say(f"  alarm: {line}")
    return SOME_FAILED if result.alarms else OK
