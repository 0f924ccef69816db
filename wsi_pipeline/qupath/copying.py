"""A whole project read and written anew, natively."""

from __future__ import annotations

from pathlib import Path

from wsi_pipeline.errors import ProjectError, StoreError
from wsi_pipeline.files import PARTIAL, write_bytes
from wsi_pipeline.qupath.native_project import NativeProject, checked_bytes
from wsi_pipeline.qupath.project_file import BACKUP_SUFFIX, gson, project_path, read_project_file


def copy_project(source: Path, target: Path) -> int:
    """Read a project and write all of it into another folder; returns the number of its images.

    The objects of every image go through the native reader and writer and are compared on the way. Every other file
    is copied as it is, those of images that the project no longer lists too. Slides are not copied. The project file
    comes last, so that a copy that was interrupted is no project.

    Parameters
    ----------
    source
        Folder of the project, or its .qpproj.
    target
        A folder that does not exist or is empty.

    Raises
    ------
    ProjectError, QuPathFormatError
        The target is not empty, or something in the source cannot be read in full.
    """
    path = project_path(source)
    root = path.parent
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ProjectError(f"{target} is not an empty folder; copy the project to a new one")
    if target.absolute().is_relative_to(root.absolute()):
        raise ProjectError(f"{target} lies inside the project that is to be copied")
    project = NativeProject.open(path, read_only=True)
    rewritten: set[Path] = set()
    for image in project.images():
        data = project.read_data(image)
        if data is not None:
            relative = Path("data") / str(image.entry_id) / "data.qpdata"
            write_bytes(target / relative, checked_bytes(data, image.name))
            rewritten.add(relative)
    skipped = {*rewritten, Path(path.name), Path(path.name + BACKUP_SUFFIX)}
    for file in sorted(root.rglob("*")):
        relative = file.relative_to(root)
        if file.is_file() and relative not in skipped and not file.name.endswith(PARTIAL):
            _copy(file, target / relative)
    (target / "classifiers").mkdir(parents=True, exist_ok=True)
    write_bytes(target / path.name, gson(read_project_file(path).raw))
    return len(project.images())


def _copy(source: Path, target: Path) -> None:
    try:
        data = source.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {source}: {error.strerror or error}") from error
    write_bytes(target, data)
