"""More slides than one project should hold: further batches of the same rater, by themselves."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.handout.made import CLASSES, COSTS, REVIEW, SETTINGS, files_below, region, slide
from wsi_pipeline.collect import collect
from wsi_pipeline.errors import ProjectError
from wsi_pipeline.handout import HandoutResult, HandoutSlide, Plan, batches_alone, read_plans
from wsi_pipeline.handout.plan import HandedOutSlide
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.handout import hand_out_alone

PAIRS = SETTINGS.model_copy(update={"batch_size": 2})


def cohort(folder: Path, count: int) -> list[HandoutSlide]:
    return [slide(folder, f"s{i}") for i in range(1, count + 1)]


def give(folder: Path, slides: list[HandoutSlide]) -> tuple[RunDir, HandoutResult]:
    run = RunDir(folder / "run")
    return run, hand_out_alone(run, PAIRS, CLASSES, slides)


def names(project: Path) -> list[str]:
    return [image.name for image in NativeProject.open(project, read_only=True).images()]


def test_a_second_batch_is_made_where_the_first_is_full(tmp_path: Path) -> None:
    run, result = give(tmp_path, cohort(tmp_path, 5))
    others = [run.root / f"projects/batch-{n}-{PAIRS.rater}/project.qpproj" for n in (2, 3)]
    assert result.problems == []
    assert result.projects == [run.project, *others]
    assert (result.images, result.added) == (5, 5)
    assert [names(p) for p in result.projects] == [["s1.tif", "s2.tif"], ["s3.tif", "s4.tif"], ["s5.tif"]]
    assert all((p.parent / "HOW_TO_REVIEW.md").is_file() for p in result.projects)
    assert {(plan.batch, len(plan.slides)) for plan in read_plans(run)} == {
        ("batch-1", 2),
        ("batch-2", 2),
        ("batch-3", 1),
    }
    metrics = collect(run, REVIEW, COSTS).metrics
    assert set(metrics["slides"]) == {"s1", "s2", "s3", "s4", "s5"}


def test_handing_out_again_changes_no_byte_and_new_slides_fill_the_last_batch(tmp_path: Path) -> None:
    run, _ = give(tmp_path, cohort(tmp_path, 3))
    before = files_below(run.root)
    _, result = give(tmp_path, cohort(tmp_path, 3))
    assert result.warnings == []
    assert files_below(run.root) == before
    # A slide that comes first in the cohort moves no other one.
    _, result = give(tmp_path, [slide(tmp_path, "s0"), slide(tmp_path, "s9"), *cohort(tmp_path, 3)])
    assert [names(p) for p in result.projects] == [["s1.tif", "s2.tif"], ["s3.tif", "s0.tif"], ["s9.tif"]]
    assert files_below(run.project.parent).keys() == {
        name.removeprefix("project/") for name in before if name.startswith("project/")
    }


def test_a_single_batch_is_the_project_as_ever(tmp_path: Path) -> None:
    run, result = give(tmp_path, cohort(tmp_path, 2))
    assert (result.project, result.projects) == (run.project, [run.project])
    assert not (run.root / "projects").exists()


def test_what_is_too_much_is_said_of_every_batch_before_the_first_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    said: list[str] = []
    create = NativeProject.create

    def creating(path: Path) -> NativeProject:
        said.append(caplog.text)
        return create(path)

    monkeypatch.setattr(NativeProject, "create", creating)
    many = [region("s3", 100 + 7 * (i % 500), 100 + 20 * (i // 500), radius=2) for i in range(501)]
    _, result = give(tmp_path, [*cohort(tmp_path, 2), slide(tmp_path, "s3", regions=many)])
    assert "s3: 501 annotations" in said[0]
    assert caplog.text.count("s3: 501 annotations") == 1
    assert list(result.budget) == ["s3"]


def test_a_batch_of_somebody_else_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run, _ = give(tmp_path, cohort(tmp_path, 3))
    before = files_below(run.root)
    other = PAIRS.model_copy(update={"rater": "somebody-else"})
    with pytest.raises(ProjectError, match="a project never changes hands"):
        hand_out_alone(run, other, CLASSES, cohort(tmp_path, 4))
    assert files_below(run.root) == before


def plan_of(number: int, slides: list[str]) -> Plan:
    known = tuple(
        HandedOutSlide(
            slide_id=s,
            name=s,
            uri=s,
            width=1,
            height=1,
            mpp=1,
            run_id="r",
            key="k",
            snapshot="x",
            sha256="y",
            objects=0,
        )
        for s in slides
    )
    return Plan(batch=f"batch-{number}", rater="anna", project=f"p{number}/project.qpproj", slides=known)


@given(counts=st.lists(st.integers(1, 6), max_size=4), new=st.integers(0, 12), size=st.integers(1, 5))
def test_every_slide_is_in_one_batch_and_none_is_filled_beyond_its_size(counts: list[int], new: int, size: int) -> None:
    plans = [plan_of(n, [f"{n}-{i}" for i in range(count)]) for n, count in enumerate(counts, start=1)]
    base = slide(Path("/"), "x", flagged=0, regions=[])
    known = [replace(base, slide_id=s.slide_id) for plan in plans for s in plan.slides]
    fresh = [replace(base, slide_id=f"new-{i}") for i in range(new)]
    batches = batches_alone([*fresh, *known], plans, "anna", size)
    found = [s.slide_id for _, _, own in batches for s in own]
    assert sorted(found) == sorted(s.slide_id for s in (*fresh, *known))
    for number, project, own in batches:
        before = counts[number - 1] if number <= len(counts) else 0
        assert len(own) <= max(before, size)
        assert {s.slide_id for s in own} >= {f"{number}-{i}" for i in range(before)}
        if number <= len(counts):
            assert project == f"p{number}/project.qpproj"
