"""Files are whole or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import (
    atomic,
    read_json,
    remove_partials,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)


def _write_and_fail(file: IO[bytes]) -> None:
    file.write(b"half of the n")
    raise RuntimeError


def test_a_failure_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as file:
        _write_and_fail(file)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_the_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic(path) as file:
        file.write(b"x")
        assert not path.exists()
    assert path.read_bytes() == b"x"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*file/below: "):
        write_bytes(tmp_path / "file" / "below", b"")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from wsi_pipeline.files import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_bytes(Path(sys.argv[1]), bytes(5000))
"""


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "big")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "StoreError: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_json_comes_back_and_the_same_value_gives_the_same_bytes(
    value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("json")
    write_json(folder / "a.json", value)
    write_json(folder / "b.json", read_json(folder / "a.json"))
    assert read_json(folder / "a.json") == value
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()


def test_damaged_or_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*none\.json: No such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(StoreError, match=r"bad\.json is not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/x.json.17.partial", "a/b/c.0.abc.partial", "a/keep.json", "keep.partial.json"):
        (tmp_path / name).write_text("")
    assert remove_partials(tmp_path) == 2
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"keep.json", "keep.partial.json"}


def test_hashes_of_bytes_and_of_a_file_agree(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == sha256_bytes(b"abc")
    assert sha256_bytes(b"abc").startswith("ba7816bf")
