"""What goes wrong in the middle of a cohort: the rest is done, the cause named, and a rerun ends in the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tifffile

from tests.slides.served import Served, serving
from tests.stages.made import (
    Starter,
    files_of,
    record_of,
    run_of,
    small_slide,
    starting,
    states_of,
    write_config,
)
from tests.watching import files_below
from wsi_pipeline.cli.app import run
from wsi_pipeline.slides import remote

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides."""
    folder = tmp_path_factory.mktemp("faults")
    small_slide(folder / "first.tif", width=1100, height=1000)
    small_slide(folder / "second.tif", width=1000, height=1100, seed=5)
    return folder


# ---- a store that fails


@pytest.fixture
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    with serving(folder) as server:
        yield server


@pytest.mark.parametrize(
    ("well", "kind", "cause"),
    [
        pytest.param(0, "busy", "503", marks=pytest.mark.slow),
        (12, "busy", "503"),
        pytest.param(0, "silent", "no answer within", marks=pytest.mark.slow),
        pytest.param(12, "silent", "no answer within", marks=pytest.mark.slow),
    ],
)
def test_a_slide_whose_store_fails_is_named_and_done_later(
    folder: Path,
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    cause: str,
    well: int,
) -> None:
    config = write_config(tmp_path, [f"{served.url}/first.tif", f"{served.url}/second.tif"])
    assert run(["predict", str(config)]) == 0
    alone = files_of(run_of(config))
    shutil.rmtree(run_of(config).root)
    remote._headers.clear()
    # From the opening on, or from some time after it.
    served.trouble = ("first.tif", well, kind)
    start = time.monotonic()
    with monkeypatch.context() as patch:
        if kind == "silent":
            # Long enough for the other slide on a slow machine.
            patch.setattr(remote, "STALL_S", 2.0)
        assert run(["predict", str(config)]) == 2
    assert time.monotonic() - start < 60
    assert states_of(config) == {"first.tif": "failed", "second.tif": "done"}
    told = capsys.readouterr().err
    assert f"the store fails: {cause}" in told
    assert "look at the store and the network, then run again" in told
    assert "Traceback" not in told
    before = {name: data for name, data in files_of(run_of(config)).items() if name.startswith("slides/second-")}
    assert before.items() <= alone.items()
    # No longer in trouble, and asked again at once.
    served.trouble = None
    assert run(["predict", str(config)]) == 0
    assert files_of(run_of(config)) == alone


# ---- tiles


def zeroed(data: bytes) -> bytes:
    return bytes(len(data))


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def broken_header(data: bytes) -> bytes:
    return b"\x00\x01" + data[2:]


def holed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(512) + data[middle + 512 :]


