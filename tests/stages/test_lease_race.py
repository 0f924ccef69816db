"""Runs that take the same lease in the same instant, as processes of their own: one gets in, whatever the store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import orjson
import pytest

from benchmarks.object_store import Line
from tests.bucket import objects, s3_bucket
from wsi_pipeline.errors import RunLocked
from wsi_pipeline.inference.access import files_of
from wsi_pipeline.stages import lease, swap
from wsi_pipeline.stages.lease import NAME, leased

RUNS = 3
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("races") as (url, line):
        assert isinstance(line, Line)
        yield url


def expired(url: str) -> None:
    """What a run left that was killed an hour ago, elsewhere."""
    files, folder = files_of(url)
    files.makedirs(folder, exist_ok=True)
    left = {"holder": "process 1 on gone", "place": "x" * 16, "until": time.time() - 3600, "token": "t"}
    files.pipe_file(f"{folder}/{NAME}", orjson.dumps(left))


def race(url: str, folder: Path, kind: str) -> list[str]:
    """What each of several runs says that begin at the same moment; all end."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.stages.racing", url]
    runs = [
        subprocess.Popen(
            [*command, str(folder / str(number)), kind],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )
        for number in range(RUNS)
    ]  # fmt: skip
    try:
        assert [_said(run) for run in runs] == ["ready"] * RUNS
        moment = time.time() + 0.5
        for run in runs:
            assert run.stdin is not None
            run.stdin.write(f"{moment}\n")
            run.stdin.flush()
        return [_said(run) for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.communicate()


def _said(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline().strip()


@pytest.mark.slow
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("kind", ["conditions", "none"])
def test_of_runs_that_come_together_one_gets_in_on_s3(bucket: str, tmp_path: Path, left: bool, kind: str) -> None:
    for number in range(3):
        url = f"{bucket}/{kind}-{left}-{number}"
        if left:
            expired(url)
        said = race(url, tmp_path, kind)
        assert set(said) <= {"in", "refused"}
        # Without conditions all may be refused: those who were too slow to be sure.
        assert said.count("in") == 1 or (kind == "none" and "in" not in said)


@pytest.mark.slow
@pytest.mark.parametrize("left", [False, True])
def test_of_runs_that_come_together_one_gets_in_on_a_disk(tmp_path: Path, left: bool) -> None:
    for number in range(3):
        url = f"file://{tmp_path}/maps-{number}"
        if left:
            expired(url)
        assert sorted(race(url, tmp_path, "conditions")) == ["in", *["refused"] * (RUNS - 1)]


# ---- one step after the other


class Store:
    """An object that others write at chosen moments; it knows no conditions."""

    def __init__(self, data: bytes | None, others: Sequence[bytes | None] = ()) -> None:
        self.data = data
        self.others = list(others)

    def read(self) -> tuple[bytes | None, Any]:
        return self.data, self.data

    def write(self, data: bytes, version: Any) -> bool:
        raise swap.Unconditional

    def overwrite(self, data: bytes) -> None:
        self.data = data

    def remove(self) -> None:
        self.data = None


def of_another(until: float) -> bytes:
    return orjson.dumps({"holder": "process 2 on other", "place": "y" * 16, "until": until, "token": "u"})


def test_without_conditions_who_is_overwritten_is_not_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(of_another(time.time() - 9))
    monkeypatch.setattr(lease, "place_of", lambda fs, path: store)

    def overwritten(seconds: float) -> None:
        assert seconds == lease.SETTLE_S
        store.data = of_another(time.time() + 60)

    monkeypatch.setattr("time.sleep", overwritten)
    with pytest.raises(RunLocked, match="is being written by process 2 on other"), leased("memory://x", tmp_path):
        pass
    assert store.data is not None
    assert orjson.loads(store.data)["place"] == "y" * 16


def test_without_conditions_who_writes_late_is_not_in_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(None)
    monkeypatch.setattr(lease, "place_of", lambda fs, path: store)
    clock = iter([0.0, lease.SETTLE_S])
    monkeypatch.setattr("time.monotonic", lambda: next(clock, 99.0))
    with pytest.raises(RunLocked, match="try again"), leased("memory://x", tmp_path):
        pass
    assert store.data is None


def test_without_conditions_who_is_alone_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(b"{")
    monkeypatch.setattr(lease, "place_of", lambda fs, path: store)
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with leased("memory://x", tmp_path):
        assert orjson.loads(store.data)["holder"].startswith("process ")  # type: ignore[arg-type]
    assert slept == [lease.SETTLE_S]
    assert store.data is None


@pytest.mark.parametrize("kind", ["memory", "file", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_write_counts_only_on_what_was_read(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "s3":
        url = f"{request.getfixturevalue('bucket')}/swaps"
    else:
        url = f"memory://{tmp_path.name}" if kind == "memory" else f"file://{tmp_path}/store"
    files, folder = files_of(url)
    place = swap.place_of(files, f"{folder}/object")
    assert place.read() == (None, None)
    assert place.write(b"one", None)
    assert not place.write(b"two", None)
    found, version = place.read()
    assert found == b"one"
    assert place.write(b"three", version)
    assert not place.write(b"four", version)
    place.overwrite(b"five")
    found, newer = place.read()
    assert found == b"five"
    place.remove()
    assert place.read() == (None, None)
    assert not place.write(b"six", newer)
    assert place.read() == (None, None)
    assert not [name for name in objects(url) if name == "object"]


@pytest.mark.slow
def test_a_server_that_passes_conditions_over_is_found_out(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files, folder = files_of(f"{bucket}/old-server")
    place = swap.place_of(files, f"{folder}/object")
    call = files.call_s3

    def without(method: str, **arguments: Any) -> Any:
        return call(method, **{k: v for k, v in arguments.items() if k not in ("IfMatch", "IfNoneMatch")})

    monkeypatch.setattr(files, "call_s3", without)
    with pytest.raises(swap.Unconditional):
        place.write(b"one", None)


def test_a_store_of_which_nothing_is_known_has_no_conditions(tmp_path: Path) -> None:
    files = fsspec.filesystem("dir", path=str(tmp_path), target_protocol="file")
    place = swap.place_of(files, "object")
    with pytest.raises(swap.Unconditional):
        place.write(b"one", None)
    place.overwrite(b"one")
    assert place.read() == (b"one", b"one")
