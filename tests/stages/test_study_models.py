"""A study with a newer model: what nobody touched is replaced in every project; and the example configuration runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.stages.made import small_slide, write_config
from wsi_pipeline.config import Config, load_config
from wsi_pipeline.files import read_json
from wsi_pipeline.handout import Plan, budget, read_plans
from wsi_pipeline.objects import META_RUN, Kind
from wsi_pipeline.qupath.native_project import NativeImage, NativeProject
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.collect import collect_run
from wsi_pipeline.stages.handout import hand_out_run
from wsi_pipeline.stages.predict import predict_cohort
from wsi_pipeline.states import META_SLIDE, META_STATE

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "configs" / "study.yaml"


def configured(folder: Path, slides: list[Path], min_area_um2: float) -> Config:
    handout = {"backend": "native", "raters": ["anna", "ben"], "arms": ["assisted"]}
    return load_config(write_config(folder, slides, handout=handout, regions={"min_area_um2": min_area_um2}))


def image_of(project: NativeProject, plan: Plan, slide_id: str) -> NativeImage:
    handed = plan.slide(slide_id)
    assert handed is not None
    return next(image for image in project.images() if image.metadata[META_SLIDE] == handed.tag)


def test_a_newer_model_replaces_what_nobody_touched_in_every_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = [small_slide(tmp_path / f"{name}.tif", mpp=0.5, seed=i) for i, name in enumerate("abc")]
    config = configured(tmp_path, slides, 500)
    predict_cohort(config)
    # So little is allowed that every image is above it.
    monkeypatch.setattr(budget, "MOST_ANNOTATIONS", 0)
    hand_out_run(config)
    run = RunDir(config.output)
    told = read_json(run.run_json)["handout"]["over_budget"]
    plans = read_plans(run)
    assert {plan.rater for plan in plans} == {"anna", "ben"}
    assert set(told) == {slide.slide_id for plan in plans for slide in plan.slides}
    first, second = plans
    deleted, done = (slide.slide_id for slide in first.slides[:2])

    # Anna deletes a region of one slide and says that another one is reviewed; Ben does nothing.
    project = NativeProject.open(run.root / first.project)
    image = image_of(project, first, deleted)
    objects = image.read_objects()
    gone = next(o for o in objects if o.kind is Kind.ANNOTATION)
    project.save_objects(image, [o for o in objects if o is not gone])
    project.set_metadata(image_of(project, first, done), {META_STATE: "reviewed"})
    project.save()
    reviewed = {o.uuid for o in image_of(project, first, done).read_objects()}

    newer = configured(tmp_path, slides, 501)
    predict_cohort(newer)
    result = hand_out_run(newer)
    assert result.problems == []
    (run_id,) = {slide.run_id for slide in read_plans(run)[1].slides}
    assert run_id not in {slide.run_id for plan in plans for slide in plan.slides}
    kept = NativeProject.open(run.root / first.project, read_only=True)
    assert {o.uuid for o in image_of(kept, first, done).read_objects()} == reviewed
    again = image_of(kept, first, deleted).read_objects()
    centre = gone.geometry.representative_point() if gone.geometry else None
    assert not any(o.kind is Kind.ANNOTATION and o.geometry is not None and o.geometry.covers(centre) for o in again)
    for plan, skipped in ((first, {deleted, done}), (second, set())):
        there = NativeProject.open(run.root / plan.project, read_only=True)
        for slide in plan.slides:
            if slide.slide_id not in skipped:
                found = image_of(there, plan, slide.slide_id).read_objects()
                assert {o.metadata.get(META_RUN) for o in found if o.kind is Kind.ANNOTATION} == {run_id}


def test_the_example_of_a_study_runs_as_it_is(tmp_path: Path) -> None:
    slides = tmp_path / "build" / "demo" / "demo" / "slides"
    slides.mkdir(parents=True)
    for i in range(3):
        small_slide(slides / f"{i}.tif", mpp=0.5, seed=i)
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "study.yaml"
    path.write_text(EXAMPLE.read_text())
    config = load_config(path)
    assert config.output == tmp_path / "build" / "study"
    predict_cohort(config)
    result = hand_out_run(config)
    assert result.problems == []
    assert {p.parent.name for p in result.projects} == {"batch-1-rater-a", "batch-1-rater-b"}
    assert all("14 days" in line or "wash" in line for line in result.waiting)
    metrics = collect_run(config).metrics
    assert metrics["alarms"] == []
    assert {image["rater"] for image in metrics["images"]} == set(
        yaml.safe_load(EXAMPLE.read_text())["handout"]["raters"]
    )
    assert metrics["planted"]["status"] == "not measured"
