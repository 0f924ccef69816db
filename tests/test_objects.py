"""The vocabulary: ids that repeat, errors that say what to do."""

from __future__ import annotations

import uuid

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.errors import MppMissing, SlideNotFound, SlideTooCoarse, SlideUnreadable, WsiError
from wsi_pipeline.objects import DEFAULT_PLANE, Kind, PathClass, PathObject, object_uuid
from wsi_pipeline.states import ImageState

SQUARE = shapely.box(0, 0, 1, 1)


@given(run=st.text(max_size=8), slide=st.text(max_size=8), label=st.text(max_size=8))
def test_the_same_object_has_the_same_uuid(run: str, slide: str, label: str) -> None:
    first = object_uuid(run, slide, label, SQUARE)
    assert first == object_uuid(run, slide, label, shapely.reverse(SQUARE))
    assert uuid.UUID(first).version == 5


def test_another_run_slide_label_or_shape_has_another_uuid() -> None:
    ids = {
        object_uuid("r", "s", "l", SQUARE),
        object_uuid("R", "s", "l", SQUARE),
        object_uuid("r", "S", "l", SQUARE),
        object_uuid("r", "s", "L", SQUARE),
        object_uuid("r", "s", "l", shapely.box(0, 0, 1, 2)),
    }
    assert len(ids) == 5


def test_a_derived_class_knows_its_parts() -> None:
    assert PathClass("Tumor: Positive").parts == ("Tumor", "Positive")
    assert PathClass("A:B").parts == ("A:B",)


def test_an_object_is_plain_unless_told() -> None:
    plain = PathObject(uuid="u", kind=Kind.ANNOTATION, geometry=SQUARE)
    assert plain.plane == DEFAULT_PLANE == (-1, 0, 0)
    assert not plain.locked
    assert plain.path_class is None
    with pytest.raises(AttributeError):
        plain.locked = True  # type: ignore[misc]


@pytest.mark.parametrize("state", list(ImageState))
def test_only_a_finished_review_accepts_what_it_left_alone(state: ImageState) -> None:
    assert state.is_reviewed == (state.value in {"reviewed", "adjudicated", "locked"})


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (MppMissing("s.svs", 896.0), ValueError),
        (MppMissing("s.svs", None), ValueError),
        (SlideTooCoarse("s.svs", 28.97, 0.5), ValueError),
        (SlideNotFound("s.svs", "there is no such file", "check the path"), FileNotFoundError),
        (SlideUnreadable("s.svs", "is empty", "copy it again"), ValueError),
    ],
)
def test_an_error_names_slide_cause_and_remedy_in_one_line(error: WsiError, builtin: type[Exception]) -> None:
    assert isinstance(error, builtin)
    text = str(error)
    assert text.startswith("s.svs: ")
    assert "; " in text
    assert "\n" not in text
