"""The plan of a study on disk: immutable files, each of which names the hash of the one before; and wash-outs.

`handout/plan-001.json` is written before the first handout; slides that come later add `plan-002.json`, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from wsi_pipeline.errors import ConfigError, StoreError
from wsi_pipeline.files import read_json, sha256_file, write_json
from wsi_pipeline.handout.plan import plan_path
from wsi_pipeline.handout.study import Design, PlannedSlide, StudyBatch, batches_of
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import EVENTS

SCHEMA_VERSION = 1
_EVENT_TIME = re.compile(rb'"t"\s*:\s*(\d{12,14})\b')


@dataclass(frozen=True, slots=True)
class Study:
    """The whole plan; `hashes` are of its files, each of which holds the one before."""

    design: Design | None
    batches: tuple[StudyBatch, ...] = ()
    hashes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str | None:
        """Of the newest file and so of all before it; None before there is one."""
        return self.hashes[-1] if self.hashes else None


def read_study(run: RunDir) -> Study:
    """Read the plan.

    Raises
    ------
    StoreError
        A file is gone, damaged, newer than this program, or was changed after the next one was written.
    """
    design: Design | None = None
    batches: list[StudyBatch] = []
    hashes: list[str] = []
    paths = sorted(run.handout.glob("plan-*.json"))
    for number, path in enumerate(paths, start=1):
        value = read_json(path)
        if (
            path != _path(run, number)
            or not isinstance(value, dict)
            or value.get("previous") != (hashes[-1] if hashes else None)
        ):
            raise StoreError(f"{path}: the plan before it is gone or was changed; restore handout/ from a backup")
        if not isinstance(value.get("schema"), int) or value["schema"] > SCHEMA_VERSION:
            raise StoreError(f"{path} has schema {value.get('schema')}; update wsi-pipeline to read it")
        try:
            design = Design.model_validate(value["design"])
            batches += [StudyBatch.model_validate(batch) for batch in value["batches"]]
        except (KeyError, ValueError) as error:
            raise StoreError(f"{path} is damaged: {error}") from error
        hashes.append(sha256_file(path))
    return Study(design, tuple(batches), tuple(hashes))


def extend_study(study: Study, design: Design, slides: Sequence[PlannedSlide], batch_size: int) -> list[StudyBatch]:
    """Batches for the slides that the plan does not know yet.

    Raises
    ------
    ConfigError
        The configuration describes another study than the plan.
    """
    if study.design is not None and study.design != design:
        ours, theirs = design.model_dump(), study.design.model_dump()
        name = next(key for key in ours if ours[key] != theirs[key])
        raise ConfigError(
            f"handout: `{name}` is {_words(ours[name])}, the plan of this run was made with {_words(theirs[name])}; "
            "a plan never changes: set it back, or use another `output`"
        )
    return batches_of(design, slides, batch_size, study.batches)


def write_study(run: RunDir, study: Study, design: Design, batches: Sequence[StudyBatch]) -> Study:
    """Add batches to the plan on disk; without any, nothing is written."""
    if not batches:
        return study
    path = _path(run, len(study.hashes) + 1)
    value: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "previous": study.sha256,
        "design": design.model_dump(mode="json"),
        "batches": [batch.model_dump(mode="json") for batch in batches],
    }
    write_json(path, value)
    return Study(design, (*study.batches, *batches), (*study.hashes, sha256_file(path)))


def waits_for(run: RunDir, study: Study, batch: StudyBatch, now: datetime) -> str | None:
    """Why a batch cannot be handed out yet, in plain words; None when it can, or has been."""
    if plan_path(run, batch.name).exists():
        return None
    until: datetime | None = None
    for other in study.batches:
        if other.name not in batch.after:
            continue
        begun = _given(run, other)
        if begun is None:
            return f"{other.name} comes first and was not handed out yet"
        last = max([begun, *_events(run, other)])
        until = last if until is None else max(until, last)
    if until is None or now >= until + timedelta(days=batch.washout_days):
        return None
    free = (until + timedelta(days=batch.washout_days)).strftime("%Y-%m-%d %H:%M")
    return f"wash-out of {batch.washout_days:g} days after the last work on the same slides: until {free} UTC"


def note_handout(run: RunDir, batch: StudyBatch, now: datetime, forced: str | None) -> None:
    """Write down once when a batch was handed out, and what was overridden."""
    path = _given_path(run, batch)
    if not path.exists():
        write_json(path, {"schema": SCHEMA_VERSION, "at": now.isoformat(timespec="seconds"), "forced": forced})


def _given(run: RunDir, batch: StudyBatch) -> datetime | None:
    path = _given_path(run, batch)
    if not path.exists():
        return None
    try:
        return datetime.fromisoformat(read_json(path)["at"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error


def _events(run: RunDir, batch: StudyBatch) -> list[datetime]:
    """The last event of each log of a batch."""
    found = []
    for log in (run.root / batch.project).parent.joinpath(EVENTS).glob("*.jsonl"):
        times = _EVENT_TIME.findall(log.read_bytes())
        if times:
            found.append(datetime.fromtimestamp(max(map(int, times)) / 1000, tz=UTC))
    return found


def _given_path(run: RunDir, batch: StudyBatch) -> Path:
    return plan_path(run, batch.name).parent / "handed_out.json"


def _path(run: RunDir, number: int) -> Path:
    return run.handout / f"plan-{number:03d}.json"


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
