"""Rows of corrections.parquet: their areas add up to those of the slide, whatever was split or merged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import LineString, Point, box
from shapely.geometry.base import BaseGeometry

from tests.measures.shapes import blob
from wsi_pipeline.collect.matching import Change, match
from wsi_pipeline.collect.rows import Correction, Occasion, rows_of
from wsi_pipeline.collect.tables import aggregated, class_figures, count_changes, pooled
from wsi_pipeline.objects import Kind, PathObject

MPP = 0.5
UM2 = MPP**2
OCCASION = Occasion("s1", "P1", "batch-1", "rater-1", "measured", True)
close = pytest.approx


def region(uuid: str, shape: BaseGeometry, name: str | None = "Tumor") -> PathObject:
    return PathObject(uuid, Kind.ANNOTATION, shape, name)


def rows(before: list[PathObject], after: list[PathObject]) -> list[Correction]:
    return rows_of(OCCASION, match(before, after), MPP, 2.0)


A, B = region("a", box(0, 0, 100, 100)), region("b", box(200, 0, 300, 100))


def test_an_edit_says_what_was_kept_removed_and_added() -> None:
    (row,) = rows([A], [region("a", box(10, 0, 130, 100))])
    assert (row.change, row.status) == ("edited", "changed")
    areas = (row.area_before_um2, row.area_after_um2, row.kept_um2, row.removed_um2, row.added_um2)
    assert areas == close((1e4 * UM2, 1.2e4 * UM2, 9e3 * UM2, 1e3 * UM2, 3e3 * UM2))
    assert row.iou == close(9 / 13)
    # Only the left and right sides have moved, by 10 and 30 px of 0.5 µm.
    assert row.hd95_um == close(15, abs=0.5)


def test_deleted_and_added_objects_have_no_distance() -> None:
    deleted, added = rows([A], [region("n", box(900, 0, 950, 50))])
    assert (deleted.change, deleted.removed_um2, deleted.dice, deleted.surface_dice) == ("deleted", 1e4 * UM2, 0, 0)
    assert (added.change, added.added_um2, added.area_before_um2) == ("added", 2500 * UM2, 0)
    assert deleted.hd95_um is None
    assert added.hd95_um is None


def test_what_was_left_alone_counts_as_it_was_handed_out() -> None:
    stored = shapely.transform(Point(50, 50).buffer(40), lambda xy: xy.astype(np.float32).astype(np.float64) + 0.2)
    (row,) = rows([region("a", Point(50, 50).buffer(40))], [region("a", stored)])
    assert (row.change, row.status, row.dice, row.surface_dice, row.hd95_um) == ("untouched", "accepted", 1, 1, 0)
    assert row.area_after_um2 == row.area_before_um2 == row.kept_um2


def test_a_split_object_has_a_row_for_each_part_and_its_area_only_once() -> None:
    left, right = region("l", box(0, 0, 45, 100)), region("r", box(55, 0, 100, 110))
    first, second = rows([A], [left, right])
    assert (first.uuid_after, second.uuid_after) == ("l", "r")
    assert {first.change, second.change} == {"split"}
    assert first.area_before_um2 + second.area_before_um2 == close(1e4 * UM2)
    assert first.removed_um2 + second.removed_um2 == close(1000 * UM2)
    assert (first.added_um2, second.added_um2) == close((0, 450 * UM2))
    # Of the whole: the object against its parts together.
    assert first.dice == second.dice == close(2 * 9000 / (10000 + 9450))


def test_a_merged_object_has_a_row_for_each_source_and_its_area_only_once() -> None:
    whole = region("m", box(0, 0, 300, 100))
    first, second = rows([A, B], [whole])
    assert {first.change, second.change} == {"merged"}
    assert first.area_after_um2 + second.area_after_um2 == close(3e4 * UM2)
    assert first.added_um2 + second.added_um2 == close(1e4 * UM2)
    assert first.removed_um2 + second.removed_um2 == 0
    assert first.iou == second.iou == close(2 / 3)


def test_a_neighbour_that_was_grown_over_is_not_counted_as_added() -> None:
    grown = region("a", box(0, 0, 300, 100))
    edited, merged = rows([A, B], [grown])
    assert (edited.change, merged.change) == ("edited", "merged")
    assert edited.added_um2 + merged.added_um2 == close(1e4 * UM2)
    assert edited.kept_um2 + merged.kept_um2 == close(2e4 * UM2)


def test_of_lines_and_points_nothing_is_compared() -> None:
    line = region("l", LineString([(0, 0), (90, 0)]))
    (row,) = rows([line], [line])
    assert (row.area_before_um2, row.dice, row.iou, row.surface_dice, row.hd95_um) == (0, None, None, None, None)


def test_an_object_counts_once_however_many_rows_it_has() -> None:
    parts = [region(f"p{i}", box(34 * i, 0, 34 * i + 30, 100)) for i in range(3)]
    counts = count_changes(rows([A, B], [*parts, B, region("n", box(900, 0, 999, 9))]))
    assert {k: v for k, v in counts.items() if v} == {"untouched": 1, "split": 1, "added": 1}
    assert list(counts) == [str(change) for change in Change]


def test_a_sliver_beside_its_region_is_an_object_of_its_own_and_area_of_its_class() -> None:
    sliver = region("s", box(99, 40, 120, 60))
    found = rows([A], [A, sliver])
    assert [row.change for row in found] == ["untouched", "added"]
    figures = class_figures(match([A], [A, sliver]), MPP, 2.0)["Tumor"]
    # One pixel column of the sliver lies in the region.
    assert figures["added_um2"] == close(20 * 20 * UM2)
    assert figures["kept_um2"] == close(1e4 * UM2)


def test_classes_are_measured_apart_and_what_has_none_is_named() -> None:
    pairs = match([A, B], [replace(A, path_class="Stroma"), B, region("n", box(500, 0, 600, 10), None)])
    figures = class_figures(pairs, MPP, 2.0)
    assert list(figures) == ["Stroma", "Tumor", "Unclassified"]
    assert figures["Tumor"]["removed_um2"] == close(1e4 * UM2)
    assert figures["Stroma"]["added_um2"] == close(1e4 * UM2)
    assert (figures["Tumor"]["dice"], figures["Stroma"]["dice"]) == close((2 / 3, 0))


def test_slides_are_pooled_by_sums_not_by_means() -> None:
    small = class_figures(match([A], []), MPP, 2.0)["Tumor"]
    large = class_figures(match([A, B], [A, B]), MPP, 2.0)["Tumor"]
    both = pooled([small, large])
    assert both["area_before_um2"] == close(3e4 * UM2)
    assert both["dice"] == close(2 * 2 / (3 + 2))
    assert both["surface_dice"] == close(2 * 800 / (1200 + 800))
    assert both["hd95_um"] == 0


def test_distances_of_slides_are_the_largest_and_their_mean_weighs_outlines() -> None:
    moved = class_figures(match([A], [region("a", box(8, 0, 108, 100))]), MPP, 2.0)["Tumor"]
    still = class_figures(match([A, B], [A, B]), MPP, 2.0)["Tumor"]
    gone = class_figures(match([A], []), MPP, 2.0)["Tumor"]
    both = pooled([moved, still, gone])
    assert both["hd_um"] == moved["hd_um"] == close(4, abs=0.3)
    # Outlines of 400 px twice, and of 800 px twice; what is gone has no distance.
    assert moved["assd_um"] is not None
    assert both["assd_um"] == close(moved["assd_um"] * 800 / (800 + 1600))
    assert gone["assd_um"] is gone["hd_um"] is None
    assert both["added_path_um"] == moved["added_path_um"]


def test_means_over_slides_stand_beside_the_pooled_figures_with_their_number() -> None:
    gone = class_figures(match([A], []), MPP, 2.0)["Tumor"]
    still = class_figures(match([A, B], [A, B]), MPP, 2.0)["Tumor"]
    nothing = class_figures(match([region("l", LineString([(0, 0), (9, 9)]))], []), MPP, 2.0)["Tumor"]
    found = aggregated([gone, still, nothing])
    assert found["slides"] == 2
    assert found["mean"]["dice"] == {"mean": 0.5, "n": 2}
    assert found["mean"]["hd_um"] == {"mean": 0.0, "n": 1}
    assert found["pooled"]["dice"] == close(0.8)
    empty = aggregated([nothing])
    assert (empty["slides"], empty["mean"]["iou"]) == (0, {"mean": None, "n": 0})
    assert empty["pooled"]["assd_um"] is None


def test_rows_tell_all_distances_of_their_change() -> None:
    (row,) = rows([A], [region("a", box(8, 0, 108, 100))])
    assert row.hd_um == close(4, abs=0.3)
    assert row.assd_um is not None
    assert 0 < row.assd_um < (row.hd_um or 0)
    # The new right side, and of both loose ends what is beyond the tolerance of 4 px.
    assert row.added_path_um == close((100 + 100 + 16 - 16) * MPP, abs=5)
    (still,) = rows([A], [A])
    assert (still.hd_um, still.assd_um, still.added_path_um) == (0, 0, 0)


@given(seed=st.integers(0, 5000))
@settings(deadline=None, max_examples=60)
def test_sums_over_rows_are_the_figures_of_the_class(seed: int) -> None:
    """Regions that do not overlap each other, before and after, as models and careful people draw them."""
    rng = np.random.default_rng(seed)
    before, after = [], []
    for i in range(8):
        shape = blob(rng, 400.0 * i, 0, 120)
        before.append(region(f"o{i}", shape))
        kind = rng.integers(6)
        if kind == 0:
            continue
        if kind == 1:
            shape = shape.union(blob(rng, 400.0 * i + 110, 0, 40))
        elif kind == 2:
            shape = shape.difference(blob(rng, 400.0 * i + 90, 0, 50))
        elif kind == 3:
            for side, half in (("l", box(-1e4, -1e4, 400 * i - 3, 1e4)), ("r", box(400 * i + 3, -1e4, 1e4, 1e4))):
                after.append(region(f"o{i}{side}", shape.intersection(half)))
            continue
        elif kind == 4 and i and f"o{i - 1}" in {o.uuid for o in after}:
            last = next(o for o in after if o.uuid == f"o{i - 1}")
            after.remove(last)
            bridge = box(400 * (i - 1), -10, 400 * i, 10)
            after.append(region(f"m{i}", shapely.union_all([last.geometry, shape, bridge])))
            continue
        after.append(region(f"o{i}", shape))
    found, figures = rows(before, after), class_figures(match(before, after), MPP, 2.0)["Tumor"]
    for column in ("area_before_um2", "area_after_um2", "kept_um2", "removed_um2", "added_um2"):
        assert sum(getattr(row, column) for row in found) == close(figures[column], rel=1e-6, abs=1e-3), column