@pytest.mark.parametrize(
    "harm", [truncated, *(pytest.param(harm, marks=pytest.mark.slow) for harm in (zeroed, broken_header, holed))]
)
def test_a_damaged_tile_costs_its_blocks_and_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[bytes], bytes]
) -> None:
    config = write_config(tmp_path, [folder / "second.tif", "damaged.tif"], inference={"retries": 0})
    damaged = tmp_path / "damaged.tif"
    shutil.copy(folder / "first.tif", damaged)
    assert run(["predict", str(config)]) == 0
    alone = files_of(run_of(config))
    shutil.rmtree(run_of(config).root)
    whole = damaged.read_bytes()
    # The model works on level 1: a tile in the middle of that.
    with tifffile.TiffFile(damaged) as tiff:
        page = tiff.series[0].levels[1].keyframe
        columns = -(-page.imagewidth // page.tilewidth)
        offset, count = page.dataoffsets[columns + 1], page.databytecounts[columns + 1]
    damaged.write_bytes(whole[:offset] + harm(whole[offset : offset + count]) + whole[offset + count :])
    assert run(["predict", str(config)]) == 2
    assert states_of(config) == {"second.tif": "done", "damaged.tif": "failed"}
    told = capsys.readouterr().err
    assert "tile 1,1 of level 1 " in told
    assert "Traceback" not in told
    after = files_of(run_of(config))
    assert {name: data for name, data in after.items() if "/second-" in name}.items() <= alone.items()
    damaged.write_bytes(whole)
    assert run(["predict", str(config)]) == 0
    assert files_of(run_of(config)) == alone


# ---- a full disk


SMALL_DISK = """
set -e
mount -t tmpfs -o size="$2" tmpfs "$1"
code=0; "$3" -m wsi_pipeline.cli predict "$4" || code=$?
cp -a "$1/." "$5"
exit $code
"""


def small_disks_can_be_made() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not small_disks_can_be_made(), reason="no tmpfs can be mounted; test_kill limits the size of files")
@pytest.mark.parametrize("kib", [60, 400])
def test_a_disk_that_is_full_is_named_and_the_rest_done_when_there_is_room(
    folder: Path, tmp_path: Path, kib: int
) -> None:
    config = write_config(tmp_path, [folder / "first.tif", folder / "second.tif"])
    output, kept = run_of(config).root, tmp_path / "kept"
    assert run(["predict", str(config)]) == 0
    alone = files_of(run_of(config))
    needed = sum(-(-len(data) // 4096) * 4 for data in alone.values())
    assert needed > kib, "the disk is not small enough"
    shutil.rmtree(output)
    output.mkdir()
    kept.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["unshare", "-rm", "sh", "-c", SMALL_DISK, "-"]
    done = subprocess.run(
        [*command, str(output), f"{kib}k", sys.executable, str(config), str(kept)],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2), done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    output.rmdir()
    kept.rename(output)
    assert not list(output.rglob("*.partial"))
    for name, data in files_of(run_of(config)).items():
        # What is there is whole; states of blocks and of slides are on their way.
        if "/blocks/" not in name and name not in ("run.json", "queue.csv"):
            assert data == alone[name], name
    assert run(["predict", str(config)]) == 0
    assert files_of(run_of(config)) == alone


FULL_DISK = """
set -e
mount -t tmpfs -o size=40k tmpfs "$1"
head -c 60000 /dev/zero > "$1/filler" 2> /dev/null || true
exec "$2" -m wsi_pipeline.cli predict "$3"
"""


@pytest.mark.skipif(not small_disks_can_be_made(), reason="no tmpfs can be mounted")
def test_a_disk_that_was_full_before_is_named(folder: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, [folder / "first.tif"])
    output = run_of(config).root
    output.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["unshare", "-rm", "sh", "-c", FULL_DISK, "-", str(output), sys.executable, str(config)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert f"cannot write {run_of(config).lock}: No space left on device; make room" in done.stderr
    assert "Traceback" not in done.stderr


# ---- two at once


@pytest.fixture
def started() -> Iterator[Starter]:
    with starting() as start_one:
        yield start_one


def test_a_process_that_a_test_leaves_stopped_is_ended() -> None:
    left: list[subprocess.Popen[str]] = []

    def fails() -> None:
        with starting() as start_one:
            left.append(start_one("--help"))
            left[0].send_signal(signal.SIGSTOP)
            raise AssertionError("midway")

    with pytest.raises(AssertionError, match="midway"):
        fails()
    assert left[0].returncode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(left[0].pid, 0)


def test_a_second_run_on_one_output_is_refused_and_the_first_goes_on(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    started: Starter,
) -> None:
    config = write_config(tmp_path, [folder / "first.tif", folder / "second.tif"])
    assert run(["predict", str(config)]) == 0
    alone = files_of(run_of(config))
    shutil.rmtree(run_of(config).root)
    first = started("predict", config)
    while not files_below(run_of(config).root / "slides"):
        assert first.poll() is None
        time.sleep(0.001)
    # It has time until the second has come.
    first.send_signal(signal.SIGSTOP)
    assert run(["predict", str(config)]) == 1
    told = capsys.readouterr().err
    first.send_signal(signal.SIGCONT)
    assert f"is being written by process {first.pid} on " in told
    assert "wait for it, or give another `output`" in told
    first.communicate()
    assert first.returncode == 0
    assert files_of(run_of(config)) == alone
    assert record_of(config)["slides"]
