"""Matching: after any edits, collect reports exactly those."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import MultiPolygon, Point, box
from shapely.affinity import rotate, translate
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.collect.matching import Change, Pair, match, same_shape
from wsi_pipeline.objects import Kind, PathObject


def region(uuid: str, x: float, y: float = 0, size: float = 100, **more: object) -> PathObject:
    item = PathObject(uuid=uuid, kind=Kind.ANNOTATION, geometry=Point(x, y).buffer(size / 2), path_class="Tumor")
    return replace(item, **more)  # type: ignore[arg-type]


def shape(item: PathObject) -> BaseGeometry:
    assert item.geometry is not None
    return item.geometry


def changes(pairs: list[Pair]) -> dict[tuple[str | None, str | None], Change]:
    return {(p.before.uuid if p.before else None, p.after.uuid if p.after else None): p.change for p in pairs}


A, B, C = region("a", 0), region("b", 300), region("c", 600)


def test_what_was_left_alone_is_untouched_even_if_quPath_simplified_it() -> None:
    simpler = replace(A, geometry=shape(A).simplify(0.3))
    moved_vertices = replace(B, geometry=shapely.transform(shape(B), lambda xy: xy + np.sin(xy * 7) * 0.4))
    found = changes(match([A, B], [simpler, moved_vertices]))
    assert found == {("a", "a"): Change.UNTOUCHED, ("b", "b"): Change.UNTOUCHED}


def test_each_simple_edit_is_told_from_the_others() -> None:
    edited = replace(A, geometry=shape(A).union(box(40, -10, 80, 10)))
    reclassified = replace(B, path_class="Stroma")
    new = region("n", 900)
    assert changes(match([A, B, C], [edited, reclassified, new])) == {
        ("a", "a"): Change.EDITED,
        ("b", "b"): Change.RECLASSIFIED,
        ("c", None): Change.DELETED,
        (None, "n"): Change.ADDED,
    }


def test_a_slip_with_the_move_tool_is_moved_not_edited() -> None:
    found = match([A, B], [replace(A, geometry=translate(shape(A), 37, -12)), B])
    assert changes(found)["a", "a"] is Change.MOVED


def test_a_turned_shape_is_edited() -> None:
    bar = replace(A, geometry=box(0, 0, 200, 20))
    assert changes(match([bar], [replace(bar, geometry=rotate(shape(bar), 30))]))["a", "a"] is Change.EDITED


def test_two_regions_that_became_a_new_one_are_merged() -> None:
    near = region("b", 90)
    merged = PathObject("m", Kind.ANNOTATION, shape(A).union(shape(near)), "Tumor")
    assert changes(match([A, near, C], [merged, C])) == {
        ("a", "m"): Change.MERGED,
        ("b", "m"): Change.MERGED,
        ("c", "c"): Change.UNTOUCHED,
    }


def test_a_region_that_swallowed_its_neighbour_merged_with_it() -> None:
    near = region("b", 120)
    grown = replace(A, geometry=shapely.union_all([shape(A), shape(near), box(20, -20, 100, 20)]))
    assert changes(match([A, near], [grown])) == {("a", "a"): Change.EDITED, ("b", "a"): Change.MERGED}


def test_a_region_that_was_cut_in_two_is_split() -> None:
    left = PathObject("l", Kind.ANNOTATION, shape(A).intersection(box(-100, -100, -2, 100)), "Tumor")
    right = PathObject("r", Kind.ANNOTATION, shape(A).intersection(box(2, -100, 100, 100)), "Tumor")
    assert changes(match([A, B], [left, right, B])) == {
        ("a", "l"): Change.SPLIT,
        ("a", "r"): Change.SPLIT,
        ("b", "b"): Change.UNTOUCHED,
    }


def test_what_was_drawn_on_a_piece_of_a_split_is_no_piece() -> None:
    left, right = (PathObject(u, Kind.ANNOTATION, box(x, 0, x + 49, 100), "Tumor") for u, x in (("l", 0), ("r", 51)))
    inside = PathObject("i", Kind.ANNOTATION, box(10, 10, 40, 40), "Necrosis")
    whole = PathObject("a", Kind.ANNOTATION, box(0, 0, 100, 100), "Tumor")
    around = PathObject("t", Kind.ANNOTATION, box(-500, -500, 600, 600), "Tissue")
    assert changes(match([whole], [left, inside, right, around])) == {
        ("a", "l"): Change.SPLIT,
        ("a", "r"): Change.SPLIT,
        (None, "i"): Change.ADDED,
        (None, "t"): Change.ADDED,
    }


def test_small_drawings_where_a_merged_region_was_are_not_what_became_of_it() -> None:
    one, other = (PathObject(u, Kind.ANNOTATION, box(x, 0, x + 100, 100), "Tumor") for u, x in (("a", 0), ("b", 200)))
    merged = PathObject("m", Kind.ANNOTATION, box(40, 0, 300, 100), "Tumor")
    small = [PathObject(u, Kind.ANNOTATION, box(0, y, 38, y + 40), "Tumor") for u, y in (("d", 5), ("f", 50))]
    assert changes(match([one, other], [*small, merged])) == {
        ("a", "m"): Change.MERGED,
        ("b", "m"): Change.MERGED,
        (None, "d"): Change.ADDED,
        (None, "f"): Change.ADDED,
    }


def test_a_new_uuid_on_nearly_the_same_region_is_an_edit() -> None:
    redrawn = PathObject("x", Kind.ANNOTATION, shape(A).buffer(-8), "Tumor")
    assert changes(match([A], [redrawn])) == {("a", "x"): Change.EDITED}


def test_a_sliver_that_touches_a_region_is_added() -> None:
    sliver = PathObject("s", Kind.ANNOTATION, box(49, -20, 75, 20), "Tumor")
    assert changes(match([A], [A, sliver])) == {("a", "a"): Change.UNTOUCHED, (None, "s"): Change.ADDED}


def test_a_region_beside_a_deleted_one_is_not_its_heir() -> None:
    assert changes(match([A], [region("n", 104)])) == {("a", None): Change.DELETED, (None, "n"): Change.ADDED}


def test_tiles_and_detections_are_no_corrections() -> None:
    tile = PathObject("t", Kind.TILE, box(0, 0, 50, 50), "Review")
    assert changes(match([A, tile], [A])) == {("a", "a"): Change.UNTOUCHED}


def test_objects_without_area_are_matched_by_uuid_and_counted() -> None:
    point = PathObject("p", Kind.ANNOTATION, Point(3, 3), "Tumor")
    assert changes(match([A], [A, point]))[None, "p"] is Change.ADDED
    assert changes(match([point], [point]))["p", "p"] is Change.UNTOUCHED
    assert changes(match([point], []))["p", None] is Change.DELETED


def test_the_same_shape_is_seen_in_both_directions() -> None:
    ring = box(0, 0, 100, 100)
    holed = ring.difference(box(40, 40, 60, 60))
    assert not same_shape(ring, holed)
    assert not same_shape(holed, ring)
    assert same_shape(ring, shapely.reverse(ring))
    assert same_shape(MultiPolygon([ring]), ring)
    assert not same_shape(ring, None)
    assert same_shape(None, None)


# A grid of regions, far enough apart that every edit stays with its own.
EDITS = ("leave", "brush", "erase", "move", "reclassify", "delete", "split", "redraw")


@given(
    edits=st.lists(st.sampled_from(EDITS), min_size=1, max_size=25), extra=st.integers(0, 4), seed=st.integers(0, 99)
)
def test_collect_reports_exactly_the_edits_that_were_made(edits: list[str], extra: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before: list[PathObject] = []
    after: list[PathObject] = []
    expected: dict[tuple[str | None, str | None], Change] = {}
    for i, edit in enumerate(edits):
        x, y = i % 5 * 500.0, i // 5 * 500.0
        old = region(f"o{i}", x, y, size=float(rng.uniform(60, 160)))
        before.append(old)
        radius = float(np.sqrt(shape(old).area / np.pi))
        if edit == "leave":
            after.append(old)
            expected[old.uuid, old.uuid] = Change.UNTOUCHED
        elif edit == "brush":
            stroke = Point(x + radius, y).buffer(float(rng.uniform(8, 30)))
            after.append(replace(old, geometry=shape(old).union(stroke), measurements={}))
            expected[old.uuid, old.uuid] = Change.EDITED
        elif edit == "erase":
            stroke = Point(x + radius, y).buffer(float(rng.uniform(8, 20)))
            after.append(replace(old, geometry=shape(old).difference(stroke), measurements={}))
            expected[old.uuid, old.uuid] = Change.EDITED
        elif edit == "move":
            after.append(replace(old, geometry=translate(shape(old), float(rng.uniform(3, 60)), 5), measurements={}))
            expected[old.uuid, old.uuid] = Change.MOVED
        elif edit == "reclassify":
            after.append(replace(old, path_class="Ignore*"))
            expected[old.uuid, old.uuid] = Change.RECLASSIFIED
        elif edit == "delete":
            expected[old.uuid, None] = Change.DELETED
        elif edit == "split":
            for side, half in (
                ("l", box(x - 300, y - 300, x - 1, y + 300)),
                ("r", box(x + 1, y - 300, x + 300, y + 300)),
            ):
                after.append(PathObject(f"o{i}{side}", Kind.ANNOTATION, shape(old).intersection(half), "Tumor"))
                expected[old.uuid, f"o{i}{side}"] = Change.SPLIT
        else:
            after.append(PathObject(f"o{i}x", Kind.ANNOTATION, shape(old).buffer(-6), "Tumor"))
            expected[old.uuid, f"o{i}x"] = Change.EDITED
    for i in range(extra):
        after.append(region(f"new{i}", i * 500.0, -600.0))
        expected[None, f"new{i}"] = Change.ADDED
    shuffled = [after[i] for i in rng.permutation(len(after))]
    assert changes(match(before, shuffled)) == expected


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_matches_nothing(count: int) -> None:
    assert match([], [A] * count) == [Pair(None, A, Change.ADDED)] * count


def test_a_small_drawing_inside_of_what_was_deleted_is_no_piece_of_it() -> None:
    large = PathObject("a", Kind.ANNOTATION, box(0, 0, 100, 100), "Tumor")
    dot = PathObject("b", Kind.ANNOTATION, box(40, 40, 60, 60), "Necrosis")
    assert [(p.change, p.before, p.after) for p in match([large], [dot])] == [
        (Change.DELETED, large, None),
        (Change.ADDED, None, dot),
    ]
    # A piece that was left of a split is.
    quarter = PathObject("c", Kind.ANNOTATION, box(0, 0, 49, 60), "Tumor")
    assert [p.change for p in match([large], [quarter])] == [Change.EDITED]
