"""Starting a real Groovy on our scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from wsi_pipeline.resources import resource

FOLDER = resource("qupath_scripts")
SCRIPTS = sorted(FOLDER.glob("*.groovy"))
PARSER = Path(__file__).with_name("parse.groovy")
STAND_IN = Path(__file__).with_name("stand_in")


def groovy(script: Path, *arguments: Path | str, properties: Mapping[str, str] | None = None) -> list[str]:
    """The lines that a Groovy script prints; `properties` are those of the Java machine (`-Dname=value`)."""
    given = [f"-D{name}={value}" for name, value in (properties or {}).items()]
    # Groovy's starter knows the class path as its first option only.
    command = ["groovy", "-cp", str(STAND_IN), *given, str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_with_java_home())
    return done.stdout.splitlines()


def _with_java_home() -> dict[str, str]:
    """Debian's groovy looks for the distribution's default Java only."""
    java = shutil.which("java")
    if "JAVA_HOME" in os.environ or java is None:
        return dict(os.environ)
    return {**os.environ, "JAVA_HOME": str(Path(java).resolve().parent.parent)}
