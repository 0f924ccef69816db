"""`project`: look inside QuPath projects, without QuPath."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_pipeline.cli.console import say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED

app = typer.Typer(help="Look inside QuPath projects, without QuPath.", no_args_is_help=True)

ProjectPath = Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder, or its .qpproj.", show_default=False)]
OtherProject = Annotated[Path, typer.Argument(metavar="OTHER", help="The other project.", show_default=False)]
Target = Annotated[Path, typer.Argument(metavar="TARGET", help="A folder that is not there yet.", show_default=False)]


@app.command()
def dump(project: ProjectPath) -> None:
    """Print everything that a project holds as one JSON document."""
    import json
    import sys

    from wsi_pipeline.qupath.dump import dump_project

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
