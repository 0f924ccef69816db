"""project.qpproj and classifiers/classes.json: read as QuPath reads them, written byte for byte in its form.

JSON is kept as it was read: keys and builders that are not known here stay, in their order. What QuPath itself would
refuse is refused here, in one sentence; QuPath would open nothing of such a project.
"""

from __future__ import annotations

import copy
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from wsi_pipeline.errors import ProjectChanged, ProjectError
from wsi_pipeline.files import sha256_bytes, sha256_file, write_bytes
from wsi_pipeline.objects import RGB, PathClass
from wsi_pipeline.qupath.builders import Builder, builder_size, builder_uri, check_uri, innermost

FILE_NAME = "project.qpproj"
BACKUP_SUFFIX = ".backup"
# The form that is written; QuPath 0.4 to 0.7 open it.
VERSION = "0.6.0"
_REFUSED_VERSIONS = {"v0.2.0-m1", "v0.2.0-m2"}
# Gson writes these five characters of a text as escapes.
_ESCAPES = {b"<": b"\\u003c", b">": b"\\u003e", b"&": b"\\u0026", b"=": b"\\u003d", b"'": b"\\u0027"}
# A class of this name is no class: QuPath's name of the one that stands for "none".
_NULL_CLASS = "Unclassified"


def gson(value: Any, *, indent: bool = True) -> bytes:
    """JSON as QuPath's own writer forms it: two spaces of indent or none, no final newline, `<>&='` escaped."""
    data = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0)
    # None of these characters occurs outside of a text in JSON.
    for plain, escaped in _ESCAPES.items():
        data = data.replace(plain, escaped)
    return data


