"""Looking into folders that change meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Event, Thread

from tests.watching import files_below


def test_files_are_found_by_the_end_of_their_path(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "c" / "0" / "1" / "2"
    wanted.parent.mkdir(parents=True)
    wanted.touch()
    (tmp_path / "a" / "zarr.json").touch()
    assert files_below(tmp_path, "c/0/*/*") == [wanted]
    assert len(files_below(tmp_path)) == 2
    assert files_below(tmp_path / "none") == []


def test_folders_that_come_and_go_meanwhile_are_no_error(tmp_path: Path) -> None:
    over = Event()

    def churn() -> None:
        while not over.is_set():
            (tmp_path / "a" / "b" / "c").mkdir(parents=True)
            (tmp_path / "a" / "b" / "file").touch()
            shutil.rmtree(tmp_path / "a")

    thread = Thread(target=churn)
    thread.start()
    try:
        for _ in range(500):
            assert len(files_below(tmp_path)) <= 1
    finally:
        over.set()
        thread.join()
