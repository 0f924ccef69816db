"""The key table of `privacy: strict`: random names for slides, patients, sites and scanners, outside of the output.

Whoever has the table knows who is behind a name; whoever has the output alone does not. The folder holds
`keys.json` (0600) and `slides/`, links with the random names to the slide files, so that neither the project nor
QuPath's window shows a file's own name.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json, write_json

SCHEMA_VERSION = 1
KINDS = ("slide", "patient", "site", "scanner")
_PSEUDONYM = re.compile(rf"(?:{'|'.join(KINDS)})-[0-9a-f]{{12}}")
PREFIX = "key:"
# A folder with what follows it: a name that ends in a suffix, else the rest of the word.
_PATH = re.compile(r"(?:file:)?(?<![\w.<])/(?:[\w.@ +-]*[\w.@+-]/)+(?P<name>[^;:'\"\n/]*?\.\w{2,7}\b|[^\s;:,'\"]*)")
_OURS = {".json", ".geojson", ".jsonl", ".parquet", ".zarr", ".qpproj", ".qpdata", ".html", ".log", ".groovy"}


def without_paths(text: str) -> str:
    """The text without absolute paths; the name at their end stays where it is a random one, or of a file of ours."""
    return _PATH.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    name = Path(match["name"])
    known = name.suffix in _OURS or _PSEUDONYM.fullmatch(name.stem)
    return f"…/{name}" if known else "…"


@dataclass(slots=True)
class KeyTable:
    """Random names by kind and real name. `save` writes what was added, readable by the owner alone."""

    folder: Path
    names: dict[str, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    changed: bool = False

    @classmethod
    def load(cls, folder: Path) -> KeyTable:
        """Read the table; an empty one where there is none. `StoreError` when it is damaged or newer."""
        path = folder / "keys.json"
        if not path.is_file():
            return cls(folder)
        value = read_json(path)
        if not isinstance(value, dict) or value.get("schema") != SCHEMA_VERSION:
            raise StoreError(f"{path} is no key table that this version can read; restore it from a backup")
        names: Mapping[str, Mapping[str, str]] = value["names"]
        return cls(folder, {kind: dict(names.get(kind, {})) for kind in KINDS})

    def name(self, kind: str, real: str) -> str:
        """The random name of a slide's URI, a patient, a site or a scanner; the same at each call."""
        known = self.names[kind]
        if real not in known:
            known[real] = f"{kind}-{secrets.token_hex(6)}"
            self.changed = True
        return known[real]

    def link(self, slide_id: str, path: Path) -> Path:
        """A link with the random name to a slide file, and to the folder of the same name beside it (MIRAX)."""
        link = self.folder / "slides" / f"{slide_id}{path.suffix}"
        for source, target in ((path, link), (path.with_suffix(""), link.with_suffix(""))):
            if not source.exists() or (source != path and not source.is_dir()):
                continue
            if target.is_symlink():
                if target.readlink() == source:
                    continue
                # The slide was moved, as `cohort.moved` says.
                target.unlink()
            self._make_folder(target.parent)
            target.symlink_to(source)
        return link

    def locate(self, slide_id: str, file_name: str) -> str:
        """Where a slide is: the link to it, or its address; `StoreError` when the table does not know it."""
        link = self.folder / "slides" / file_name
        if link.is_symlink():
            return str(link)
        for uri, name in self.names["slide"].items():
            if name == slide_id:
                return uri
        raise StoreError(f"{slide_id}: the key table in {self.folder} does not know it; restore the table")

    def save(self) -> None:
        """Write the table, if anything was added."""
        if not self.changed:
            return
        self._make_folder(self.folder)
        path = self.folder / "keys.json"
        # Nobody else may read it, not even for the moment between writing and renaming.
        before = os.umask(0o077)
        try:
            write_json(path, {"schema": SCHEMA_VERSION, "names": self.names})
        finally:
            os.umask(before)
        path.chmod(0o600)
        self.changed = False

    def forget(self, slide_id: str) -> bool:
        """Take a slide out of the table and remove its link; whether it was there."""
        real = next((uri for uri, name in self.names["slide"].items() if name == slide_id), None)
        if real is None:
            return False
        del self.names["slide"][real]
        for link in (self.folder / "slides").glob(f"{slide_id}*"):
            if link.is_symlink():
                link.unlink()
        self.changed = True
        return True

    @property
    def secrets(self) -> list[str]:
        """The real names behind the table: stems of files, patients, sites and scanners."""
        stems = [Path(uri.rsplit("/", 1)[-1]).stem for uri in self.names["slide"]]
        return [*stems, *(name for kind in KINDS[1:] for name in self.names[kind])]

    @staticmethod
    def is_pseudonym(name: str) -> bool:
        return _PSEUDONYM.fullmatch(name) is not None

    def _make_folder(self, folder: Path) -> None:
        try:
            # Folders in between would be made for everybody.
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder of the key table, {folder}: {error.strerror}") from error
