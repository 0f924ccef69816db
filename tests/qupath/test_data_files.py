"""The files that hold a pathologist's work are never written blindly."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import shapely

from wsi_pipeline.errors import ProjectChanged, ProjectError
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.data_files import DataFiles, backup_of
from wsi_pipeline.qupath.history import write_twin
from wsi_pipeline.qupath.native.qpdata import QpData, write_qpdata


def _saved_by_qupath(project: Path, data: bytes, entry: int = 1) -> Path:
    path = project / "data" / str(entry) / "data.qpdata"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _history(project: Path) -> list[bytes]:
    return sorted(p.read_bytes() for p in (project / "history").glob("*.qpdata"))


def test_an_image_that_was_never_opened_has_no_data(tmp_path: Path) -> None:
    files = DataFiles(tmp_path)
    assert files.read(1, "a") is None
    assert not files.has_data(1)
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_whole_and_read_back(tmp_path: Path) -> None:
    files = DataFiles(tmp_path)
    files.read(1, "a")
    files.write(1, "a", b"one")
    assert files.read(1, "a") == b"one"
    files.write(1, "a", b"two")
    assert files.qpdata(1).read_bytes() == b"two"
    assert [p.name for p in files.folder(1).iterdir()] == ["data.qpdata"]


def test_a_file_that_was_not_read_is_not_written(tmp_path: Path) -> None:
    path = _saved_by_qupath(tmp_path, b"work")
    with pytest.raises(ProjectChanged):
        DataFiles(tmp_path).write(1, "a", b"new")
    assert path.read_bytes() == b"work"


@pytest.mark.parametrize("theirs", [b"more work", None])
def test_a_file_that_changed_since_it_was_read_is_not_written(tmp_path: Path, theirs: bytes | None) -> None:
    path = _saved_by_qupath(tmp_path, b"work")
    files = DataFiles(tmp_path)
    files.read(1, "slide a")
    if theirs is None:
        path.unlink()
    else:
        path.write_bytes(theirs)
    with pytest.raises(ProjectChanged, match="slide a"):
        files.write(1, "slide a", b"new")
    assert (path.read_bytes() if path.exists() else None) == theirs


def test_a_file_that_appears_where_none_was_is_not_overwritten(tmp_path: Path) -> None:
    files = DataFiles(tmp_path)
    files.read(1, "a")
    _saved_by_qupath(tmp_path, b"work")
    with pytest.raises(ProjectChanged):
        files.write(1, "a", b"new")


def test_what_qupath_saved_is_copied_before_it_is_overwritten_and_our_own_is_not(tmp_path: Path) -> None:
    _saved_by_qupath(tmp_path, b"work")
    files = DataFiles(tmp_path)
    files.read(1, "a")
    files.write(1, "a", b"ours")
    files.write(1, "a", b"ours again")
    files.flush()
    assert _history(tmp_path) == [b"work"]
    # A later run knows its own file, and knows QuPath's by not knowing it.
    later = DataFiles(tmp_path)
    later.read(1, "a")
    later.write(1, "a", b"ours later")
    assert _history(tmp_path) == [b"work"]
    _saved_by_qupath(tmp_path, b"corrected")
    later.read(1, "a")
    later.write(1, "a", b"ours at last")
    assert _history(tmp_path) == [b"corrected", b"work"]


def test_a_save_that_stands_for_qupath_is_copied_by_the_next_write(tmp_path: Path) -> None:
    files = DataFiles(tmp_path)
    files.read(1, "a")
    files.write(1, "a", b"ours")
    files.write(1, "a", b"the pathologist's", ours=False)
    files.write(1, "a", b"ours again")
    assert _history(tmp_path) == [b"the pathologist's"]


def test_the_same_bytes_are_not_written_again(tmp_path: Path) -> None:
    files = DataFiles(tmp_path)
    files.read(1, "a")
    files.write(1, "a", b"same")
    before = files.qpdata(1).stat().st_mtime_ns
    files.write(1, "a", b"same")
    assert files.qpdata(1).stat().st_mtime_ns == before
    assert not (tmp_path / "history").exists()


def test_a_lost_file_with_a_backup_is_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    path = _saved_by_qupath(tmp_path, b"work")
    path.rename(backup_of(path))
    with pytest.raises(ProjectError, match=r"rename the backup to data\.qpdata"):
        DataFiles(tmp_path).read(1, "a")


def test_nothing_is_written_while_qupath_saves(tmp_path: Path) -> None:
    path = _saved_by_qupath(tmp_path, b"work")
    files = DataFiles(tmp_path)
    files.read(1, "a")
    backup_of(path).write_bytes(b"older")
    with pytest.raises(ProjectChanged, match="saving"):
        files.write(1, "a", b"new")
    assert path.read_bytes() == b"work"


def test_ids_of_folders_that_remain_are_known(tmp_path: Path) -> None:
    assert DataFiles(tmp_path).highest_id() == 0
    for name in ("2", "11", "metadata.json", "x3"):
        (tmp_path / "data" / name).mkdir(parents=True)
    assert DataFiles(tmp_path).highest_id() == 11


def test_a_copy_with_a_shape_that_geojson_cannot_hold_has_no_twin_and_stays(tmp_path: Path) -> None:
    whole = PathObject(uuid=str(uuid.UUID(int=1)), kind=Kind.ANNOTATION, geometry=shapely.box(0, 0, 9, 9))
    empty = PathObject(uuid=str(uuid.UUID(int=2)), kind=Kind.ANNOTATION, geometry=shapely.MultiPoint())
    for name, objects in (("whole", [whole]), ("empty", [whole, empty])):
        copy = tmp_path / f"{name}.qpdata"
        copy.write_bytes(write_qpdata(QpData(objects=objects)))
        write_twin(copy)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.qpdata", "whole.geojson", "whole.qpdata"]
