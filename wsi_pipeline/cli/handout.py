"""`handout`."""

from __future__ import annotations

from typing import Annotated

import typer

from wsi_pipeline.cli.arguments import AsJson, ConfigFile
from wsi_pipeline.cli.console import print_json, print_table, say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED
from wsi_pipeline.cli.progress import shown_progress
from wsi_pipeline.config import Config, load_config
from wsi_pipeline.errors import ConfigError

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan of the study; write nothing.")]
OnlyBatch = Annotated[
    list[str] | None, typer.Option("--batch", metavar="NAME", help="Only this batch; may be given several times.")
]
Force = Annotated[
    str | None, typer.Option("--force", metavar="REASON", help="Hand the named batches out before their wash-out ends.")
]


def handout(
    config: ConfigFile, dry_run: DryRun = False, batch: OnlyBatch = None, force: Force = None, as_json: AsJson = False
) -> int:
    """Write the QuPath projects: slides, regions to correct, and the tiles to look at first.

    What a pathologist has touched is never replaced; calling it again changes nothing.
    """
    if force is not None and not batch:
        raise ConfigError("--force needs --batch: a wash-out is cut short for named batches only")
    settings = load_config(config)
    return _show_plan(settings, as_json) if dry_run else hand_out(settings, batch or [], force, as_json=as_json)


def hand_out(
    config: Config, batches: list[str] | None = None, force: str | None = None, *, as_json: bool = False
) -> int:
    """Write the projects and say what is in them; used by `run`, too."""
    from wsi_pipeline.cli.predict import log_to_run
    from wsi_pipeline.stages.handout import hand_out_run

    log_to_run(config.output, private=config.privacy.strict)
    with shown_progress() as progress:
        outcome = hand_out_run(config, progress=progress, only=batches or (), force=force)
    if as_json:
        print_json(
            {
                "projects": [str(path) for path in outcome.projects],
                "images": outcome.images,
                "objects": outcome.objects,
                "over_budget": outcome.budget,
                "waiting": outcome.waiting,
                "notes": outcome.warnings,
                "left_out": outcome.problems,
            }
        )
        return SOME_FAILED if outcome.problems else OK
    where = outcome.project if len(outcome.projects) < 2 else f"{len(outcome.projects)} projects in {outcome.project}"
    say(f"{outcome.images} images with {outcome.objects} objects in {where}")
    for line in outcome.waiting:
        say(f"  waits: {line}")
    for line in outcome.warnings:
        say(f"  note: {line}")
    for line in outcome.problems:
        say(f"  left out: {line}")
    return SOME_FAILED if outcome.problems else OK


def _show_plan(config: Config, as_json: bool) -> int:
    from wsi_pipeline.stages.handout import planned, states_of

    study, new = planned(config)
    batches = [*study.batches, *new]
    if as_json:
        print_json({"plan_sha256": study.sha256, "batches": [b.model_dump(mode="json") for b in batches]})
        return OK
    states = states_of(config, study)
    print_table(
        ("batch", "rater", "images", "assisted", "manual", "repeats", "planted", "state"),
        [
            (
                b.name,
                b.rater,
                len(b.cases),
                sum(c.arm == "assisted" for c in b.cases),
                sum(c.arm == "manual" for c in b.cases),
                sum(c.repeat for c in b.cases),
                sum(c.planted is not None for c in b.cases),
                "new" if b in new else states[b.name],
            )
            for b in batches
        ],
        right=(2, 3, 4, 5, 6),
    )
    say(f"{len(batches)} batches, {len(new)} of them new; nothing was written")
    return OK