def now_ms() -> int:
    """Milliseconds since 1970, as QuPath's timestamps count."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Entry:
    """One image of project.qpproj: a thin view on its JSON, which keeps whatever else stands there."""

    raw: dict[str, Any]

    @property
    def entry_id(self) -> int:
        return int(self.raw["entryID"])

    @property
    def name(self) -> str:
        return str(self.raw.get("imageName", ""))

    @property
    def builder(self) -> Builder:
        value = self.raw.get("serverBuilder")
        return value if isinstance(value, Mapping) else {}

    @property
    def uri(self) -> str:
        return builder_uri(self.builder)

    @property
    def size(self) -> tuple[int, int] | None:
        return builder_size(self.builder)

    @property
    def description(self) -> str | None:
        value = self.raw.get("description")
        return None if value is None else str(value)

    @property
    def metadata(self) -> dict[str, str]:
        return {str(key): str(value) for key, value in (self.raw.get("metadata") or {}).items()}

    @property
    def tags(self) -> tuple[str, ...] | None:
        """None where the project knows no tags (before QuPath 0.6)."""
        value = self.raw.get("tags")
        return tuple(str(tag) for tag in value) if isinstance(value, list) else None

    def update_metadata(self, metadata: Mapping[str, str]) -> None:
        """Set keys, keep the others; QuPath 0.4 and 0.5 need the object to be there even when it is empty."""
        self.raw["metadata"] = {**self.metadata, **{str(key): str(value) for key, value in metadata.items()}}


@dataclass(slots=True)
class ProjectFile:
    """A project file in memory.

    Attributes
    ----------
    path
        project.qpproj.
    raw
        Its JSON, in the file's order.
    entries
        Views on `raw["images"]`, in the project's order.
    """

    path: Path
    raw: dict[str, Any]
    entries: list[Entry] = field(default_factory=list)
    _written: bytes | None = None
    _on_disk: str | None = None

    @property
    def last_id(self) -> int:
        """The highest entry id that was ever given: a new image never gets an id that was used."""
        stated = self.raw.get("lastID")
        return max([int(stated) if isinstance(stated, int | float) else 0, *(e.entry_id for e in self.entries)])

    @property
    def version(self) -> str | None:
        value = self.raw.get("version")
        return None if value is None else str(value)

    def entry(self, entry_id: int) -> Entry:
        for entry in self.entries:
            if entry.entry_id == entry_id:
                return entry
        raise ProjectError(f"{self.path} has no image with the id {entry_id}")

    def add(self, name: str, builder: Builder, metadata: Mapping[str, str], *, above: int = 0) -> Entry:
        """Append an image with an id that was never used; refuses a name that is there already.

        Parameters
        ----------
        above
            The id is larger than this too (data folders may remain of images that the file no longer lists).
        """
        if not name:
            raise ProjectError(f"{self.path}: an image needs a name")
        if any(entry.name == name for entry in self.entries):
            raise ProjectError(
                f"{self.path} has an image called {name} already; QuPath's scripts find images by name, "
                "so give this one another"
            )
        check_uri(builder_uri(builder), name)
        entry_id = max(self.last_id, above) + 1
        raw = {
            "serverBuilder": copy.deepcopy(dict(builder)),
            "entryID": entry_id,
            # Shown instead of the name when names are masked, so it must not be derived from it.
            "randomizedName": str(uuid.uuid4()),
            "imageName": name,
            "metadata": {str(key): str(value) for key, value in metadata.items()},
            "tags": [],
        }
        entry = Entry(raw)
        self.entries.append(entry)
        self.raw["images"].append(raw)
        self.raw["lastID"] = entry_id
        return entry

    def save(self) -> bool:
        """Write the file if anything in it changed since it was read or written; tells whether it was.

        The old file stays as `.backup`, as QuPath leaves it. `lastID` is never lowered.

        Raises
        ------
        ProjectChanged
            Somebody else (an open QuPath) wrote the file since; it is left as it is.
        """
        if self._written is not None and gson(self.raw) == self._written:
            return False
        on_disk = sha256_file(self.path) if self.path.exists() else None
        if on_disk != self._on_disk:
            raise ProjectChanged(
                f"{self.path} was changed since it was read; close the project in QuPath and run again"
            )
        self.raw["lastID"] = self.last_id
        self.raw["modifyTimestamp"] = now_ms()
        data = gson(self.raw)
        if on_disk is not None:
            write_bytes(self.path.with_name(self.path.name + BACKUP_SUFFIX), self.path.read_bytes())
        write_bytes(self.path, data)
        self._written, self._on_disk = data, sha256_bytes(data)
        return True


def project_path(path: Path) -> Path:
    """The project file for a folder or for the file itself.

    Raises `ProjectError` when there is none, or several, in the folder.
    """
    if not path.is_dir():
        if path.suffix != ".qpproj" or not path.is_file():
            raise ProjectError(f"{path} is not a QuPath project: give a .qpproj file or the folder that holds it")
        return path
    if (path / FILE_NAME).is_file():
        return path / FILE_NAME
    found = sorted(path.glob("*.qpproj"))
    if len(found) != 1:
        what = "no" if not found else "more than one"
        raise ProjectError(f"{path} holds {what} .qpproj file; give the file itself")
    return found[0]


def new_project_file(path: Path) -> ProjectFile:
    """An empty project at `path` (project.qpproj), in memory only."""
    created = now_ms()
    raw = {
        "version": VERSION,
        "createTimestamp": created,
        "modifyTimestamp": created,
        # Java's form of a file URI.
        "uri": path.absolute().as_uri().replace("file:///", "file:/", 1),
        "lastID": 0,
        "images": [],
    }
    return ProjectFile(path=path, raw=raw)


def read_project_file(path: Path) -> ProjectFile:
    """Read and check one project.qpproj; writes nothing.

    Raises
    ------
    ProjectError
        The file cannot be read, or QuPath would refuse it; says why.
    """
    data = _read_bytes(path)
    raw = parse_object(data, path)
    _check_head(raw, path)
    images = raw.setdefault("images", [])
    if not isinstance(images, list):
        raise ProjectError(f"{path}: `images` is not a list")
    entries = [_entry(item, index, path) for index, item in enumerate(images)]
    seen: set[int] = set()
    for entry in entries:
        if entry.entry_id in seen:
            raise ProjectError(f"{path}: two images have the id {entry.entry_id} and would share their objects")
        seen.add(entry.entry_id)
    return ProjectFile(path=path, raw=raw, entries=entries, _written=gson(raw), _on_disk=sha256_bytes(data))


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProjectError(f"cannot read {path}: {error.strerror or error}") from error


def parse_object(data: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in `data`; `ProjectError` that names `path` when there is none."""
    try:
        value = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise ProjectError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProjectError(f"{path} does not hold a JSON object")
    return value


def _check_head(raw: Mapping[str, Any], path: Path) -> None:
    version = raw.get("version")
    if version is not None and not isinstance(version, str | int | float):
        raise ProjectError(f"{path}: `version` is not a text; QuPath does not open it")
    if version in _REFUSED_VERSIONS:
        raise ProjectError(f"{path} was written by QuPath {version}, which no later QuPath opens")
    if version is None and "lastID" not in raw:
        raise ProjectError(f"{path} states neither `version` nor `lastID`; QuPath does not open it")
    for key in ("createTimestamp", "modifyTimestamp"):
        if not isinstance(raw.get(key), int | float):
            raise ProjectError(f"{path}: `{key}` is missing; QuPath does not open it")


