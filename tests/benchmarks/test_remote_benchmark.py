"""The line to the store counts what passes and takes its time; what is fetched is the tiles and little more."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import comparison, remote
from benchmarks.object_store import environment, object_store

pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

READ = """
import sys, time, fsspec
store = fsspec.filesystem("s3")
store.mkdir("bucket")
store.pipe("bucket/a", bytes(1_000_000))
before = time.perf_counter()
assert store.cat_file("bucket/a", start=100_000, end=200_000) == bytes(100_000)
print(time.perf_counter() - before)
"""


@pytest.mark.slow
def test_the_line_counts_and_delays() -> None:
    with object_store() as line:
        line.latency_s = 0.2
        seconds = subprocess.run(
            [sys.executable, "-c", READ], env=environment(line), check=True, capture_output=True, text=True
        ).stdout
        assert 0.2 <= float(seconds) < 20
        assert 100_000 < line.sent < 110_000
        assert line.requests >= 3
        before = time.perf_counter()
    assert time.perf_counter() - before < 60


@pytest.mark.slow
def test_a_slide_is_compared_here_and_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide = tmp_path / "slide.tif"
    comparison.draw(slide, 1024)
    remote.compare(slide, "null", 0.03, 1)
    local, near, far = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert "bytes_ratio" not in local
    assert local["tiles_mb"] == near["tiles_mb"] == far["tiles_mb"]
    for there in (near, far):
        assert there["tiles_mb"] < there["fetched_mb"] < there["tiles_mb"] + 0.5
        assert there["bytes_ratio"] == pytest.approx(there["fetched_mb"] / there["tiles_mb"], rel=0.01)
        assert there["wall_ratio"] > 0
