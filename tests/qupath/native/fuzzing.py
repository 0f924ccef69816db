"""Coverage-guided fuzzing of the reader with atheris, for who has it: `python -m tests.qupath.native.fuzzing CORPUS`.

Arguments are libFuzzer's, such as `-max_total_time=600`. A corpus of good files makes it find its way; without one it
begins with those of the damage tests.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

from wsi_pipeline.errors import QuPathFormatError

# Instrumented, the generators of the stream's reader lose their variables (atheris 2.3 with Python 3.11).
with atheris.instrument_imports(
    include=["wsi_pipeline.qupath.native"], exclude=["wsi_pipeline.qupath.native.java_reader"]
):
    from wsi_pipeline.qupath.native import reading

from tests.qupath.native.test_damage import bases


def one(raw: bytes) -> None:
    """Anything but a result or the one error is a finding."""
    try:
        reading.read_qpdata(raw)
    except QuPathFormatError:
        return


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, raw in enumerate(bases()):
            (Path(folder) / f"{number}.qpdata").write_bytes(raw)
        atheris.Setup([*sys.argv, folder], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
