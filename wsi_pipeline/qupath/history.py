"""Copies of data.qpdata with their history, beside QuPath's own folder `data/`, and how to get one back.

A copy is `history/<entry>-<hash>.qpdata`, with the time at which the file was saved; the same content is kept once.
`history/first.json` names the state in which each image was handed out first. A copy's twin `.geojson` holds the
objects in QuPath's own frame, so that QuPath can import them when all else fails.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wsi_pipeline.errors import ProjectError, QuPathFormatError, StoreError
from wsi_pipeline.files import read_json, sha256_bytes, sha256_file, write_bytes, write_json
from wsi_pipeline.qupath.data_files import HISTORY, DataFiles, FileChange, Witness
from wsi_pipeline.qupath.geojson import write_geojson
from wsi_pipeline.qupath.lease import hold, refuse_while_open
from wsi_pipeline.qupath.native.qpdata import read_qpdata
from wsi_pipeline.qupath.project_file import project_path, read_project_file

_FIRST = "first.json"


@dataclass(frozen=True, slots=True)
class Copy:
    """One kept data.qpdata; `saved` is when its content was written to the project (UTC)."""

    id: str
    entry_id: int
    image: str
    saved: datetime
    size: int
    path: Path


@dataclass(frozen=True, slots=True)
class Restored:
    """What restoring did, or would do, to one image."""

    image: str
    entry_id: int
    copy: Copy
    kept: str | None
    """Id of the copy of what lay there before; None where there was nothing, or it is what is restored."""


def history_of(path: Path, image: str | None = None) -> list[Copy]:
    """All copies of a project, the newest last.

    Raises
    ------
    ProjectError
        There is no such project, or no image of that name.
    """
    file = read_project_file(project_path(path))
    names = {entry.entry_id: entry.name for entry in file.entries}
    if image is not None and image not in names.values():
        raise ProjectError(f"{file.path}: has no image {image}; it has {', '.join(sorted(names.values()))}")
    found = []
    for copy in sorted((file.path.parent / HISTORY).glob("*.qpdata")):
        entry, _, digest = copy.stem.partition("-")
        if not (entry.isascii() and entry.isdigit() and digest):
            continue
        name = names.get(int(entry), "(no longer in the project)")
        if image is None or name == image:
            stat = copy.stat()
            saved = datetime.fromtimestamp(stat.st_mtime, UTC)
            found.append(Copy(copy.stem, int(entry), name, saved, stat.st_size, copy))
    return sorted(found, key=lambda c: (c.saved, c.id))


def restore(
    path: Path, at: str, image: str | None = None, *, dry_run: bool = False, witness: Witness | None = None
) -> list[Restored]:
    """Put copies back; what lies there now is copied to the history first.

    Parameters
    ----------
    at
        The id of a copy, or a time (ISO 8601, UTC unless it says otherwise): each image gets the newest state that was
        saved at or before it. Images whose present state is that one are left alone.
    witness
        Told of each file that changes.

    Raises
    ------
    ProjectError
        No copy fits, the copy is damaged, or QuPath or another program works on the project.
    """
    root = project_path(path).parent
    copies = history_of(path, image)
    by_id = [c for c in copies if c.id == at]
    files = DataFiles(root)
    wanted = by_id or _at_time(copies, at, files)
    refuse_while_open(root)
    done: list[Restored] = []
    raws: list[bytes] = []
    for copy in wanted:
        raw = copy.path.read_bytes()
        if not sha256_bytes(raw).startswith(copy.id.partition("-")[2]):
            raise ProjectError(f"{copy.image}: {copy.path} is not what was kept; choose another copy")
        try:
            read_qpdata(raw)
        except QuPathFormatError as error:
            raise ProjectError(f"{copy.image}: {copy.path} cannot be read: {error}; choose another copy") from error
        current = files.qpdata(copy.entry_id)
        now = sha256_file(current) if current.exists() else None
        kept = None if now is None or now == sha256_bytes(raw) else f"{copy.entry_id}-{now[:16]}"
        done.append(Restored(copy.image, copy.entry_id, copy, kept))
        raws.append(raw)
    if dry_run:
        return done
    with hold(root):
        for item in done:
            keep_now(files, item.entry_id, item.image)
        if witness is not None:
            # Of the state that was kept just now; where it is another one by then, the write is refused.
            changes = [
                FileChange(item.entry_id, files.digest(item.entry_id), sha256_bytes(raw))
                for item, raw in zip(done, raws, strict=True)
            ]
            witness([change for change in changes if change.before != change.after])
        for item, raw in zip(done, raws, strict=True):
            files.write(item.entry_id, item.image, raw, ours=False)
        files.flush()
    return done


def keep_now(files: DataFiles, entry_id: int, image: str) -> None:
    """Copy an image's data.qpdata to the history, whoever wrote it, with its twin."""
    data = files.read(entry_id, image)
    if data is None:
        return
    copy = files.root / HISTORY / f"{entry_id}-{sha256_bytes(data)[:16]}.qpdata"
    if not copy.exists():
        stat = files.qpdata(entry_id).stat()
        write_bytes(copy, data)
        os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    write_twin(copy)


