"""`audit`: the log of what was done to annotations."""

from __future__ import annotations

from dataclasses import asdict

import typer

from wsi_pipeline.cli.arguments import AsJson, ConfigOrRun
from wsi_pipeline.cli.console import print_json, say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED
from wsi_pipeline.config import load_config
from wsi_pipeline.errors import StoreError

app = typer.Typer(help="The log of what was done to annotations.", no_args_is_help=True)


@app.callback()
def audit() -> None:
    """The log of what was done to annotations."""


@app.command()
def verify(where: ConfigOrRun, as_json: AsJson = False) -> int:
    """Say whether audit.jsonl is as it was written; names the first broken line."""
    from wsi_pipeline import audit as log

    run = where if where.is_dir() else load_config(where).output
    if not (run / log.NAME).exists() and not (run / "audit.head.json").exists():
        raise StoreError(f"{run} has no {log.NAME}; it is written by handout, collect, restore and relocate")
    verdict = log.verify(run)
    if as_json:
        print_json(asdict(verdict))
    else:
        say(f"{run / log.NAME}: {verdict.problem or f'{verdict.lines} lines, all as they were written'}")
    return SOME_FAILED if verdict.problem else OK
