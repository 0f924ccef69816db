"""Slides that moved: their addresses in project.qpproj, server.json and the head of each data.qpdata.

Only the texts of the addresses change; every other byte stays, the objects with them.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from wsi_pipeline.errors import ProjectChanged, ProjectError, QuPathFormatError
from wsi_pipeline.files import sha256_bytes, write_bytes
from wsi_pipeline.qupath.builders import builder_uri, check_uri
from wsi_pipeline.qupath.data_files import DataFiles, FileChange, Witness
from wsi_pipeline.qupath.history import keep_now
from wsi_pipeline.qupath.lease import hold, refuse_while_open
from wsi_pipeline.qupath.native import mutf8
from wsi_pipeline.qupath.native.qpdata import read_qpdata
from wsi_pipeline.qupath.project_file import Entry, project_path, read_project_file

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')
_SAFE = "/:@!$&'()*+,;=~"
_HEAD = b"\xac\xed\x00\x05"


@dataclass(frozen=True, slots=True)
class Address:
    """A URI in comparable pieces; `parts` are decoded segments, `folds` says that case does not matter."""

    scheme: str
    host: str
    parts: tuple[str, ...]
    folds: bool

    @classmethod
    def of(cls, uri: str) -> Address:
        split = urlsplit(uri)
        host, raw = split.netloc.lower(), split.path
        if split.scheme.lower() == "file":
            host = "" if host == "localhost" else host
            if not host and raw.startswith("//"):
                host, _, raw = raw.lstrip("/").partition("/")
                host = host.lower()
        parts = tuple(unquote(part) for part in raw.split("/") if part)
        drive = bool(parts) and re.fullmatch("[A-Za-z]:", parts[0]) is not None
        return cls(split.scheme.lower(), host, parts, split.scheme.lower() == "file" and (drive or bool(host)))

    def holds(self, other: Address) -> bool:
        """Whether `other` is this address or lies below it."""
        if (self.scheme, self.host) != (other.scheme, other.host) or len(other.parts) < len(self.parts):
            return False
        mine, theirs = self.parts, other.parts[: len(self.parts)]
        if self.folds:
            return [p.casefold() for p in mine] == [p.casefold() for p in theirs]
        return mine == theirs


@dataclass(frozen=True, slots=True)
class Move:
    """One image whose address changes."""

    image: str
    old: str
    new: str


def place_uri(text: str) -> str:
    """The `file:` URI of a Windows, UNC or POSIX path, or the URI itself; `ProjectError` for a relative path."""
    if re.match(r"[A-Za-z]:[\\/]", text) or re.fullmatch("[A-Za-z]:", text):
        return "file:///" + quote(text.replace("\\", "/"), safe=_SAFE)
    if text.startswith("\\\\"):
        return "file:" + quote(text.replace("\\", "/"), safe=_SAFE)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        check_uri(text, "--map")
        return text
    if text.startswith("/"):
        return "file:///" + quote(text.lstrip("/"), safe=_SAFE)
    raise ProjectError(f"--map: {text!r} is no absolute path and no URI; give both sides in full, as OLD=NEW")


def mapper(old: str, new: str) -> Callable[[str], str]:
    """A function from an old address to the new one; addresses that are not below `old` come back as they are."""
    source, target = Address.of(place_uri(old)), Address.of(place_uri(new))
    stem = place_uri(new).rstrip("/")
    # Mapped a second time, /a -> /a/b must not become /a/b/b.
    nested = source.holds(target) and source != target

    def moved(uri: str) -> str:
        here = Address.of(uri)
        if not source.holds(here) or (nested and target.holds(here)):
            return uri
        count = len(here.parts) - len(source.parts)
        path, mark, query = uri.partition("?")
        rest = [part for part in path.split("/") if part][-count:] if count else []
        return "/".join([stem, *rest]) + mark + query

    return moved


def relocate(path: Path, old: str, new: str, *, dry_run: bool = False, witness: Witness | None = None) -> list[Move]:
    """Rewrite the addresses of all slides below `old`; everything is made and checked before the first write.

    The history gets a copy of each data.qpdata first, and project.qpproj is written last: a call that was stopped is
    taken up by the same call. `witness` is told of each image whose address changes.

    Raises
    ------
    ProjectError
        No slide lies below `old`, a file cannot be rewritten, or QuPath has the project open.
    """
    target = project_path(path)
    file, files, moved = read_project_file(target), DataFiles(target.parent), mapper(old, new)
    before = target.read_bytes()
    moves, seen = [], set()
    changes: dict[int, FileChange] = {}

    def note(entry: Entry) -> Callable[[str], str]:
        def one(uri: str) -> str:
            changed = moved(uri)
            if changed != uri:
                check_uri(changed, entry.name)
                changes.setdefault(entry.entry_id, FileChange(entry.entry_id, None, None))
                if (entry.name, uri) not in seen:
                    seen.add((entry.name, uri))
                    moves.append(Move(entry.name, uri, changed))
            return changed

        return one

    for entry in file.entries:
        rewrite_text(json.dumps(entry.builder), note(entry), ())
    text = rewrite_text(_utf8(before, target), moved, ("images", "serverBuilder"))
    servers: list[tuple[Path, bytes]] = []
    datas: list[tuple[int, str, bytes]] = []
    for entry in file.entries:
        server = files.folder(entry.entry_id) / "server.json"
        if server.exists():
            raw = server.read_bytes()
            changed = rewrite_text(_utf8(raw, server), note(entry), ()).encode()
            if changed != raw:
                servers.append((server, changed))
        data = files.read(entry.entry_id, entry.name)
        if data is not None:
            changed = rewrite_data(data, note(entry), f"{entry.name}: {files.qpdata(entry.entry_id)}")
            if changed != data:
                datas.append((entry.entry_id, entry.name, changed))
            if entry.entry_id in changes:
                changes[entry.entry_id] = FileChange(entry.entry_id, sha256_bytes(data), sha256_bytes(changed))
    if not moves:
        addresses = [builder_uri(entry.builder) for entry in file.entries]
        where = f"the first one is {addresses[0]}" if addresses else "it holds no image"
        raise ProjectError(f"{target}: no slide lies below {old}; {where}")
    if dry_run:
        return moves
    refuse_while_open(target.parent)
    with hold(target.parent):
        if witness is not None:
            witness(list(changes.values()))
        for entry_id, image, changed in datas:
            # Read above and unchanged since: what is kept is what is replaced.
            files.check_unchanged(entry_id, image)
            keep_now(files, entry_id, image)
            files.write(entry_id, image, changed, ours=files.is_ours(entry_id))
        files.flush()
        for server, changed in servers:
            write_bytes(server, changed)
        if sha256_bytes(target.read_bytes()) != sha256_bytes(before):
            raise ProjectChanged(f"{target} was changed since it was read; run again")
        if text.encode() != before:
            write_bytes(target.with_name(target.name + ".before-relocate"), before)
            write_bytes(target, text.encode())
    return moves


def rewrite_data(data: bytes, moved: Callable[[str], str], where: str) -> bytes:
    """A data.qpdata with other addresses in its head; every byte behind it is the same."""
    start, end, text = _head(data, where)
    changed = rewrite_text(text, moved, ("server",))
    if changed == text:
        return data
    raw = mutf8.encode(changed)
    string = b"\x74" + struct.pack(">H", len(raw)) if len(raw) < 1 << 16 else b"\x7c" + struct.pack(">Q", len(raw))
    result = data[:start] + string + raw + data[end:]
    try:
        read_qpdata(result)
    except QuPathFormatError as error:
        raise ProjectError(f"{where}: cannot be rewritten: {error}; restore a copy of it first") from error
    return result


def rewrite_text(text: str, moved: Callable[[str], str], below: tuple[str, ...]) -> str:
    """JSON with other addresses: texts of the key `uri` below the keys `below`, never inside `metadata`."""
    pieces, at = [], 0
    for start, end, value in _uris(text, below):
        changed = moved(value)
        if changed != value:
            pieces += [text[at:start], json.dumps(changed, ensure_ascii=False)]
            at = end
    return "".join([*pieces, text[at:]])


def _uris(text: str, below: tuple[str, ...]) -> Iterator[tuple[int, int, str]]:
    path: list[str | None] = []  # the key at which each open object stands; None in an array
    key: str | None = None
    is_value = False
    kinds: list[str] = []
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word in "{[":
            path.append(key)
            kinds.append(word)
            key, is_value = None, word == "["
        elif word in "}]":
            if not kinds:
                return
            kinds.pop()
            key = path.pop()
        elif word == ":":
            is_value = True
        elif word == ",":
            is_value = bool(kinds) and kinds[-1] == "["
        elif not is_value:
            key = json.loads(word)
        else:
            keys = tuple(k for k in path if k is not None)
            if key == "uri" and keys[: len(below)] == below and "metadata" not in keys and kinds[-1] == "{":
                yield token.start(), token.end(), json.loads(word)


def _head(data: bytes, where: str) -> tuple[int, int, str]:
    """Where the string of the head starts (with its tag) and ends, and what it says."""
    try:
        if data[:4] != _HEAD or data[4] != 0x77:
            raise ValueError("it does not begin as QuPath's files do")
        start = 6 + data[5]
        tag = data[start]
        if tag not in (0x74, 0x7C):
            raise ValueError("its head is not a text")
        size = int.from_bytes(data[start + 1 : start + (3 if tag == 0x74 else 9)], "big")
        first = start + (3 if tag == 0x74 else 9)
        if first + size > len(data):
            raise ValueError("it ends inside its head")
        return start, first + size, mutf8.decode(data[first : first + size])
    except (ValueError, IndexError) as error:
        raise ProjectError(f"{where}: cannot be rewritten: {error}; restore a copy of it first") from error


def _utf8(raw: bytes, path: Path) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path} is not UTF-8: {error}; nothing was changed") from error
