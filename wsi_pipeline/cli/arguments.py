"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file of the run.", show_default=False)]
ConfigOrRun = Annotated[
    Path, typer.Argument(metavar="CONFIG|RUN", help="The YAML file, or the output folder.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N slides that are left to do.")
]
Only = Annotated[
    list[str] | None, typer.Option("--slides", metavar="ID", help="Only this slide; may be given several times.")
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS", help="A running dask scheduler, like tcp://node1:8786."),
]
ClusterKind = Annotated[
    Literal["slurm", "kubernetes"] | None,
    typer.Option("--cluster", help="Have this start workers, as `inference.cluster` says."),
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, metavar="N", help="Worker processes on this machine.")]
