"""Which handout an image stands at, when a person deleted what was handed out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.handout.made import (
    COSTS,
    REVIEW,
    RUN_ID,
    annotations_of,
    handed_out,
    objects_of,
    region,
    save,
    set_state,
    slide,
)
from wsi_pipeline.collect import collect
from wsi_pipeline.handout import HandoutSlide
from wsi_pipeline.objects import META_RUN, PathObject
from wsi_pipeline.qupath.history import history_of, restore
from wsi_pipeline.rundir import RunDir

NEWER = "b" * 16


def newer(folder: Path) -> HandoutSlide:
    """More regions than the first model drew, elsewhere."""
    places = (700, 1500, 2200, 2900)
    return slide(folder, regions=[region("s1", x, y=1500, run_id=NEWER) for x in places], run_id=NEWER, flagged=3)


def own(folder: Path) -> PathObject:
    """What a person drew."""
    return replace(region("s1", 3500, y=2500), metadata={}, measurements={})


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Two handouts, of which the second stands in the image, and nobody touched anything."""
    handed_out(tmp_path)
    found, _ = handed_out(tmp_path, newer(tmp_path))
    assert {o.metadata[META_RUN] for o in objects_of(found)} == {NEWER}
    return found


def test_what_a_person_deleted_to_the_last_object_is_what_was_handed_out_last(run: RunDir, tmp_path: Path) -> None:
    drawn = own(tmp_path)
    save(run, [drawn], state="in_progress")
    handed_out(tmp_path, newer(tmp_path))
    assert [o.uuid for o in objects_of(run)] == [drawn.uuid]
    # An empty image is an alarm until somebody says that it was meant.
    assert "all 7 objects that were handed out are gone" in collect(run, REVIEW, COSTS).alarms[0]
    set_state(run, "adjudicated")
    counts = collect(run, REVIEW, COSTS).metrics["images"][0]["counts"]
    assert {change: n for change, n in counts.items() if n} == {"deleted": 4, "added": 1}


def test_an_older_handout_that_was_restored_is_known_by_a_single_object_of_it(run: RunDir, tmp_path: Path) -> None:
    restore(run.project, history_of(run.project)[0].id)
    kept = annotations_of(run)[0]
    assert kept.metadata[META_RUN] == RUN_ID
    save(run, [kept], state="adjudicated")
    counts = collect(run, REVIEW, COSTS).metrics["images"][0]["counts"]
    assert {change: n for change, n in counts.items() if n} == {"untouched": 1, "deleted": 2}
