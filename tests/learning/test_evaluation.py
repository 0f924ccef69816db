from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from tests.learning.made import CLASSES, MPP, PINK, VIOLET, annotation, trained_card, write_slide
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.learning.evaluation import count, evaluate, score_regions
from wsi_pipeline.learning.labels import UNKNOWN, AnnotatedSlide
from wsi_pipeline.learning.scores import Overlap, SlideScore
from wsi_pipeline.models import Maps, ModelCard, load_segmenter


@dataclass
class NearerToViolet:
    """Marks what is nearer to violet than to pink: a perfect model of the made slides."""

    card: ModelCard
    runtime: str = "numpy"

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        d = self.card.output_downsample
        values = images[:, d // 2 :: d, d // 2 :: d].astype(int)
        distances = [np.abs(values - color).sum(axis=-1) for color in (VIOLET, PINK)]
        marked = ((distances[0] < distances[1]) * 255).astype(np.uint8)
        return Maps(marked[:, None], np.zeros_like(marked))


def model(**changes: Any) -> NearerToViolet:
    return NearerToViolet(ModelCard.model_validate({**trained_card("m").dump(), "mpp": 2 * MPP, **changes}))


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> tuple[SlideRef, BaseGeometry]:
    path = tmp_path_factory.mktemp("slides") / "a.tif"
    return SlideRef("a", str(path), "a.tif", patient="p"), write_slide(path)


def only(segmenter: NearerToViolet, *slides: AnnotatedSlide) -> SlideScore:
    (found,) = evaluate(segmenter, slides)
    return found


def test_a_perfect_model_is_perfect_up_to_the_outline(disc: tuple[SlideRef, BaseGeometry]) -> None:
    ref, truth = disc
    found = only(model(), AnnotatedSlide(ref, (annotation("Tumor", truth),)))
    overlap = found.classes["Tumor"]
    assert overlap.dice is not None
    assert overlap.dice > 0.995
    assert overlap.truth == pytest.approx(truth.area * MPP**2, rel=0.005)
    assert (found.slide_id, found.group) == ("a", "p")


@pytest.mark.parametrize("changes", [{"output_downsample": 4}, {"halo": 0}, {"mpp": 3.3 * MPP}, {"mpp": MPP}])
def test_coarse_maps_other_halos_and_other_resolutions_give_the_same_areas(
    changes: dict[str, Any], disc: tuple[SlideRef, BaseGeometry]
) -> None:
    ref, truth = disc
    found = only(model(**changes), AnnotatedSlide(ref, (annotation("Tumor", truth),)))
    assert found.classes["Tumor"].dice == pytest.approx(1, abs=0.02)
    assert found.classes["Tumor"].truth == pytest.approx(truth.area * MPP**2, rel=0.01)


@pytest.mark.parametrize("shift", [0, 60, 150])
def test_pixels_and_areas_agree(shift: float, disc: tuple[SlideRef, BaseGeometry]) -> None:
    ref, truth = disc
    annotated = AnnotatedSlide(ref, (annotation("Tumor", translate(truth, shift, 0)),), reviewed=box(0, 0, 1000, 600))
    pixels = only(model(), annotated).classes["Tumor"]
    regions = score_regions(annotated, [annotation("Tumor", truth)], mpp=MPP, classes=["Tumor"]).classes["Tumor"]
    scale = regions.truth
    for name in ("hit", "wrong", "missed"):
        assert getattr(pixels, name) / scale == pytest.approx(getattr(regions, name) / scale, abs=0.006)


def test_what_is_annotated_on_glass_counts_as_missed(disc: tuple[SlideRef, BaseGeometry]) -> None:
    ref, truth = disc
    on_glass = box(900, 900, 1000, 1000)
    found = only(model(), AnnotatedSlide(ref, (annotation("Tumor", truth), annotation("Tumor", on_glass))))
    assert found.classes["Tumor"].missed == pytest.approx(on_glass.area * MPP**2, rel=0.2)


def test_only_known_area_is_counted(disc: tuple[SlideRef, BaseGeometry]) -> None:
    ref, truth = disc
    annotated = AnnotatedSlide(
        ref, (annotation("Tumor", truth), annotation("Ignore*", box(0, 0, 500, 1000))), reviewed=box(0, 0, 1000, 500)
    )
    found = only(model(), annotated)
    quarter = truth.intersection(box(500, 0, 1000, 500))
    assert found.classes["Tumor"].hit == pytest.approx(quarter.area * MPP**2, rel=0.02)
    assert found.area_um2 <= 500 * 500 * MPP**2


def test_the_baseline_is_scored_like_any_model(disc: tuple[SlideRef, BaseGeometry]) -> None:
    ref, truth = disc
    baseline = load_segmenter("baseline:stain-density?class=Tumor&radius_um=3")
    (found,) = evaluate(baseline, [AnnotatedSlide(ref, (annotation("Tumor", truth),))])
    assert found.mean_dice is not None
    assert found.mean_dice > 0.9


labels = st.sampled_from([0, 1, UNKNOWN])


@given(st.lists(st.tuples(st.integers(0, 255), labels), min_size=1, max_size=60), st.floats(0.01, 1))
def test_counts_add_up(pixels: list[tuple[int, int]], threshold: float) -> None:
    probability = np.array([p for p, _ in pixels], dtype=np.uint8).reshape(1, 1, -1)
    there = np.array([label for _, label in pixels], dtype=np.uint8).reshape(1, -1)
    ((hit, wrong, missed),) = count(probability, there, CLASSES, threshold)
    assert hit + missed == sum(label == 1 for _, label in pixels)
    assert hit + wrong == sum(label != UNKNOWN and p >= 255 * threshold for p, label in pixels)


areas = st.just(0.0) | st.floats(1e-6, 1e9)


@given(areas, areas, areas)
def test_ratios_are_their_definitions(hit: float, wrong: float, missed: float) -> None:
    overlap = Overlap(hit, wrong, missed)
    if hit + wrong + missed > 0:
        assert overlap.iou is not None
        assert overlap.dice == pytest.approx(2 * overlap.iou / (1 + overlap.iou))
    else:
        assert (overlap.dice, overlap.iou) == (None, None)
    if hit > 0:
        assert overlap.precision is not None
        assert overlap.recall is not None
        assert overlap.dice == pytest.approx(
            2 * overlap.precision * overlap.recall / (overlap.precision + overlap.recall)
        )
    assert overlap + overlap == Overlap(2 * hit, 2 * wrong, 2 * missed)


def test_regions_that_overlap_each_other_count_once() -> None:
    annotated = AnnotatedSlide(SlideRef("a", "a", "a"), (annotation("Tumor", box(0, 0, 10, 10)),))
    twice = [annotation("Tumor", box(0, 0, 10, 10)), annotation("Tumor", box(0, 0, 10, 5))]
    found = score_regions(annotated, twice, mpp=2, classes=["Tumor", "Stroma"])
    assert found.classes["Tumor"] == Overlap(hit=400.0)
    assert found.classes["Stroma"] == Overlap()
    assert found.mean_dice == 1
    assert math.isnan(found.area_um2)


def test_a_bow_tie_does_not_stop_the_score() -> None:
    bow_tie = annotation("Tumor", box(0, 0, 1, 1).__class__([(0, 0), (10, 10), (10, 0), (0, 10)]))
    annotated = AnnotatedSlide(SlideRef("a", "a", "a"), (bow_tie,))
    found = score_regions(annotated, [annotation("Tumor", box(0, 0, 10, 10))], mpp=1, classes=["Tumor"])
    assert found.classes["Tumor"].hit == pytest.approx(50)


def test_a_score_is_json(tmp_path: Path) -> None:
    score = SlideScore("a", "p", 10.0, {"Tumor": Overlap(1, 1, 2)})
    raw = json.loads(json.dumps(score.to_json()))
    assert raw["classes"]["Tumor"]["dice"] == pytest.approx(2 / 5)
    assert raw["source"] == "measured"
