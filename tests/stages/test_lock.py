"""One writer at a time, and a killed one blocks nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_pipeline.errors import RunLocked, StoreError
from wsi_pipeline.stages.lock import exclusive

HOLD = """
import sys, time
from pathlib import Path
from wsi_pipeline.stages.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "run.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunLocked, match=rf"is being written by process {holder.pid} on "), exclusive(path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        if holder.stdout:
            holder.stdout.close()
    with exclusive(path):
        assert path.read_text().startswith(f"process {os.getpid()} ")


def test_it_is_free_again_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    for _ in range(3):
        with exclusive(path):
            pass


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="give another `output`"), exclusive(tmp_path / "file" / "run.lock"):
        pass
