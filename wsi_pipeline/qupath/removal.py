"""Taking images out of a project for good: for a slide that must be forgotten, and for nothing else.

What a pathologist did in the image goes with it, copies and all. An entry id is never given again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from wsi_pipeline.errors import ProjectError, StoreError
from wsi_pipeline.files import read_json, write_bytes, write_json
from wsi_pipeline.qupath.data_files import HISTORY
from wsi_pipeline.qupath.lease import hold, refuse_while_open
from wsi_pipeline.qupath.project_file import gson, project_path, read_project_file

SNAPSHOTS = "snapshots"


def remove_images(path: Path, entry_ids: Collection[int], *, dry_run: bool = False) -> list[Path]:
    """Remove images from the project file and its copies, with their data, history and snapshots.

    Parameters
    ----------
    path
        The project file, or its folder.
    entry_ids
        Of the images; ids that the project does not have are no error, as their files may still be there.

    Returns
    -------
    The files and folders that were removed or changed (or would be).

    Raises
    ------
    ProjectError
        There is no such project, somebody else works on it, or QuPath has it open.
    StoreError
        A file cannot be removed.
    """
    path = project_path(path)
    root = path.parent
    if dry_run:
        return [*_copies(path, entry_ids), *_files(root, entry_ids)]
    with hold(root):
        refuse_while_open(root, ours=True)
        file = read_project_file(path)
        changed = _copies(path, entry_ids)
        file.raw["images"] = [image for image in file.raw["images"] if not _is_one(image, entry_ids)]
        file.entries = [entry for entry in file.entries if entry.entry_id not in entry_ids]
        # The list of entries is gone before their files are: an image without data would be shown as an empty one.
        file.save()
        for copy in _copies(path, entry_ids):
            value = _images_of(copy)
            value["images"] = [image for image in value["images"] if not _is_one(image, entry_ids)]
            write_bytes(copy, gson(value))
        removed = _files(root, entry_ids)
        for item in removed:
            _remove(item)
        for name, key in (("written.json", "files"), ("first.json", "copies")):
            _without(root / HISTORY / name, key, entry_ids)
    return [*changed, *removed]


def _copies(path: Path, entry_ids: Collection[int]) -> list[Path]:
    """The project file and copies of it beside it that list one of the images."""
    found = sorted(path.parent.glob("*.qpproj*"))
    return [copy for copy in found if any(_is_one(image, entry_ids) for image in _images_of(copy).get("images", ()))]


def _images_of(path: Path) -> dict[str, Any]:
    """A project file's JSON; an empty one for a copy that is none, or that no longer can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) and isinstance(value.get("images"), list) else {}


def _is_one(image: Any, entry_ids: Collection[int]) -> bool:
    try:
        return int(image["entryID"]) in entry_ids
    except (KeyError, TypeError, ValueError):
        return False


def _files(root: Path, entry_ids: Collection[int]) -> list[Path]:
    """Data, snapshots and history of the images."""
    found: list[Path] = []
    for entry_id in sorted(entry_ids):
        folders = [root / folder / str(entry_id) for folder in ("data", SNAPSHOTS)]
        found += [folder for folder in folders if folder.exists()]
        found += sorted((root / HISTORY).glob(f"{entry_id}-*"))
    return found


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error


def _without(path: Path, key: str, entry_ids: Collection[int]) -> None:
    """A list by entry of the history, without the images."""
    if not path.is_file():
        return
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get(key), dict):
        raise ProjectError(f"{path} is damaged; restore it from a backup, or delete it")
    kept = {entry: known for entry, known in value[key].items() if entry not in {str(i) for i in entry_ids}}
    if kept != value[key]:
        write_json(path, {**value, key: kept})
