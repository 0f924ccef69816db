"""Predictions that do not lie where they were made are found at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapely.affinity import affine_transform, translate

from tests.handout.made import SIZE, handed_out, image_of, objects_of, project_of, region, slide
from wsi_pipeline.errors import ProjectError
from wsi_pipeline.handout.frame import check_frame, share_on_tissue
from wsi_pipeline.objects import PathObject
from wsi_pipeline.slides import TissueMask


def half_tissue() -> TissueMask:
    """The left half of the slide is tissue; 10 px of level 0 to a pixel of the mask."""
    mask = np.zeros((SIZE[1] // 10, SIZE[0] // 10), bool)
    mask[:, : SIZE[0] // 20] = True
    return TissueMask(mask, 10.0)


def test_the_share_on_tissue_is_that_of_the_area() -> None:
    inside, outside, across = region("s", 500), region("s", 3500), region("s", 2000, radius=200)
    assert share_on_tissue([inside], half_tissue()) == 1
    assert share_on_tissue([outside], half_tissue()) == 0
    assert share_on_tissue([across], half_tissue()) == pytest.approx(0.5, abs=0.01)
    assert share_on_tissue([], half_tissue()) == 0


def test_what_was_written_well_passes(tmp_path: Path) -> None:
    given = replace(slide(tmp_path), tissue=half_tissue())
    run, result = handed_out(tmp_path, given)
    assert result.problems == []
    check_frame(image_of(project_of(run)), objects_of(run), given.objects, SIZE, half_tissue())


def moved_by(objects: list[PathObject], x: float) -> list[PathObject]:
    return [replace(o, geometry=translate(o.geometry, x, 0)) for o in objects if o.geometry is not None]


def turned(objects: list[PathObject]) -> list[PathObject]:
    """As by an entry that shows the slide turned by 180 degrees."""
    width, height = SIZE
    return [
        replace(o, geometry=affine_transform(o.geometry, (-1, 0, 0, -1, width, height)))
        for o in objects
        if o.geometry is not None
    ]


@pytest.mark.parametrize("shown", [lambda o: moved_by(o, 1000), lambda o: moved_by(o, -2000), turned])
def test_predictions_that_were_shifted_or_turned_are_found(tmp_path: Path, shown: object) -> None:
    given = slide(tmp_path)
    run, _ = handed_out(tmp_path, given)
    now = shown(objects_of(run))  # type: ignore[operator]
    with pytest.raises(ProjectError, match="do not lie on the image as QuPath shows it"):
        check_frame(image_of(project_of(run)), now, given.objects, SIZE, half_tissue())


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    given = replace(slide(tmp_path), mpp_source="config")
    run, _ = handed_out(tmp_path, given)
    image = image_of(project_of(run))
    assert image.size == SIZE
    with pytest.raises(ProjectError, match="4000 x 3000 px"):
        check_frame(image, objects_of(run), given.objects, (SIZE[0], 999), None)


def test_what_a_person_drew_is_not_compared(tmp_path: Path) -> None:
    given = slide(tmp_path)
    run, _ = handed_out(tmp_path, given)
    drawn = replace(region("s1", SIZE[0] + 900), uuid="9" * 8 + "-0000-4000-8000-" + "0" * 12)
    check_frame(image_of(project_of(run)), [*objects_of(run), drawn], given.objects, SIZE, half_tissue())
