"""`init`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from wsi_pipeline.cli.console import say
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.files import write_text
from wsi_pipeline.resources import resource

Target = Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the configuration.")]
Slides = Annotated[
    list[str] | None, typer.Option("--slides", metavar="GLOB", help="Which slides; may be given several times.")
]
ModelPath = Annotated[str | None, typer.Option("--model", metavar="PATH", help="A model folder.")]


def init(config: Target = Path("wsi.yaml"), slides: Slides = None, model: ModelPath = None) -> None:
    """Write a commented configuration to start from."""
    if config.exists():
        raise ConfigError(f"{config} is there already; give another name, or remove it first")
    text = resource("configs/quickstart.yaml").read_text(encoding="utf-8")
    from wsi_pipeline.models.load import is_named

    chosen = [_from(config.parent, slide) for slide in slides] if slides else ['"slides/*"']
    lines = []
    for line in text.splitlines():
        if line.startswith("output:"):
            lines.append(
                "output: run                            # the run directory: predictions, regions, project, report"
            )
        elif line.lstrip().startswith("slides:"):
            lines.append(f"  slides: [{', '.join(chosen)}]   # globs, paths, or URLs (s3://, gs://, https://)")
        elif model is not None and line.lstrip().startswith("path:"):
            lines.append(f"  path: {_quoted(model) if is_named(model) else _from(config.parent, model)}")
        else:
            lines.append(line)
    write_text(config, "\n".join(lines) + "\n")
    say(f"wrote {config}; look it over, then: wsi-pipeline slides {config}, and wsi-pipeline run {config}")


def _from(folder: Path, path: str) -> str:
    """A path as the configuration in `folder` has to name it: relative ones were given from here."""
    if "://" not in path and not os.path.isabs(os.path.expanduser(path)):
        path = os.path.relpath(path, folder)
    return _quoted(path)


def _quoted(text: str) -> str:
    """A YAML string, whatever is in it."""
    return json.dumps(text, ensure_ascii=False)
