"""Files that come with the package: example configurations and the scripts for QuPath."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def resource(name: str) -> Path:
    """The path of a shipped file or folder, in an installed package or in a checkout.

    Raises
    ------
    FileNotFoundError
        There is none of that name.
    """
    for root in (_PACKAGE, _PACKAGE.parent):
        path = root / name
        if path.exists():
            return path
    raise FileNotFoundError(name)