def _entry(item: Any, index: int, path: Path) -> Entry:
    where = f"{path}, image {index + 1}"
    if not isinstance(item, dict):
        raise ProjectError(f"{where}: not a JSON object")
    identity = item.get("entryID")
    if not re.fullmatch(r"[1-9][0-9]*", str(identity)):
        raise ProjectError(f"{where}: its `entryID` is {identity!r}, not a number from 1 on")
    for key in ("metadata", "serverBuilder"):
        if not isinstance(item.get(key) or {}, dict):
            raise ProjectError(f"{where}: `{key}` is not a JSON object")
    builder = item.get("serverBuilder")
    if isinstance(builder, dict):
        _check_builder(builder, where)
    return Entry(item)


def _check_builder(builder: Builder, where: str) -> None:
    step: Any = builder
    while isinstance(step, Mapping):
        if not isinstance(step.get("builderType"), str):
            raise ProjectError(f"{where}: a server builder without `builderType`; QuPath does not open the project")
        _check_metadata(step.get("metadata"), where)
        step = step.get("builder")
    core = innermost(builder)
    if core.get("builderType") == "uri" or "uri" in core:
        check_uri(core.get("uri"), where)
        provider, args = core.get("providerClassName"), core.get("args")
        texts = isinstance(args or [], list) and all(isinstance(arg, str | int | float) for arg in args or [])
        if not texts or not isinstance(provider, str | None):
            raise ProjectError(f"{where}: `args` or `providerClassName` is no text; QuPath does not open the project")


def _check_metadata(metadata: Any, where: str) -> None:
    """Refuse a pixel size that is none: QuPath would not open the project, and everything in µm depends on it."""
    calibration = metadata.get("pixelCalibration") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping | None) or not isinstance(calibration, Mapping | None):
        raise ProjectError(f"{where}: the metadata of its server builder are no JSON object; QuPath does not open it")
    for key in ("pixelWidth", "pixelHeight"):
        length = (calibration or {}).get(key)
        value = length.get("value", 1.0) if isinstance(length, Mapping) else length
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ProjectError(f"{where}: its `{key}` is no number; QuPath does not open the project")


def read_classes(project: Path) -> tuple[PathClass, ...]:
    """The classes of the project in folder `project`, with colours; none when there is no list.

    A class named twice takes the last colour, as in QuPath.

    Raises
    ------
    ProjectError
        The list cannot be parsed: QuPath does not open such a project.
    """
    path = classes_path(project)
    if not path.is_file():
        return ()
    listed = parse_object(_read_bytes(path), path).get("pathClasses")
    classes: dict[str, PathClass] = {}
    for item in listed if isinstance(listed, list) else []:
        if not isinstance(item, dict):
            raise ProjectError(f"{path}: a class is not a JSON object; QuPath does not open the project")
        name = item.get("name")
        if isinstance(name, str) and name and name != _NULL_CLASS:
            name = _read_by_qupath(name, path)
            color = item.get("color")
            classes[name] = PathClass(name, rgb_of(color) if isinstance(color, int) else None)
    return tuple(classes.values())


def check_classes(classes: Iterable[PathClass]) -> None:
    """Refuse a class that QuPath would read from the list under another name than the objects have: `CK5:6`."""
    for item in classes:
        read = _read_by_qupath(item.name, Path("the list of classes"))
        if read != item.name:
            raise ProjectError(f"QuPath takes the class {item.name!r} for {read!r}; name it so, or without the colon")


def _read_by_qupath(name: str, where: Path) -> str:
    """The full name of a class that the list calls so: a colon parts levels, with a space behind it or without."""
    levels = [level.strip() for level in name.rstrip(":").split(":")]
    if not all(levels):
        raise ProjectError(f"{where}: the class {name!r} has a level without a name; QuPath does not open the project")
    return ": ".join(levels)


def write_classes(project: Path, classes: Iterable[PathClass]) -> bool:
    """Write the class list if it differs from what is there; tells whether it did. An empty list removes the file."""
    classes = tuple(classes)
    check_classes(classes)
    path = classes_path(project)
    listed = [{"name": c.name, "color": None if c.color is None else argb_of(c.color)} for c in classes]
    for item in listed:
        if item["color"] is None:
            del item["color"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not listed:
        existed = path.exists()
        path.unlink(missing_ok=True)
        return existed
    data = gson({"pathClasses": listed})
    if path.is_file() and path.read_bytes() == data:
        return False
    write_bytes(path, data)
    return True


def classes_path(project: Path) -> Path:
    """Where the class list of the project in folder `project` lies."""
    return project / "classifiers" / "classes.json"


def rgb_of(argb: int) -> RGB:
    """Red, green and blue of Java's signed 32-bit ARGB."""
    return argb >> 16 & 0xFF, argb >> 8 & 0xFF, argb & 0xFF


def argb_of(color: RGB) -> int:
    """Java's signed 32-bit ARGB of an opaque colour."""
    red, green, blue = color
    return (red << 16 | green << 8 | blue) - (1 << 24)
