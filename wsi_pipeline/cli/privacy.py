"""`privacy`: what a run gives away, and forgetting it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from wsi_pipeline.cli.arguments import AsJson, ConfigFile, ConfigOrRun
from wsi_pipeline.cli.console import print_json, say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED
from wsi_pipeline.config import load_config
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.rundir import RunDir

app = typer.Typer(help="Find what a run gives away about patients and people, and forget it.", no_args_is_help=True)

Ignore = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="KIND", help="Do not look for this kind; may be given several times."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.command()
def scan(where: ConfigOrRun, ignore: Ignore = None, as_json: AsJson = False) -> int:
    """Look for names, paths, users, hosts, dates and serial numbers in everything that the run wrote.

    One line each. With the configuration the names of slides and patients are known and looked for as well. The exit
    code is 2 when something was found.
    """
    from wsi_pipeline.privacy.patterns import KINDS
    from wsi_pipeline.privacy.scan import known_of
    from wsi_pipeline.privacy.scan import scan as scan_run

    unknown = sorted(set(ignore or ()) - {*KINDS, "unreadable"})
    if unknown:
        raise ConfigError(f"--ignore {unknown[0]}: there is no such kind; kinds are {', '.join(KINDS)}, unreadable")
    config = None if where.is_dir() else load_config(where)
    run = RunDir(where if config is None else config.output)
    if not run.root.is_dir():
        raise ConfigError(f"there is nothing to look into: {run.root} is not there")
    findings = scan_run(run.root, known_of(run, config), ignore=ignore or ())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(str(finding))
        if not findings:
            say("nothing was found")
    return SOME_FAILED if findings else OK


@app.command()
def forget(
    config: ConfigFile,
    rater: Annotated[str | None, typer.Option("--rater", metavar="NAME", help="Forget this rater.")] = None,
    slide: Annotated[str | None, typer.Option("--slide", metavar="ID", help="Forget this slide.")] = None,
    images: Annotated[
        bool,
        typer.Option("--images", help="With --slide: its images in the QuPath projects too, and all drawn in them."),
    ] = False,
    dry_run: DryRun = False,
) -> int:
    """Remove what names a rater or a slide, or give it a random name. The exit code is 2 when something is left."""
    from wsi_pipeline.privacy import forget_rater, forget_slide
    from wsi_pipeline.stages.lock import exclusive

    if (rater is None) == (slide is None):
        raise ConfigError("privacy forget needs either --rater or --slide")
    if images and slide is None:
        raise ConfigError("--images goes with --slide: a rater's images stay, under another name")
    settings = load_config(config)
    run = RunDir(settings.output)
    with exclusive(run.lock):
        if rater is not None:
            result = forget_rater(run, rater, settings.review, dry_run=dry_run)
        else:
            keys = settings.keys if settings.privacy.strict else None
            result = forget_slide(run, str(slide), keys=keys, images=images, dry_run=dry_run)
    for line in result.done:
        say(f"{'would ' if dry_run else ''}{line}")
    for line in result.left:
        say(f"left: {line}")
    return SOME_FAILED if result.left and not dry_run else OK
