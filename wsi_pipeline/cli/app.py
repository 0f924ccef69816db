"""The command tree, and how errors become lines and exit codes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated

import typer

from wsi_pipeline import __version__
from wsi_pipeline.cli import (
    audit,
    collect,
    demo,
    doctor,
    handout,
    init,
    learn,
    predict,
    privacy,
    project,
    report,
    slides,
    status,
)
from wsi_pipeline.cli.console import complain, set_up_logging, stderr, stdout
from wsi_pipeline.cli.exit_codes import INTERRUPTED, OK, USAGE
from wsi_pipeline.errors import WsiError

logger = logging.getLogger("wsi_pipeline")

app = typer.Typer(
    name="wsi-pipeline",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Pre-annotate whole-slide images, have pathologists correct them in QuPath, measure what that saved, "
        "and learn from the corrections.\n\n"
        "New here? [bold]wsi-pipeline demo --output build/demo[/] shows the whole way on a small real cohort; "
        "[bold]wsi-pipeline init[/] writes a configuration for your own slides."
    ),
)


def _version(value: bool) -> None:
    if value:
        stdout.print(f"wsi-pipeline {__version__}", highlight=False)
        raise typer.Exit(OK)


@app.callback()
def main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also say what happens inside.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    set_up_logging(verbose=verbose)


START, RUN, LEARN, LOOK = "Start here", "Run a cohort", "Learn from corrections", "Look inside"

app.command(rich_help_panel=START)(demo.demo)
app.command(rich_help_panel=START)(init.init)
app.command(rich_help_panel=START)(doctor.doctor)
app.command(rich_help_panel=RUN)(slides.slides)
app.command(rich_help_panel=RUN)(predict.predict)
app.command(rich_help_panel=RUN)(handout.handout)
app.command(rich_help_panel=RUN)(predict.run)
app.command(rich_help_panel=RUN)(collect.collect)
app.command(rich_help_panel=RUN)(report.report)
app.command(rich_help_panel=RUN)(status.status)
app.command(rich_help_panel=LEARN)(learn.train)
app.command(rich_help_panel=LEARN)(learn.evaluate)
app.add_typer(project.app, name="project", rich_help_panel=LOOK)
app.add_typer(privacy.app, name="privacy", rich_help_panel=LOOK)
app.add_typer(audit.app, name="audit", rich_help_panel=LOOK)


# typer brings its own copy of click since 0.20: the base of its usage errors is found by what is public.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code: 0, 1 (usage, configuration), 2 (some slides failed), 130."""
    try:
        result = app(list(arguments), prog_name="wsi-pipeline", standalone_mode=False)
    except _CommandLineError as error:
        error.show()  # type: ignore[attr-defined]
        return USAGE
    except WsiError as error:
        for line in str(error).splitlines():
            complain(line)
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    # typer itself turns Ctrl-C into this code, without a word.
    if result == INTERRUPTED:
        stderr.print("interrupted; the same command goes on from here")
    return result if isinstance(result, int) else OK
