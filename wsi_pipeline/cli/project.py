"""`project`: look inside QuPath projects and look after them, without QuPath."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wsi_pipeline.cli.arguments import AsJson
from wsi_pipeline.cli.console import print_json, print_table, say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED

app = typer.Typer(help="Look inside QuPath projects, without QuPath.", no_args_is_help=True)

ProjectPath = Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder, or its .qpproj.", show_default=False)]
OtherProject = Annotated[Path, typer.Argument(metavar="OTHER", help="The other project.", show_default=False)]
Target = Annotated[Path, typer.Argument(metavar="TARGET", help="A folder that is not there yet.", show_default=False)]


class DumpFormat(StrEnum):
    JSON = "json"
    GEOJSON = "geojson"


@app.command()
def dump(
    project: ProjectPath,
    form: Annotated[
        DumpFormat,
        typer.Option("--format", help="Everything, or of each image a FeatureCollection that QuPath imports."),
    ] = DumpFormat.JSON,
) -> None:
    """Print everything that a project holds as one JSON document."""
    import json
    import sys

    from wsi_pipeline.qupath.dump import dump_project, geojson_of_project

    if form is DumpFormat.GEOJSON:
        sys.stdout.writelines(geojson_of_project(project))
        return
    # Python's own writer: measurements may be NaN, which orjson would turn into null.
    json.dump(dump_project(project), sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")


@app.command()
def copy(project: ProjectPath, target: Target) -> None:
    """Read a whole project and write it anew, without QuPath."""
    from wsi_pipeline.qupath.copying import copy_project

    copy_project(project, target)
    say(f"copied {project} to {target}")


@app.command()
def diff(project: ProjectPath, other: OtherProject) -> int:
    """Say in words what differs between two projects."""
    from wsi_pipeline.qupath.diff import diff_projects

    lines = diff_projects(project, other)
    for line in lines:
        say(line)
    if not lines:
        say("no difference")
    return SOME_FAILED if lines else OK


@app.command()
def check(project: ProjectPath, as_json: AsJson = False) -> int:
    """Say whether every image is sound: slide, size, pixel size, objects, losses, frame, shapes."""
    from dataclasses import asdict

    from wsi_pipeline.collect.check import check_project

    checked = check_project(project)
    if as_json:
        images = [{**asdict(i), "findings": [f._asdict() for f in i.findings]} for i in checked.images]
        run = None if checked.run is None else str(checked.run)
        print_json({"project": str(checked.project), "run": run, "findings": checked.findings, "images": images})
        return SOME_FAILED if checked.findings else OK
    for image in checked.images:
        for finding in image.findings:
            say(f"{image.image}: {finding}")
    unseen = sum(not image.slide_seen for image in checked.images)
    if unseen:
        say(f"{unseen} slides have addresses of another machine: run this there to look at them")
    if checked.run is None:
        say("it lies in no run: not compared with what was handed out")
    say(f"{len(checked.images)} images, {checked.findings or 'no'} findings")
    return SOME_FAILED if checked.findings else OK


ImageName = Annotated[str | None, typer.Option("--image", metavar="NAME", help="Only this image.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")]


@app.command()
def history(project: ProjectPath, image: ImageName = None, as_json: AsJson = False) -> None:
    """List the copies that are kept of each image's annotations."""
    from wsi_pipeline.qupath.history import history_of

    copies = history_of(project, image)
    rows = [(c.id, c.image, c.saved.isoformat(timespec="seconds"), c.size) for c in copies]
    if as_json:
        print_json([dict(zip(("id", "image", "saved", "bytes"), row, strict=True)) for row in rows])
    elif rows:
        print_table(("id", "image", "saved (UTC)", "bytes"), rows, right=(3,))
    else:
        say("no copy yet: one is kept before a pathologist's file is replaced")


@app.command()
def restore(
    project: ProjectPath,
    at: Annotated[str, typer.Option("--at", metavar="TIME|ID", help="A time (UTC), or the id of a copy.")],
    image: ImageName = None,
    dry_run: DryRun = False,
) -> None:
    """Put a kept copy back; what lies there now is kept first."""
    from wsi_pipeline.handout.trail import restore_and_note

    for item in restore_and_note(project, at, image, dry_run=dry_run):
        kept = f"; what was there is kept as {item.kept}" if item.kept else ""
        say(f"{item.image}: {'would restore' if dry_run else 'restored'} {item.copy.id}{kept}")


@app.command()
def relocate(
    project: ProjectPath,
    places: Annotated[str, typer.Option("--map", metavar="OLD=NEW", help="Folder or URI, before and now.")],
    dry_run: DryRun = False,
) -> None:
    """Tell a project where its slides are now; no object changes."""
    from wsi_pipeline.errors import ConfigError
    from wsi_pipeline.handout.trail import relocate_and_note

    old, equals, new = places.partition("=")
    if not (old and equals and new):
        raise ConfigError(f"--map {places}: give it as OLD=NEW")
    for item in relocate_and_note(project, old, new, dry_run=dry_run):
        say(f"{item.image}: {item.old} {'would become' if dry_run else 'is now'} {item.new}")
