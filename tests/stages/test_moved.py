"""Slides and run at another place than where the run began: found out before a slide is done a second time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stages.made import files_of, record_of, run_of, small_slide, write_config
from wsi_pipeline.cohort import load_cohort, slide_id_of
from wsi_pipeline.config import load_config
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.files import read_json
from wsi_pipeline.stages.collect import collect_run
from wsi_pipeline.stages.handout import hand_out_run
from wsi_pipeline.stages.moved import refuse_moved
from wsi_pipeline.stages.predict import predict_cohort
from wsi_pipeline.stages.state import RunRecord, SlideRecord

NATIVE = {"backend": "native"}


@pytest.fixture
def moved(tmp_path: Path) -> tuple[Path, Path]:
    """The folder of a run that was handed out, before and after it was moved with its slides."""
    before, now = tmp_path / "before", tmp_path / "now"
    for name, seed in (("one/1.tif", 1), ("two/1.tif", 2)):
        (before / name).parent.mkdir(parents=True)
        small_slide(before / name, width=500, height=400, seed=seed)
    config = load_config(write_config(before, ["one/*.tif", "two/*.tif"], handout=NATIVE))
    assert predict_cohort(config).done == 2
    hand_out_run(config)
    before.rename(now)
    return before, now


def test_moved_slides_are_refused_until_the_configuration_says_so_and_then_nothing_is_new(
    moved: tuple[Path, Path],
) -> None:
    before, now = moved
    path = now / "wsi.yaml"
    files = files_of(run_of(path))
    with pytest.raises(ConfigError) as refused:
        predict_cohort(load_config(path))
    assert f'`moved: {{"{before}": "{now}"}}` under `cohort`' in str(refused.value)
    assert files_of(run_of(path)) == files, "found out before anything was written"
    ids = set(record_of(path)["slides"])

    said = load_config(
        write_config(now, ["one/*.tif", "two/*.tif"], handout=NATIVE, cohort={"moved": {str(before): str(now)}})
    )
    assert predict_cohort(said).done == 2
    assert set(record_of(path)["slides"]) == ids
    assert {s["uri"] for s in record_of(path)["slides"].values()} == {str(now / f"{n}/1.tif") for n in ("one", "two")}
    result = hand_out_run(said)
    assert result.problems == []
    assert collect_run(said).alarms == ()
    after = files_of(run_of(path))
    regions = [name for name in files if name.endswith("regions.geojson")]
    assert len(regions) == 2
    assert all(after[name] == files[name] for name in (*regions, "project/project.qpproj"))


def test_a_run_that_was_tried_where_no_slide_is_still_knows_them_by_its_handout(moved: tuple[Path, Path]) -> None:
    before, now = moved
    nowhere = load_config(write_config(now, ["nowhere/*.tif"], handout=NATIVE))
    assert predict_cohort(nowhere).done == 0
    with pytest.raises(ConfigError, match=r"lay at .* when this run began"):
        predict_cohort(load_config(write_config(now, ["one/*.tif", "two/*.tif"], handout=NATIVE)))
    assert str(before) in str(read_json(run_of(now / "wsi.yaml").handout / "batch-1" / "plan.json"))


def test_other_slides_of_the_same_name_are_new_ones_where_that_is_said(moved: tuple[Path, Path]) -> None:
    _, now = moved
    config = load_config(write_config(now, ["one/*.tif"], handout=NATIVE, cohort={"moved": {}}))
    (ref,) = load_cohort(config).slides
    assert predict_cohort(config).done == 1
    assert set(record_of(now / "wsi.yaml")["slides"]) == {ref.slide_id}


def test_a_slide_that_is_added_or_taken_out_was_not_moved(tmp_path: Path) -> None:
    first = small_slide(tmp_path / "1.tif", width=500, height=400)
    second = small_slide(tmp_path / "2.tif", width=500, height=400, seed=4)
    for slides in ([first], [first, second], [second]):
        assert predict_cohort(load_config(write_config(tmp_path, slides))).done == len(slides)


def test_many_slides_of_one_name_that_were_moved_are_found_by_their_folders(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / "now" / f"p{number}").mkdir(parents=True)
        (tmp_path / "now" / f"p{number}" / "slide.tif").touch()
    path = write_config(tmp_path, ["now/*/slide.tif"])
    cohort = load_cohort(load_config(path))
    before = [ref.uri.replace(f"{tmp_path}/now", f"{tmp_path}/before") for ref in cohort.slides]
    record = RunRecord(
        run_id="r", config={}, versions={}, model={}, runtime={},
        slides={slide_id_of(uri): SlideRecord(state="done", uri=uri, name="slide.tif") for uri in before},
    )  # fmt: skip
    run = run_of(path)
    run.root.mkdir()
    record.write(run.run_json)
    with pytest.raises(ConfigError) as refused:
        refuse_moved(run, load_config(path), cohort)
    assert f'{{"{tmp_path}/before": "{tmp_path}/now"}}' in str(refused.value)
