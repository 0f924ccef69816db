"""Folders that another process makes, moves and fills while a test looks."""

from __future__ import annotations

import os
from pathlib import Path


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """Files whose path ends like `pattern`, partial ones too; what vanishes meanwhile is left out, not an error."""
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return [path for path in files if path.match(pattern)]
