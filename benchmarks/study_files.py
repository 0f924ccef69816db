"""Reading an annotation study: two rounds of text exports of EXACT with their ground truth and planted errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from wsi_pipeline.errors import ConfigError

ROUNDS = {"manual": "FirstRound", "assisted": "SecondRound"}
PLANTED = ("changed", "deleted", "nms", "fake")
Box = tuple[float, float, float, float]

_LOG = re.compile(r"\[(.*)\|([^|]*)\|([^|]*)\|([12])\]")
_CORNER = re.compile(r'"(x1|y1|x2|y2)"\s*:\s*"?(-?[\d.]+)"?')


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log: an image was opened or closed; `t` in seconds since 1970, naive server time as if UTC."""

    image: str
    user: str
    t: float
    opens: bool


@dataclass(frozen=True, slots=True)
class Item:
    """One annotation as exported; `box` is none where it states no four corners."""

    image: str
    label: str
    box: Box | None
    creator: str
    created: float
    modifier: str
    modified: float
    uuid: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Export:
    """One text export: its log in order of time, its objects by uuid, and lines that are neither."""

    user: str
    log: tuple[Line, ...]
    items: dict[str, Item]
    unread: tuple[int, ...]

    def own_actions(self) -> Iterator[tuple[float, Item]]:
        """Creations and last changes by the expert, of objects deleted later too; never an importer's."""
        for item in self.items.values():
            if is_user(item.creator, self.user):
                yield item.created, item
            if is_user(item.modifier, self.user):
                yield item.modified, item

    def opened(self) -> set[str]:
        """Images with a start or an action of the expert."""
        started = {line.image for line in self.log if line.opens and is_user(line.user, self.user)}
        return started | {item.image for _, item in self.own_actions()}


@dataclass(frozen=True, slots=True)
class Study:
    """`exports[arm][expert]`, live truth and untouched suggestions by uuid, planted errors by kind."""

    exports: dict[str, dict[str, Export]]
    truth: dict[str, Item]
    suggestions: dict[str, Item]
    planted: dict[str, list[Item]] = field(default_factory=dict)

    def images(self) -> list[str]:
        """Every image that any export or the truth names."""
        found = {item.image for item in self.truth.values()} | {item.image for item in self.suggestions.values()}
        for experts in self.exports.values():
            for export in experts.values():
                found |= {item.image for item in export.items.values()} | {line.image for line in export.log}
        return sorted(found)


def is_user(name: str, user: str) -> bool:
    return name.strip().casefold() == user.casefold()


def read_study(folder: Path) -> Study:
    """Read a study.

    Raises
    ------
    ConfigError
        If a part of the layout is missing.
    """
    exports: dict[str, dict[str, Export]] = {}
    for arm, name in ROUNDS.items():
        files = sorted((folder / name / "participants").glob("participant_*.txt"))
        if not files:
            raise ConfigError(f"{folder}: {name}/participants holds no participant_*.txt; give a study's folder")
        exports[arm] = {path.stem.removeprefix("participant_"): read_export(path) for path in files}
    truth_folder = folder / ROUNDS["assisted"] / "truth"
    truth_files = [part / "ground_truth.txt" for part in (truth_folder, folder / ROUNDS["manual"] / "truth")]
    truth_file = next((path for path in truth_files if path.is_file()), None)
    if truth_file is None:
        raise ConfigError(f"{folder}: SecondRound/truth holds no ground_truth.txt; give a study with its truth")
    untouched = sorted(truth_folder.glob("unchanged*.txt"))
    if not untouched:
        raise ConfigError(f"{folder}: SecondRound/truth holds no unchanged*.txt; give a study with its suggestions")
    truth = {uuid: item for uuid, item in read_export(truth_file).items.items() if not item.deleted}
    suggestions: dict[str, Item] = {}
    for path in untouched:
        suggestions |= {uuid: item for uuid, item in read_export(path).items.items() if not item.deleted}
    planted = {
        path.stem: list(read_export(path).items.values())
        for path in sorted(truth_folder.glob("*.txt"))
        if path.stem.startswith(PLANTED)
    }
    return Study(exports, truth, suggestions, planted)


def read_export(path: Path) -> Export:
    """Read one export; an object that is there twice counts as it was changed last."""
    log: list[Line] = []
    items: dict[str, Item] = {}
    unread = []
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line:
            continue
        try:
            entry = _log_line(line) or _item(line)
        except ValueError:
            unread.append(number)
            continue
        if isinstance(entry, Line):
            log.append(entry)
        elif entry.uuid not in items or items[entry.uuid].modified <= entry.modified:
            items[entry.uuid] = entry
    # Newest first within an image: turned round, lines of one moment keep the order in which they happened.
    log.reverse()
    log.sort(key=lambda entry: entry.t)
    return Export(path.stem, tuple(log), items, tuple(unread))


def _log_line(line: str) -> Line | None:
    found = _LOG.fullmatch(line)
    return None if found is None else Line(found[1], found[2], _seconds(found[3]), found[4] == "1")


def _item(line: str) -> Item:
    image, label, vector, creator, created, modifier, modified, uuid, deleted, *_ = line.split("|")
    corners = {name: float(value) for name, value in _CORNER.findall(vector)}
    box = (corners["x1"], corners["y1"], corners["x2"], corners["y2"]) if len(corners) == 4 else None
    return Item(
        image, label, box, creator, _seconds(created), modifier, _seconds(modified), uuid,
        deleted.strip().casefold() in {"true", "1"},
    )  # fmt: skip


def _seconds(text: str) -> float:
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
