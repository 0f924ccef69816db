"""Regions as objects: measurements with known answers, stable ids."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely import Polygon

from tests.regions.fakes import ArrayMap, array_map, smooth
from wsi_pipeline.config import Regions
from wsi_pipeline.objects import META_CONFIDENCE, META_MODEL, META_RUN, Kind, PathObject
from wsi_pipeline.regions import extract_regions
from wsi_pipeline.regions.contours import level_of
from wsi_pipeline.regions.measurements import measure, measure_all
from wsi_pipeline.regions.samples import Samples

SETTINGS = Regions(min_area_um2=10, min_hole_um2=5, simplify_um=0.5, contour_downsample=1)


def extract(source: ArrayMap, *, settings: Regions = SETTINGS, run_id: str = "run-a") -> list[PathObject]:
    names = ["Tumor", "Stroma"][: source.shape[0]]
    return extract_regions(source, names, settings, mpp=0.5, run_id=run_id, slide_id="s1", model_id="unet@abc")


def shape(item: PathObject) -> Polygon:
    assert isinstance(item.geometry, Polygon)
    return item.geometry


def two_squares() -> np.ndarray:
    maps = np.zeros((2, 80, 80), np.uint8)
    maps[0, 10:30, 10:30] = 255
    maps[0, 50:70, 40:70] = 204
    maps[1, 40:44, 10:14] = 180
    return maps


def test_each_class_gives_its_own_annotations_with_provenance() -> None:
    found = extract(array_map(two_squares(), downsample=2.0))
    assert [o.path_class for o in found] == ["Tumor", "Tumor", "Stroma"]
    for region in found:
        assert region.kind is Kind.ANNOTATION
        assert not region.locked
        assert region.metadata[META_RUN] == "run-a"
        assert region.metadata[META_MODEL] == "unet@abc"
        assert float(region.metadata[META_CONFIDENCE]) == region.measurements["Confidence"]


def test_measurements_of_flat_squares_are_known() -> None:
    entropy = np.zeros((80, 80), np.uint8)
    entropy[50:70, 40:70] = 102
    exact = SETTINGS.model_copy(update={"simplify_um": 0.0})
    first, second, _ = extract(array_map(two_squares(), downsample=2.0, entropy=entropy), settings=exact)
    assert first.measurements["Area µm^2"] == pytest.approx(20 * 20 * 4 * 0.25, rel=0.01)
    assert first.measurements["Probability: mean"] == 1.0
    assert first.measurements["Confidence"] == 1.0
    assert second.measurements["Probability: mean"] == pytest.approx(0.8)
    assert second.measurements["Probability: min"] == pytest.approx(0.8)
    assert second.measurements["Entropy: mean"] == pytest.approx(0.4)
    assert second.measurements["Confidence"] == pytest.approx(2 * 0.8 / 1.8, abs=1e-3)


def test_probability_outside_of_the_region_lowers_its_confidence() -> None:
    sharp = np.zeros((60, 60), np.uint8)
    sharp[20:40, 20:40] = 255
    blurred = sharp.copy()
    blurred[17:43, 17:43] = np.maximum(blurred[17:43, 17:43], 110)
    (a,), (b,) = extract(array_map(np.stack([sharp, 0 * sharp]))), extract(array_map(np.stack([blurred, 0 * sharp])))
    assert b.measurements["Confidence"] < a.measurements["Confidence"] - 0.05


def test_a_neighbour_of_the_same_class_does_not_count_as_doubt() -> None:
    alone = np.zeros((60, 60), np.uint8)
    alone[20:40, 20:30] = 255
    beside = alone.copy()
    beside[20:40, 32:50] = 255
    (a,) = extract(array_map(np.stack([alone, 0 * alone])))
    b = next(o for o in extract(array_map(np.stack([beside, 0 * alone]))) if shape(o).bounds[0] < 25)
    assert b.measurements["Confidence"] == pytest.approx(a.measurements["Confidence"], abs=0.01)


def test_ids_depend_on_run_and_geometry_only() -> None:
    source = array_map(two_squares())
    first, again, other = extract(source), extract(source), extract(source, run_id="run-b")
    assert [o.uuid for o in first] == [o.uuid for o in again]
    assert not {o.uuid for o in first} & {o.uuid for o in other}
    assert len({o.uuid for o in first}) == len(first)


@pytest.mark.parametrize("block", [16, 32, 256])
def test_values_do_not_depend_on_blocks_or_stripes(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, entropy = smooth(5, 150, 130), smooth(6, 150, 130)
    reference = extract(array_map(image, block=512, entropy=entropy))
    monkeypatch.setattr("wsi_pipeline.regions.measurements.STRIPE", 24)
    cut = extract(array_map(image, block=block, entropy=entropy))
    assert len(cut) == len(reference) > 3
    for a, b in zip(reference, cut, strict=True):
        assert shape(a).symmetric_difference(shape(b)).area < 0.05 * shape(a).length
        for name in a.measurements:
            assert b.measurements[name] == pytest.approx(a.measurements[name], rel=0.02, abs=0.02)


def test_a_region_thinner_than_a_sample_is_still_measured() -> None:
    image = np.full((40, 40), 90, np.uint8)
    image[20, 5:35] = 200
    samples = Samples(array_map(image), 0, 1)
    sliver = shapely.box(5, 20.6, 35, 20.7)
    values = measure(samples, sliver, level=level_of(0.5))
    assert values.mean_probability == pytest.approx(200 / 255)


def test_all_regions_are_measured_as_one_by_one() -> None:
    image, entropy = smooth(8, 90, 90), smooth(9, 90, 90)
    source = array_map(image, block=16, entropy=entropy)
    polygons = np.array([o.geometry for o in extract(source)], dtype=object)
    alone = [measure(Samples(source, 0, 1), p, level=level_of(0.5)) for p in polygons]
    assert measure_all(Samples(source, 0, 1), polygons, level=level_of(0.5)) == alone


def test_regions_say_how_far_predictions_disagree_where_there_are_several() -> None:
    image = np.zeros((60, 60), np.uint8)
    image[10:50, 10:50] = 255
    apart = np.zeros_like(image)
    apart[10:50, 10:30] = 102
    (plain,) = extract(array_map(image, block=16))
    (several,) = extract(array_map(image, block=16, apart=apart))
    assert "Mutual information: mean" not in plain.measurements
    assert several.measurements["Mutual information: mean"] == pytest.approx(0.2, abs=0.005)
    assert several.uuid == plain.uuid


def test_holes_survive_and_specks_do_not() -> None:
    image = np.zeros((2, 90, 90), np.uint8)
    image[0, 10:60, 10:60] = 255
    image[0, 25:45, 25:45] = 0
    image[0, 80, 80] = 255
    (region,) = extract(array_map(image))
    assert len(shape(region).interiors) == 1


@pytest.mark.parametrize(("downsample", "kept"), [(2.0, 0), (100.0, 1)])
def test_one_patch_of_a_coarse_map_is_a_region(downsample: float, kept: int) -> None:
    """Averaged over 2 x 2 pixels, as finer maps are, it would be lost."""
    maps = np.zeros((20, 20), np.uint8)
    maps[6, 8] = 255
    settings = Regions(min_area_um2=0.1, min_hole_um2=0, simplify_um=0.0, contour_downsample=2)
    found = extract(array_map(maps, downsample=downsample), settings=settings)
    assert len(found) == kept
    if kept:
        assert shapely.contains_xy(shape(found[0]), 8.5 * downsample, 6.5 * downsample)
