"""All benchmarks, one after the other, each in a process of its own: `make bench`, `make bench-long`."""

from __future__ import annotations

import subprocess
import sys

QUICK = (
    ("benchmarks.reading",),
    ("benchmarks.regions",),
    ("benchmarks.outlines",),
    ("benchmarks.qpdata",),
    ("benchmarks.measures",),
    ("benchmarks.comparison",),
    ("benchmarks.comparison", "--size", "16384", "--null"),
    # On the slide that this one made.
    ("benchmarks.scaling", "--processes", "build/bench/slide-16384.tif", "baseline"),
    ("benchmarks.remote",),
)
LONG = (
    ("benchmarks.reading", "--size", "16384"),
    ("benchmarks.regions", "--long"),
    ("benchmarks.measures", "--slides", "1000", "--workers", "2"),
    ("benchmarks.vast",),
    ("benchmarks.scaling",),
)


def main() -> int:
    commands = LONG if "--long" in sys.argv[1:] else QUICK
    return max(subprocess.run([sys.executable, "-m", *command], check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
