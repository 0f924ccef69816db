"""A process that takes a lease at a moment that it is told, says whether it is in, and holds on until it is ended.

    python -m tests.stages.racing URL OUTPUT [conditions|none]

`none`: as on a store that knows no conditions, and waits three seconds instead of five. Says `in` or `refused`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from wsi_pipeline.errors import RunLocked
from wsi_pipeline.inference.access import files_of
from wsi_pipeline.stages import lease, swap
from wsi_pipeline.stages.lease import leased


def main() -> None:
    url, output, kind = sys.argv[1:]
    if kind == "none":
        lease.SETTLE_S = 3.0
        lease.place_of = lambda fs, path: swap._Anywhere(fs, path)  # type: ignore[attr-defined]
    warm(url)
    say("ready")
    moment = float(sys.stdin.readline())
    while time.time() < moment:
        time.sleep(0.0005)
    try:
        with leased(url, Path(output)):
            say("in")
            sys.stdin.readline()
    except RunLocked:
        say("refused")


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def warm(url: str) -> None:
    """Import and connect before the moment, so that all begin at once."""
    files, folder = files_of(url)
    found: Any = files.exists(folder)
    assert found in (True, False)


if __name__ == "__main__":
    main()
