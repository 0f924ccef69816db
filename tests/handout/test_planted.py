"""Planted errors: one for each image, the same for the same seed, and nothing of them is left when collected."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.handout.made import RUN_ID, SIZE, region, tiles
from wsi_pipeline.config import Planting
from wsi_pipeline.handout import PlantedObjects, plant, repaired
from wsi_pipeline.objects import Kind, PathObject

OBJECTS = [region("s1", 500), region("s1", 1200), *tiles("s1", 2)]
KINDS: tuple[Planting, ...] = ("missing", "fake", "boundary", "class")


def planted(kind: Planting, seed: str = "1") -> tuple[list[PathObject], PlantedObjects]:
    objects, error = plant(
        OBJECTS, kind, seed=seed, run_id=RUN_ID, slide_id="s1", size=SIZE, classes=["Tumor", "Stroma"]
    )
    assert error is not None
    return objects, error


def regions(objects: list[PathObject]) -> list[PathObject]:
    return [o for o in objects if o.kind is Kind.ANNOTATION]


@given(st.sampled_from(KINDS), st.text(max_size=5))
@settings(deadline=None, max_examples=60)
def test_what_is_left_alone_is_repaired_to_what_the_model_said(kind: Planting, seed: str) -> None:
    objects, error = planted(kind, seed)
    assert (objects, error) == planted(kind, seed)
    assert objects != OBJECTS
    kept, caught = repaired(regions(objects), error, untouched=error.planted is not None)
    assert not caught
    assert {o.uuid: o for o in kept} == {o.uuid: o for o in regions(OBJECTS)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_does_not_give_itself_away(kind: Planting) -> None:
    objects, error = planted(kind)
    assert error.kind == kind
    like = OBJECTS[0]
    assert all(o.metadata == like.metadata and set(o.measurements) == set(like.measurements) for o in regions(objects))


def test_a_made_up_region_lies_on_the_slide_and_on_no_other() -> None:
    _, error = planted("fake")
    assert error.planted is not None
    assert error.planted.geometry is not None
    x, y, right, bottom = error.planted.geometry.bounds
    assert x >= 0 and y >= 0 and right <= SIZE[0] and bottom <= SIZE[1]  # noqa: PT018 - one box
    assert not any(error.planted.geometry.intersects(o.geometry) for o in regions(OBJECTS))


def test_what_a_person_changed_or_drew_is_the_persons() -> None:
    objects, error = planted("boundary")
    assert repaired(regions(objects), error, untouched=False) == (regions(objects), True)
    objects, error = planted("missing")
    assert error.true is not None
    drawn = replace(error.true, uuid="22222222-2222-4222-8222-222222222222")
    assert repaired([*regions(objects), drawn], error, untouched=False) == ([*regions(objects), drawn], True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_without_regions_gets_no_error(kind: Planting) -> None:
    found = plant(tiles("s1", 1), kind, seed="1", run_id=RUN_ID, slide_id="s1", size=SIZE, classes=["Tumor", "Stroma"])
    assert found == (tiles("s1", 1), None)
