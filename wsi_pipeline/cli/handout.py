"""`handout`."""

from __future__ import annotations

from wsi_pipeline.cli.arguments import ConfigFile
from wsi_pipeline.cli.console import say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED
from wsi_pipeline.cli.progress import shown_progress
from wsi_pipeline.config import Config, load_config


def handout(config: ConfigFile) -> int:
    """Write the QuPath project: slides, regions to correct, and the tiles to look at first.

    What a pathologist has touched is never replaced; calling it again changes nothing.
    """
    return hand_out(load_config(config))


def hand_out(config: Config) -> int:
    """Write the project and say what is in it; used by `run`, too."""
    from wsi_pipeline.cli.predict import log_to_run
    from wsi_pipeline.stages.handout import hand_out_run

    log_to_run(config.output, private=config.privacy.strict)
    with shown_progress() as progress:
        outcome = hand_out_run(config, progress=progress)
    say(f"{outcome.images} images with {outcome.objects} objects in {outcome.project}")
    for line in outcome.warnings:
        say(f"  note: {line}")
    for line in outcome.problems:
        say(f"  left out: {line}")
    return SOME_FAILED if outcome.problems else OK
