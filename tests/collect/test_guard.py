"""Deleted or lost? What a person may have done is believed, what nobody can have done raises an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from shapely import Point, box

from wsi_pipeline.collect.guard import ImageLog, loss
from wsi_pipeline.collect.matching import match
from wsi_pipeline.measures import Event, EventType, Session
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.states import REVIEW_CLASS, ImageState, Source

NO_LOG = ImageLog()
REGIONS = [PathObject(f"r{i}", Kind.ANNOTATION, Point(300 * i, 0).buffer(80), "Tumor") for i in range(6)]
TILE = PathObject("t", Kind.TILE, box(0, 0, 500, 500), REVIEW_CLASS)
DRAWN = PathObject("n", Kind.ANNOTATION, Point(5000, 5000).buffer(50), "Tumor")


def alarm(
    before: Sequence[PathObject], after: Sequence[PathObject], state: str = "todo", log: ImageLog = NO_LOG
) -> str | None:
    return loss(before, after, match(before, after), ImageState(state), log, 7)


def log_of(*deleted: str, actions: int = 1) -> ImageLog:
    return ImageLog(actions + len(deleted), frozenset(deleted))


def test_nothing_gone_is_no_alarm() -> None:
    assert alarm([*REGIONS, TILE], [*REGIONS, TILE, DRAWN]) is None
    assert alarm([], [DRAWN]) is None


@pytest.mark.parametrize("state", ["todo", "in_progress", "reviewed"])
def test_an_empty_image_that_held_tiles_is_an_alarm_in_every_state_of_review(state: str) -> None:
    text = alarm([*REGIONS, TILE], [], state)
    assert text is not None
    assert "all 7 objects that were handed out are gone" in text
    assert "data/7/data.qpdata" in text
    assert alarm([*REGIONS, TILE], [DRAWN], state) is not None


def test_an_alarm_that_was_meant_can_be_put_out() -> None:
    assert alarm([*REGIONS, TILE], [], "adjudicated") is None
    assert alarm([*REGIONS, TILE], [], "locked") is None
    assert alarm([*REGIONS, TILE], [], "reviewed", log_of(*(o.uuid for o in REGIONS))) is None


def test_tiles_alone_that_vanish_are_an_alarm() -> None:
    assert alarm([TILE], []) is not None


def test_every_region_deleted_and_the_tiles_left_is_a_reviewed_slide_without_tumour() -> None:
    assert alarm([*REGIONS, TILE], [TILE], "reviewed") is None


def test_many_regions_without_tiles_may_be_gone_only_where_somebody_reviewed() -> None:
    assert alarm(REGIONS, [], "reviewed") is None
    assert alarm(REGIONS, [], "in_progress") is not None
    assert alarm(REGIONS[:3], [], "in_progress") is None


def test_a_loss_where_nobody_worked_is_an_alarm_with_its_size() -> None:
    text = alarm([*REGIONS, TILE], [*REGIONS[2:], TILE])
    assert text is not None
    assert "2 of 6 regions are gone" in text


def test_a_loss_where_somebody_worked_is_a_correction() -> None:
    before, after = [*REGIONS, TILE], [*REGIONS[2:], TILE]
    assert alarm(before, after, "in_progress") is None
    assert alarm(before, after, log=log_of()) is None
    assert alarm(before, after, log=log_of("r0", "r1")) is None
    # The deletions are not in the log, but a region was drawn: a person was there.
    assert alarm(before, [*after, DRAWN]) is None
    edited = replace(REGIONS[3], geometry=Point(900, 0).buffer(120))
    assert alarm(before, [REGIONS[2], edited, *REGIONS[4:], TILE]) is None


def test_what_lives_on_under_another_uuid_is_no_loss() -> None:
    renamed = [replace(o, uuid=f"x{o.uuid}") for o in REGIONS]
    assert alarm(REGIONS, renamed) is None


def test_the_log_of_an_image_is_that_of_its_entry() -> None:
    events = (
        Event(1, 0, EventType.OPEN, "7"),
        Event(2, 1, EventType.DELETE, "7", "r1"),
        Event(3, 2, EventType.HEARTBEAT, "7"),
        Event(4, 3, EventType.DELETE, "8", "r2"),
    )
    log = ImageLog.of([Session("p", "anna", events, Source.SIMULATED, "a")], 7)
    assert log == ImageLog(2, frozenset({"r1"}), frozenset({Source.SIMULATED}))
    assert ImageLog.of([], 7) == NO_LOG
