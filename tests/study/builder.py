"""Tiny studies in the layout of the real one, written line by line so that answers can be worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks.study.layout import ARMS, Study, read_study

START = datetime(2020, 1, 6, 8, 0, 0)
BOX = (10.0, 10.0, 30.0, 30.0)


def clock(seconds: float) -> str:
    """A time of the study, so many seconds after its start."""
    return (START + timedelta(seconds=seconds)).isoformat(sep=" ", timespec="microseconds")


def log(image: str, seconds: float, kind: int, user: str = "Participant_1") -> str:
    return f"[{image}|{user}|{clock(seconds)}|{kind}]"


def box(
    image: str,
    label: str,
    corners: tuple[float, float, float, float] = BOX,
    *,
    uuid: str,
    by: str = "importer",
    made: float = -1e6,
    changed_by: str | None = None,
    changed: float | None = None,
    deleted: bool = False,
) -> str:
    """An object's line; without `changed` it was last changed when it was made."""
    text = "{" + "".join(f'"{key}": "{value:g}",' for key, value in zip(("x1", "y1", "x2", "y2"), corners, strict=True))
    times = f"{by}|{clock(made)}|{changed_by or by}|{clock(made if changed is None else changed)}"
    return f"{image}|{label}|{text}}}|{times}|{uuid}|{deleted}|256|256"


@dataclass
class Draft:
    """The files of a study, as lists of lines."""

    manual: dict[str, list[str]] = field(default_factory=lambda: {"1": []})
    assisted: dict[str, list[str]] = field(default_factory=lambda: {"1": []})
    truth: dict[str, list[str]] = field(default_factory=lambda: {"ground_truth": [], "unchanged_1": []})

    def write(self, folder: Path) -> Path:
        for arm, lines in (("manual", self.manual), ("assisted", self.assisted)):
            where = folder / ARMS[arm] / "participants"
            where.mkdir(parents=True)
            for expert, texts in lines.items():
                (where / f"participant_{expert}.txt").write_text("\n\n".join(texts), encoding="utf-8")
        where = folder / ARMS["assisted"] / "truth"
        where.mkdir()
        for name, texts in self.truth.items():
            (where / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8")
        return folder

    def read(self, folder: Path) -> Study:
        return read_study(self.write(folder / "study"))
