"""A run with one slide that was handed out and reviewed, and logs of its rater."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.handout.made import CLASSES, SETTINGS, set_state, slide
from tests.stages.made import restored_logging
from wsi_pipeline.collect import collect
from wsi_pipeline.config import Costs, Review
from wsi_pipeline.files import write_json
from wsi_pipeline.handout import hand_out
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import EVENTS

RATER = "rater-1"
START = 1_790_000_000_000


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    with restored_logging():
        yield


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Two slides handed out to `rater-1`, both reviewed."""
    made = RunDir(tmp_path / "run")
    hand_out(made, SETTINGS, CLASSES, [slide(tmp_path, "s1"), slide(tmp_path, "s2")])
    for slide_id in ("s1", "s2"):
        set_state(made, "reviewed", slide_id)
        made.slide(slide_id).root.mkdir(parents=True)
        made.slide(slide_id).regions.write_text("{}")
    slides = {s: {"state": "done", "uri": f"key:{s}", "name": f"{s}.tif"} for s in ("s1", "s2")}
    write_json(made.run_json, {"schema": 1, "run_id": "r", "slides": slides})
    return made


def write_log(run: RunDir, name: str, *, start: int = START, rater: str = RATER, image: str = "1") -> Path:
    """A visit of two minutes with an action a minute."""
    rows: list[dict[str, object]] = [{"schema": 1, "type": "header", "rater": rater, "source": "measured"}]
    for seq, kind in enumerate(("open", "edit", "close"), start=1):
        rows.append({"seq": seq, "t": start + 60_000 * (seq - 1), "type": kind, "image": image})
    path = run.project.parent / EVENTS / f"{rater}-{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def collected(run: RunDir) -> None:
    collect(run, Review(), Costs())
