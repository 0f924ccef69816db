"""Time per region: by hand from a log, a split or a merge told of once, and nothing lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import box

from tests.collect.test_rows import A, B, region, rows
from tests.collect.test_savings import image_of, slide_of
from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.region_times import RegionRow, region_figures, region_rows
from wsi_pipeline.collect.rows import Correction
from wsi_pipeline.collect.time_figures import BatchLogs
from wsi_pipeline.measures.time import Event, EventType, Session
from wsi_pipeline.states import Source

OPEN, EDIT, CLASS, DELETE, CLOSE = (EventType(name) for name in ("open", "edit", "class", "delete", "close"))
C, D = region("c", box(400, 0, 450, 100)), region("d", box(460, 0, 510, 100))
# A was cut in two, B brushed, C and D were merged, X was drawn and deleted again.
PARTS = [region("p1", box(0, 0, 45, 100)), region("p2", box(55, 0, 100, 100), "Stroma")]
AFTER = [*PARTS, region("b", box(200, 0, 320, 100)), region("m", box(400, 0, 510, 100))]
LOG: Sequence[tuple[float, EventType, str | None]] = [
    (0, OPEN, None),
    (10, EDIT, "b"),
    (40, DELETE, "a"),  # QuPath's split: all of it in one moment
    (40, EDIT, "p1"),
    (40, EDIT, "p2"),
    (55, EDIT, "p1"),
    (75, CLASS, "p2"),
    (80, DELETE, "c"),
    (80, DELETE, "d"),
    (80, EDIT, "m"),
    (100, EDIT, "m"),
    (130, EDIT, "x"),
    (135, DELETE, "x"),
    (150, CLOSE, None),
]


def image(found: Sequence[Correction], entry_id: int = 1, slide_id: str = "s1") -> CollectedImage:
    made = image_of("rater-1", "batch-1", slide_of(slide_id, "assisted", 1))
    return replace(made, rows=tuple(found), entry_id=entry_id)


def timed(images: Sequence[CollectedImage], *logs: Sequence[tuple[float, EventType, str | None]]) -> list[RegionRow]:
    """Rows of images that share a project; the n-th log is of the n-th image."""
    plan = images[0].plan
    sessions = [
        Session(
            plan.project,
            plan.rater,
            tuple(Event(i, 1000 * t, kind, str(number), uuid) for i, (t, kind, uuid) in enumerate(log)),
            log=f"log-{number}",
        )
        for number, log in enumerate(logs, start=1)
    ]
    same_plan = [replace(item, plan=plan) for item in images]
    return region_rows(same_plan, [BatchLogs(plan, sessions)], 300)


def test_a_split_is_one_region_with_the_time_of_its_parts() -> None:
    found = timed([image(rows([A, B, C, D], AFTER))], LOG)
    by_hand = {
        "edited": {"regions": 1, "active_s": 10, "median_s": 10},
        "split": {"regions": 1, "active_s": 30 + 0 + 0 + 15 + 20, "median_s": 65},
        "merged": {"regions": 1, "active_s": 5 + 0 + 0 + 20, "median_s": 25},
        "gone": {"regions": 1, "active_s": 30 + 5, "median_s": 35},
    }
    figures = region_figures(found)
    assert figures["by_change"] == by_hand
    assert figures["no_region_s"] == 15
    assert figures["active_s"] == 150 == sum(kind["active_s"] for kind in by_hand.values()) + 15


def test_the_table_keeps_each_object_and_says_which_region_it_is_of() -> None:
    found = {row.object: row for row in timed([image(rows([A, B, C, D], AFTER))], LOG)}
    assert {name: row.region for name, row in found.items()} == {
        "a": "a", "p1": "a", "p2": "a", "b": "b", "c": "c", "d": "c", "m": "c", "x": "x", None: None,
    }  # fmt: skip
    assert {name: row.active_s for name, row in found.items() if row.active_s} == {
        "b": 10, "a": 30, "p1": 15, "p2": 20, "c": 5, "m": 20, "x": 35, None: 15,
    }  # fmt: skip
    assert {found[name].change for name in ("a", "p1", "p2")} == {"split"}
    assert (found["p1"].path_class, found["p2"].path_class, found["x"].change) == ("Tumor", "Stroma", "gone")
    assert found["p1"].actions == 2


def test_a_part_that_swallowed_a_neighbour_is_one_region_with_it() -> None:
    """A cut, and its right half merged with B: everything hangs together, and is told of as a split."""
    (pattern,) = rows([A], [region("a", box(0, 0, 120, 100))])
    joined = [
        replace(pattern, uuid_before=before, uuid_after=after, change=change)
        for before, after, change in (("a", "l", "split"), ("a", "r", "split"), ("b", "r", "merged"))
    ]
    for order in (joined, joined[::-1]):
        log = [(0, OPEN, None), (10, EDIT, "r"), (30, EDIT, "l"), (60, DELETE, "b"), (61, CLOSE, None)]
        figures = region_figures(timed([image(order)], log))
        assert figures["by_change"] == {"split": {"regions": 1, "active_s": 60, "median_s": 60}}


def test_the_same_object_on_two_images_is_two_regions() -> None:
    same = rows([A], [region("a", box(0, 0, 120, 100))])
    images = [image(same, 1, "s1"), image(same, 2, "s2")]
    logs = [[(t, OPEN, None), (t + 10 * n, EDIT, "a"), (t + 40, CLOSE, None)] for n, t in ((1, 0), (2, 1000))]
    figures = region_figures(timed(images, *logs))
    assert figures["by_change"] == {"edited": {"regions": 2, "active_s": 30, "median_s": 15}}
    assert figures["images"] == 2


def test_a_region_without_any_time_is_not_counted() -> None:
    log = [(0, OPEN, None), (0, EDIT, "b"), (5, CLOSE, None)]
    figures = region_figures(timed([image(rows([B], [region("b", box(200, 0, 320, 100))]))], log))
    assert (figures["by_change"], figures["no_region_s"]) == ({}, 5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("pqrs")), max_size=8),
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([*"abcdpqrsxy"])), max_size=20),
)
def test_whatever_was_split_and_merged_every_second_is_told_of_once(
    pairs: list[tuple[str, str]], actions: list[tuple[int, str]]
) -> None:
    (pattern,) = rows([A], [region("a", box(0, 0, 120, 100))])
    told = [replace(pattern, uuid_before=one, uuid_after=other, change="split") for one, other in pairs]
    log: list[tuple[float, EventType, str | None]] = [(0, OPEN, None)]
    log += [(float(t), EDIT, name) for t, name in sorted(actions)]
    log.append((250, CLOSE, None))
    found = timed([image(told)], log)
    figures = region_figures(found)
    assert figures["active_s"] == pytest.approx(250)
    shared = sum(kind["active_s"] for kind in figures["by_change"].values())
    assert shared + figures["no_region_s"] == pytest.approx(250)
    # Regions: objects that hang together, found here by growing sets until nothing changes.
    sets = [{one, other} for one, other in pairs]
    for _ in sets:
        for index, own in enumerate(sets):
            sets[index] = own.union(*(other for other in sets if other & own))
    for row in found:
        if row.object is not None:
            own = next((group for group in sets if row.object in group), {row.object})
            assert {other.region for other in found if other.object in own} == {row.region}
            assert row.region in own


def test_simulated_logs_make_simulated_rows() -> None:
    made = image(rows([A, B, C, D], AFTER))
    session = Session(made.plan.project, "rater-1", (Event(0, 0.0, OPEN, "1"), Event(1, 9e3, EDIT, "1", "b")))
    found = region_rows([made], [BatchLogs(made.plan, [replace(session, source=Source.SIMULATED)])], 300)
    assert {row.source for row in found} == {"simulated"}
    assert region_figures(found)["source"] == "simulated"