def keep_first(root: Path, entry_id: int, image: str) -> bool:
    """Copy an image as this package has written it, once, as the state in which it was handed out first.

    Returns
    -------
    Whether it was copied: not where that was done before, nor where QuPath has saved since.
    """
    first = first_of(root)
    if entry_id in first:
        return False
    files = DataFiles(root)
    data = files.read(entry_id, image)
    if data is None or not files.is_ours(entry_id):
        return False
    keep_now(files, entry_id, image)
    known = {**first, entry_id: f"{entry_id}-{sha256_bytes(data)[:16]}"}
    write_json(root / HISTORY / _FIRST, {"schema": 1, "copies": {str(key): known[key] for key in sorted(known)}})
    return True


def first_of(root: Path) -> dict[int, str]:
    """By entry, the id of the copy of the state that was handed out first."""
    path = root / HISTORY / _FIRST
    if not path.is_file():
        return {}
    value = read_json(path)
    try:
        return {int(entry): str(copy) for entry, copy in value["copies"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: {error}; restore it from a backup, or delete it") from error


def tend(path: Path, keep: int) -> list[Copy]:
    """Give every copy its twin, and let old copies go: of each image the newest `keep` stay, and the first one.

    Parameters
    ----------
    keep
        At least 1. What was handed out first is never removed; where that is not known, the oldest copy is not.

    Returns
    -------
    The copies that were removed.
    """
    root = project_path(path).parent
    first = first_of(root)
    of_entry: dict[int, list[Copy]] = {}
    for copy in history_of(path):
        of_entry.setdefault(copy.entry_id, []).append(copy)
    removed = []
    for entry_id, copies in of_entry.items():
        pinned = first.get(entry_id, copies[0].id)
        stay = {copy.id for copy in copies[-max(1, keep) :]} | {pinned}
        for copy in copies:
            if copy.id in stay:
                write_twin(copy.path)
                continue
            copy.path.unlink(missing_ok=True)
            copy.path.with_suffix(".geojson").unlink(missing_ok=True)
            removed.append(copy)
    return removed


def write_twin(copy: Path) -> None:
    """The objects of a copy as GeoJSON beside it.

    A file that cannot be read has none, nor one with a shape that GeoJSON cannot hold (no points, mixed kinds); the
    copy is kept all the same.
    """
    twin = copy.with_suffix(".geojson")
    if twin.exists():
        return
    with suppress(QuPathFormatError):
        data = read_qpdata(copy.read_bytes())
        colors = {name: color for name, color in data.class_colors.items() if color is not None}
        write_geojson(twin, data.objects, colors)


def _at_time(copies: list[Copy], at: str, files: DataFiles) -> list[Copy]:
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise ProjectError(
            f"{at} is neither the id of a copy nor a time such as 2026-01-31T14:00; "
            "`wsi-pipeline project history` lists both"
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    newest = {c.entry_id: c for c in copies if c.saved <= moment}
    for entry_id in list(newest):
        path = files.qpdata(entry_id)
        if path.exists() and newest[entry_id].saved.timestamp() <= path.stat().st_mtime <= moment.timestamp():
            del newest[entry_id]
    if not newest:
        raise ProjectError(
            f"no copy was saved at or before {at} that is not the present state; "
            "`wsi-pipeline project history` lists all"
        )
    return list(newest.values())
