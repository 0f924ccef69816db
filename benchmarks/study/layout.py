"""The files of a study: who took part, what they logged, which boxes they left, and what was planted.

    DIR/FirstRound/participants/participant_N.txt     from scratch: the arm `manual`
    DIR/SecondRound/participants/participant_N.txt    with suggestions: the arm `assisted`
    DIR/SecondRound/truth/                            ground_truth, unchanged*, and what was planted

The files are text exports of EXACT; `wsi_pipeline.measures.time_sources.exact` says how a line is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from wsi_pipeline.errors import WsiError
from wsi_pipeline.measures.time_sources.exact import Item, LogLine, in_order, read_line

ARMS = {"manual": "FirstRound", "assisted": "SecondRound"}
PLANTED = ("changed", "deleted*", "nms", "fake*")

_EPOCH = datetime(1970, 1, 1)


class StudyError(WsiError, ValueError):
    """A file of the study is missing or is not of this layout."""


@dataclass(frozen=True, slots=True)
class Export:
    """One file: its log lines and its objects, in the order of the file, and lines that are neither, each with why."""

    path: Path
    log: tuple[LogLine, ...]
    items: tuple[Item, ...]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """What one expert did in one arm. `user` is the expert's name in the export; `guessed` if not the file's number."""

    arm: str
    expert: str
    user: str
    guessed: bool
    export: Export

    @property
    def own_log(self) -> list[LogLine]:
        """The expert's own log lines by time; lines of one microsecond as logged, since files are newest first."""
        return in_order(line for line in self.export.log if line.user.casefold() == self.user.casefold())

    @property
    def own_actions(self) -> list[tuple[int, str]]:
        """Time and image of each creation and last change by the expert, of objects deleted later too."""
        user = self.user.casefold()
        made = [(i.created, i.image) for i in self.export.items if i.created_by.casefold() == user]
        return sorted(made + [(i.changed, i.image) for i in self.export.items if i.changed_by.casefold() == user])

    @property
    def opened(self) -> set[str]:
        """Images with a start or an action of the expert."""
        return {line.image for line in self.own_log if line.start} | {image for _, image in self.own_actions}

    @property
    def live(self) -> list[Item]:
        return live(self.export.items)


@dataclass(frozen=True, slots=True)
class Study:
    """A whole study. `work[arm][expert]`; `planted[kind]` lists what was planted, kinds named by their file.

    `unread` names lines of the truth's files that could not be read.
    """

    folder: Path
    work: dict[str, dict[str, Work]]
    truth: tuple[Item, ...]
    suggestions: tuple[Item, ...]
    planted: dict[str, tuple[Item, ...]]
    unread: tuple[str, ...] = ()

    @property
    def experts(self) -> list[str]:
        return sorted({e for arm in self.work.values() for e in arm}, key=by_number)

    @property
    def images(self) -> list[str]:
        """Every image that truth, suggestions or a participant's export names."""
        exports = [w.export for arm in self.work.values() for w in arm.values()]
        items = [*self.truth, *self.suggestions, *(item for e in exports for item in e.items)]
        return sorted({i.image for i in items} | {line.image for e in exports for line in e.log})


def live(items: Iterable[Item]) -> list[Item]:
    """Objects that are not deleted and have a box."""
    return [item for item in items if not item.deleted and item.box is not None]


def by_number(text: str) -> tuple[int, str]:
    """Sort key: numbers by value, other names behind them."""
    return (int(text), text) if text.isdigit() else (1 << 31, text)


def read_study(folder: Path) -> Study:
    """Read a study; raises `StudyError` that names the file that is missing or cannot be read."""
    if not folder.is_dir():
        raise StudyError(f"{folder}: there is no such folder; give the folder that holds FirstRound and SecondRound")
    work = {arm: _participants(folder, arm) for arm in ARMS}
    truths = [folder / ARMS[arm] / "truth" for arm in ("assisted", "manual")]
    truth = [read_export(path) for path in _first(truths, "ground_truth.txt")]
    suggestions = [read_export(path) for path in _first(truths, "unchanged*.txt")]
    planted = {}
    for pattern in PLANTED:
        for path in next((found for t in truths if (found := sorted(t.glob(f"{pattern}.txt")))), []):
            planted[path.stem] = read_export(path)
    return Study(
        folder,
        work,
        truth[0].items,
        tuple({item.uuid: item for export in suggestions for item in export.items}.values()),
        {kind: export.items for kind, export in planted.items()},
        tuple(text for export in (*truth, *suggestions, *planted.values()) for text in export.unread),
    )


def _participants(folder: Path, arm: str) -> dict[str, Work]:
    where = folder / ARMS[arm] / "participants"
    paths = sorted(path for path in where.glob("*.txt") if path.stem.casefold().startswith("participant_"))
    if not paths:
        raise StudyError(f"{where / 'participant_*.txt'}: there is no such file; the arm `{arm}` is read from there")
    found = {}
    for path in paths:
        expert = path.stem.partition("_")[2]
        export = read_export(path)
        user, guessed = _user_of(export, expert)
        found[expert] = Work(arm, expert, user, guessed, export)
    return found


def _user_of(export: Export, expert: str) -> tuple[str, bool]:
    """The expert's user name, and whether it had to be guessed from the log."""
    expected = f"Participant_{expert}"
    users = {line.user for line in export.log}
    users |= {user for item in export.items for user in (item.created_by, item.changed_by)}
    if any(user.casefold() == expected.casefold() for user in users):
        return expected, False
    most = Counter(line.user for line in export.log).most_common(1)
    return (most[0][0], True) if most else (expected, False)


def _first(folders: list[Path], pattern: str) -> list[Path]:
    for folder in folders:
        if found := sorted(folder.glob(pattern)):
            return found
    raise StudyError(f"{folders[0] / pattern}: there is no such file; answers cannot be judged without it")


def read_export(path: Path) -> Export:
    """Read one file of the study; raises `StudyError` if it is no text or none of its lines can be read."""
    unread: list[str] = []
    log: list[LogLine] = []
    items: list[Item] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read ({error}); it has to be a text file in UTF-8") from error
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        try:
            entry = read_line(text, number)
        except ValueError as error:
            unread.append(f"{path.name}, line {number}: {error}")
            continue
        if isinstance(entry, LogLine):
            log.append(entry)
        else:
            items.append(entry)
    if unread and not log and not items:
        raise StudyError(f"{path}: is no file of a study ({unread[0]}); export it anew")
    return Export(path, tuple(log), tuple(items), tuple(unread))


def time_text(t: int) -> str:
    """The inverse, as in the logs."""
    return (_EPOCH + timedelta(microseconds=t)).isoformat(sep=" ", timespec="microseconds")
