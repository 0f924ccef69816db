"""All benchmarks, one after the other, each in a process of its own: `make bench`, `make bench-long`."""

from __future__ import annotations

import subprocess
import sys

QUICK = (
    ("benchmarks.reading",),
    ("benchmarks.regions",),
    ("benchmarks.qpdata",),
    ("benchmarks.measures",),
    ("benchmarks.comparison",),
    ("benchmarks.comparison", "--size", "16384", "--null"),
    ("benchmarks.remote",),
)
LONG = (
    ("benchmarks.reading", "--size", "16384"),
    ("benchmarks.regions", "--long"),
    ("benchmarks.measures", "--slides", "1000", "--workers", "2"),
    ("benchmarks.vast",),
    ("benchmarks.scaling",),
    # On the smaller slide of `vast`.
    ("benchmarks.scaling", "--processes", "build/bench/vast-16384.tif", "baseline"),
)


def main() -> int:
    commands = LONG if "--long" in sys.argv[1:] else QUICK
    return max(subprocess.run([sys.executable, "-m", *command], check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
