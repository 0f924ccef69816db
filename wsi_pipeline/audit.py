"""audit.jsonl: what was done to annotations, append-only, each line bound to the one before it by its hash.

Beside it lies `audit.head.json`, the last line's number and hash, written after the line is on disk: it tells when
lines at the end were cut off. The chain shows changes by accident and by hand; somebody who rewrites all of it and the
head too is only found with a copy of the head kept elsewhere.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json, sha256_bytes, write_bytes, write_json

SCHEMA = 1
START = "0" * 64
NAME = "audit.jsonl"
_KEYS = {"schema", "seq", "time", "actor", "action", "image", "object", "before", "after", "facts", "prev", "hash"}


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that happened: who did what to which object; `before` and `after` are hashes of its content."""

    actor: str
    action: str
    image: str
    object: str | None = None
    before: str | None = None
    after: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying found; `problem` names the first broken line and how it is broken, None when all is well.

    `torn` says that the problem is only a last line that a stopped writer left half written: the next one mends it.
    """

    lines: int
    head: str
    problem: str | None
    torn: bool = False


def append(root: Path, entries: Iterable[AuditEntry]) -> int:
    """Append lines to `<root>/audit.jsonl` and wait until they are on disk; returns how many.

    A last line that a crash left half written is moved to `audit.jsonl.torn` first.

    Raises
    ------
    StoreError
        The log is damaged: nothing is appended to a chain that is broken.
    """
    wanted = list(entries)
    if not wanted:
        return 0
    path = root / NAME
    with _locked(path) as file:
        _set_torn_aside(path, file.fileno())
        verdict = require_sound(root)
        seq, head = verdict.lines, verdict.head
        lines = []
        for entry in wanted:
            seq += 1
            line = _line(seq, head, entry)
            head = line["hash"]
            lines.append(orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n")
        os.lseek(file.fileno(), 0, os.SEEK_END)
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())
        write_json(_head_path(root), {"schema": SCHEMA, "seq": seq, "hash": head})
    return len(wanted)


def rewrite(root: Path, change: Callable[[dict[str, Any]], dict[str, Any]], entry: AuditEntry) -> int:
    """Change what lines say, chain them anew, and append `entry` with the old head as its `before`.

    For what has to be forgotten by law, and for nothing else: the last line tells that it was done, and a copy of the
    old head kept elsewhere fits its `before`. Stopped half-way, the log is the old one or the new one.

    Parameters
    ----------
    change
        A line without its number, links and hash to what it shall be; the same keys.

    Returns
    -------
    How many lines were changed.

    Raises
    ------
    StoreError
        The log is damaged: it stays as it is.
    """
    path = root / NAME
    with _locked(path) as file:
        _set_torn_aside(path, file.fileno())
        old = require_sound(root)
        lines, head, changed = [], START, 0
        for number, line in enumerate(read(root), start=1):
            body = {key: value for key, value in line.items() if key not in {"seq", "prev", "hash"}}
            now = change(dict(body))
            changed += now != body
            body = {**now, "seq": number, "prev": head}
            head = _hash(body)
            lines.append({**body, "hash": head})
        lines.append(_line(len(lines) + 1, head, replace(entry, before=old.head)))
        new = {"schema": SCHEMA, "seq": len(lines), "hash": lines[-1]["hash"]}
        write_json(_head_path(root), {"schema": SCHEMA, "seq": old.lines, "hash": old.head, "or": new})
        write_bytes(path, b"".join(orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n" for line in lines))
        write_json(_head_path(root), new)
    return changed


def require_sound(root: Path) -> Verdict:
    """Raise `StoreError` for a log to which nothing can be appended; to be asked before the work that it tells of."""
    verdict = verify(root)
    if verdict.problem is not None and not verdict.torn:
        raise StoreError(
            f"{root / NAME}: {verdict.problem}; restore it from a backup, or move it and {_head_path(root).name} away "
            "to begin anew"
        )
    return verdict


def read(root: Path) -> list[dict[str, Any]]:
    """All whole lines of the log, oldest first; none when there is no log. They are not verified."""
    path = root / NAME
    if not path.exists():
        return []
    try:
        return [orjson.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    except (OSError, orjson.JSONDecodeError) as error:
        raise StoreError(f"cannot read {path}: {error}; `wsi-pipeline audit verify` names the line") from error


def verify(root: Path) -> Verdict:
    """Follow the chain from its start; the first line that does not fit is named."""
    path = root / NAME
    data = path.read_bytes() if path.exists() else b""
    *lines, rest = data.split(b"\n")
    stated = _stated_head(root)
    prev, hashes = START, {0: START}
    for number, raw in enumerate(lines, start=1):
        problem = _problem(raw, number, prev)
        if problem is not None:
            return Verdict(number - 1, prev, f"line {number} {problem}")
        prev = orjson.loads(raw)["hash"]
        hashes[number] = prev
    if stated is None and lines:
        return Verdict(len(lines), prev, f"{_head_path(root).name} is missing, so that lost lines cannot be told")
    if not any(hashes.get(seq) == head for seq, head in stated or [(0, START)]):
        seq = (stated or [(0, START)])[0][0]
        if seq > len(lines):
            return Verdict(len(lines), prev, f"line {len(lines) + 1} to {seq} are missing: the end was cut off")
        return Verdict(len(lines), prev, f"line {seq} is not the one that was written: the log was made anew")
    if rest:
        text = f"line {len(lines) + 1} is torn: a writer was stopped; the next one mends it"
        return Verdict(len(lines), prev, text, torn=True)
    return Verdict(len(lines), prev, None)


def _line(seq: int, prev: str, entry: AuditEntry) -> dict[str, Any]:
    body = {
        "schema": SCHEMA,
        "seq": seq,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "actor": entry.actor,
        "action": entry.action,
        "image": entry.image,
        "object": entry.object,
        "before": entry.before,
        "after": entry.after,
        "facts": dict(entry.facts),
        "prev": prev,
    }
    return {**body, "hash": _hash(body)}


def _hash(body: Mapping[str, Any]) -> str:
    return sha256_bytes(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


def _problem(raw: bytes, number: int, prev: str) -> str | None:
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return "is no JSON: it was changed"
    if not isinstance(line, dict) or set(line) != _KEYS:
        return "has other fields than it was written with: it was changed"
    if line["schema"] != SCHEMA:
        return f"has the schema {line['schema']}, which this version does not know"
    body = {key: value for key, value in line.items() if key != "hash"}
    # The bytes too: other spaces or another order of the same values is a change.
    if _hash(body) != line["hash"] or orjson.dumps(line, option=orjson.OPT_SORT_KEYS) != raw:
        return "was changed: its hash does not fit what it says"
    if line["seq"] != number or line["prev"] != prev:
        return f"does not follow the line before it (its number is {line['seq']}): lines were removed or inserted"
    return None


@contextmanager
def _locked(path: Path) -> Iterator[Any]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Rewritten while we waited: what was opened is no longer the log.
                if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    continue
                yield file
                return
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def _set_torn_aside(path: Path, descriptor: int) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return
    with path.with_name(path.name + ".torn").open("ab") as aside:
        aside.write(data[whole:] + b"\n")
        aside.flush()
        os.fsync(aside.fileno())
    os.ftruncate(descriptor, whole)


def _head_path(root: Path) -> Path:
    return root / "audit.head.json"


def _stated_head(root: Path) -> list[tuple[int, str]] | None:
    """Number and hash of the last line; two of them while the log is being rewritten."""
    path = _head_path(root)
    if not path.exists():
        return None
    value = read_json(path)
    found = []
    while isinstance(value, dict):
        if not isinstance(value.get("seq"), int):
            break
        found.append((value["seq"], str(value.get("hash"))))
        value = value.get("or")
    if not found:
        raise StoreError(f"{path} does not say where the log ends; restore it from a backup")
    return found
