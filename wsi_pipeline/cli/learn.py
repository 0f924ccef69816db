"""`train` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_pipeline.cli.arguments import AsJson, ConfigFile
from wsi_pipeline.cli.console import print_json, say
from wsi_pipeline.cli.progress import shown_progress
from wsi_pipeline.config import load_config
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.rundir import RunDir

NewModel = Annotated[
    Path | None, typer.Option("--model", metavar="DIR", help="The new model; default: the one `train` made.")
]


def train(config: ConfigFile) -> None:
    """Train on the slides that were reviewed, going on from the configured model.

    Patients that are held out (`learning.held_out`) are never trained on.
    """
    from wsi_pipeline.cli.predict import log_to_run
    from wsi_pipeline.stages.learn import learned_model, train_on_corrections

    settings = load_config(config)
    log_to_run(settings.output)
    with shown_progress() as progress:
        progress.begin("train", 1)
        card = train_on_corrections(settings, lambda done, total, _: progress.advance("steps", done, total))
        progress.finish("steps", card.model_id)
        progress.end()
    say(f"trained {card.model_id}: {learned_model(RunDir(settings.output), settings.learning.name)}")
    say(f"next: wsi-pipeline evaluate {config}")


def evaluate(config: ConfigFile, model: NewModel = None, as_json: AsJson = False) -> None:
    """Is the new model better than the configured one, on reviewed slides that neither has seen?"""
    from wsi_pipeline.stages.learn import compare_models, corrected_slides, learned_model

    settings = load_config(config)
    path = model or learned_model(RunDir(settings.output), settings.learning.name)
    split = corrected_slides(settings)
    if not split.held_out:
        raise split.nothing("no reviewed slide is held out; name some in `learning.held_out`")
    if model is None and not path.exists():
        raise ConfigError(
            f"there is no model at {path}; run `wsi-pipeline train {config}` first, or name another one by --model"
        )
    decision = compare_models(settings, str(path), split.held_out)
    if as_json:
        print_json(decision.to_json())
    else:
        say(f"{decision.old_model} against {decision.new_model}: {decision.reason}")
