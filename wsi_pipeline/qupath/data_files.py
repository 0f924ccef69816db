"""The files below `data/` that hold a pathologist's work: never written blindly, never lost.

Every data.qpdata is remembered by its hash when it is read; one that changed since is not written. Before this package
overwrites a file that it did not write itself, the file is copied to `history/`, named by entry and hash.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from wsi_pipeline.errors import ProjectChanged, ProjectError, StoreError
from wsi_pipeline.files import read_json, sha256_bytes, sha256_file, write_bytes, write_json

HISTORY = "history"
_WRITTEN = "written.json"
_NEVER_READ = "never read"


class FileChange(NamedTuple):
    """What is about to happen to an image's data.qpdata: its SHA-256 before and after, None where there is no file."""

    entry_id: int
    before: str | None
    after: str | None


# Told what is about to be written, when all is checked and before the first byte is; it may raise to prevent it.
Witness: TypeAlias = Callable[[Sequence[FileChange]], None]


class DataFiles:
    """The data folders of one project.

    Parameters
    ----------
    root
        Folder of the project.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._seen: dict[int, str | None] = {}
        self._ours = _load_written(root)
        self._ours_changed = False

    def folder(self, entry_id: int) -> Path:
        """Where the files of one image lie; its name is the entry id."""
        return self.root / "data" / str(entry_id)

    def qpdata(self, entry_id: int) -> Path:
        return self.folder(entry_id) / "data.qpdata"

    def highest_id(self) -> int:
        """The largest entry id that has a data folder, listed in the project or not; 0 when there is none."""
        folder = self.root / "data"
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)

    def has_data(self, entry_id: int) -> bool:
        return self.qpdata(entry_id).exists()

    def read(self, entry_id: int, image: str) -> bytes | None:
        """Bytes of data.qpdata, remembered by their hash; None for an image that was never opened.

        Raises
        ------
        ProjectError
            The file is gone and QuPath's backup of it is there, or it cannot be read.
        """
        path = self.qpdata(entry_id)
        if not path.exists():
            if backup_of(path).exists():
                raise ProjectError(
                    f"{image}: {path} is missing and its backup {backup_of(path).name} is there: QuPath was stopped "
                    "while saving; open the image in QuPath and save it, or rename the backup to data.qpdata"
                )
            self._seen[entry_id] = None
            return None
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ProjectError(f"{image}: cannot read {path}: {error.strerror or error}") from error
        self._seen[entry_id] = sha256_bytes(data)
        return data

    def was_read(self, entry_id: int) -> bool:
        """Whether data.qpdata was read (or written) here, so that a change by somebody else can be told."""
        return entry_id in self._seen

    def digest(self, entry_id: int) -> str | None:
        """SHA-256 of data.qpdata as it was read or written here; None where there was no file."""
        return self._seen.get(entry_id)

    def forget(self, entry_id: int) -> None:
        """What was read was of no use: the next reading is a first one again."""
        self._seen.pop(entry_id, None)

    def write(self, entry_id: int, image: str, data: bytes, *, ours: bool = True) -> None:
        """Replace data.qpdata, whole or not at all, and check what lies there then.

        Parameters
        ----------
        ours
            False when the write stands for a save by QuPath: the next write by this package copies it first.

        Raises
        ------
        ProjectChanged
            The file is another one than was read, or QuPath is saving it.
        """
        path = self.qpdata(entry_id)
        digest = sha256_bytes(data)
        current = self.check_unchanged(entry_id, image)
        if current is not None and current != digest:
            self.keep(entry_id, current)
        if current != digest:
            write_bytes(path, data)
            if sha256_file(path) != digest:
                raise StoreError(f"{path} does not hold what was written to it; the disk or the network drive fails")
        self._seen[entry_id] = digest
        self.mark(entry_id, digest if ours else None)

    def check_unchanged(self, entry_id: int, image: str) -> str | None:
        """The hash of data.qpdata (None: no file), which is the one that was read; `ProjectChanged` otherwise."""
        path = self.qpdata(entry_id)
        if backup_of(path).exists():
            raise ProjectChanged(
                f"{image}: {backup_of(path)} is there: QuPath is saving, or was stopped while it did; "
                "close QuPath, look at the image, remove the backup and run again"
            )
        current = sha256_file(path) if path.exists() else None
        if current != self._seen.get(entry_id, _NEVER_READ):
            raise ProjectChanged(f"{image}: {path} was changed since it was read; nothing was written, run again")
        return current

    def keep(self, entry_id: int, digest: str) -> None:
        """Copy data.qpdata to the history unless this package wrote it, or the copy is there."""
        copy = self.root / HISTORY / f"{entry_id}-{digest[:16]}.qpdata"
        if self._ours.get(str(entry_id)) == digest or copy.exists():
            return
        source = self.qpdata(entry_id)
        write_bytes(copy, source.read_bytes())
        shutil.copystat(source, copy)

    def is_ours(self, entry_id: int) -> bool:
        """Whether this package wrote the data.qpdata that was read."""
        return self._seen.get(entry_id) is not None and self._ours.get(str(entry_id)) == self._seen[entry_id]

    def mark(self, entry_id: int, digest: str | None) -> None:
        """Remember that this package wrote the file with this hash (None: that QuPath did)."""
        key = str(entry_id)
        if self._ours.get(key) == digest:
            return
        self._ours_changed = True
        if digest is None:
            del self._ours[key]
        else:
            self._ours[key] = digest

    def flush(self) -> None:
        """Write down which files are this package's own; without it, they are merely copied once more than needed."""
        if self._ours_changed:
            write_json(self.root / HISTORY / _WRITTEN, {"schema": 1, "files": self._ours})
            self._ours_changed = False


def backup_of(path: Path) -> Path:
    """What QuPath moves a data.qpdata to while it saves."""
    return path.with_name(path.name + ".bkp")


def _load_written(root: Path) -> dict[str, str]:
    path = root / HISTORY / _WRITTEN
    if not path.is_file():
        return {}
    value: Any = read_json(path)
    files = value.get("files") if isinstance(value, dict) else None
    return {str(key): str(digest) for key, digest in files.items()} if isinstance(files, dict) else {}
