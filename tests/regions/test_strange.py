"""Regions take over what their tiles say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shapely import box

from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.regions import ReviewTile
from wsi_pipeline.regions.strange import MEASUREMENT, STRUCTURE, with_strangeness


def tile(x: int, value: float | None) -> ReviewTile:
    return ReviewTile("s", x, 0, 100, 100, 1.0, 0.3, 0.5, 0.6, 1.0, 1, True, "why", out_of_distribution=value)


def region(x: float, right: float) -> PathObject:
    return PathObject("1", Kind.ANNOTATION, box(x, 10, right, 20), "Tumor", measurements={"Area µm^2": 1.0})


def test_a_region_has_the_mean_of_its_tiles_by_area() -> None:
    tiles = [tile(0, 0.4), tile(100, 2.0), tile(200, None)]
    inside, across, beyond, nowhere = with_strangeness(
        [region(10, 20), region(75, 175), region(150, 300), region(210, 290)], tiles
    )
    assert inside.measurements == {"Area µm^2": 1.0, MEASUREMENT: 0.4}
    assert across.measurements[MEASUREMENT] == pytest.approx(0.25 * 0.4 + 0.75 * 2.0)
    # Where nobody knows is left out of the mean.
    assert beyond.measurements[MEASUREMENT] == 2.0
    assert MEASUREMENT not in nowhere.measurements


def test_each_distance_has_a_mean_of_its_own() -> None:
    tiles = [replace(tile(0, None), structure_distance=3.0), replace(tile(100, 0.5), structure_distance=1.0)]
    (found,) = with_strangeness([region(50, 150)], tiles)
    assert found.measurements == {"Area µm^2": 1.0, MEASUREMENT: 0.5, STRUCTURE: 2.0}


def test_without_values_nothing_is_added() -> None:
    regions = [region(0, 50)]
    assert with_strangeness(regions, [tile(0, None)]) == regions
    assert with_strangeness([], [tile(0, 1.0)]) == []
    assert with_strangeness([replace(regions[0], geometry=box(0, 500, 9, 510))], [tile(0, 1.0)])[0].measurements == {
        "Area µm^2": 1.0
    }
