"""A before/after study of annotation with and without suggestions: times, answers, planted errors.

    python benchmarks/annotation_study.py DIR            # tables
    python benchmarks/annotation_study.py DIR --json     # everything, one JSON value

DIR holds FirstRound (from scratch) and SecondRound (with suggestions) as text exports. Definitions, and what the study
shows and does not show, are in docs/study.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# As a script its own folder is on the path, not the one that holds `benchmarks`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from benchmarks.study.layout import StudyError, read_study
from benchmarks.study.report import analyse, show


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the study's folder")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON value")
    options = parser.parse_args(arguments)
    try:
        found = analyse(read_study(options.folder))
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        show(found, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
