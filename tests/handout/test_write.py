"""What a handout leaves on disk, what it never touches, and what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image

from tests.handout.made import (
    RUN_ID,
    SIZE,
    annotations_of,
    brushed,
    files_below,
    handed_out,
    objects_of,
    project_of,
    region,
    save,
    set_state,
    slide,
    tiles,
)
from wsi_pipeline.config import Handout
from wsi_pipeline.files import read_json, sha256_file
from wsi_pipeline.handout import read_plans, snapshot_of
from wsi_pipeline.objects import META_RUN, Kind, PathClass
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.states import EVENTS, MARKER

OTHER_RUN = "fedcba9876543210"


def test_the_project_holds_images_classes_regions_and_tiles(tmp_path: Path) -> None:
    run, result = handed_out(tmp_path, slide(tmp_path, "s1"), slide(tmp_path, "s2", flagged=0))
    project = project_of(run, read_only=True)
    assert (result.images, result.added, result.objects, result.problems) == (2, 2, 8, [])
    assert [i.name for i in project.images()] == ["s1.tif", "s2.tif"]
    assert {i.image_type for i in project.images()} == {"BRIGHTFIELD_H_E"}
    assert [c.name for c in project.path_classes] == ["Tumor", "Stroma", "Necrosis", "Ignore*", "Review"]
    assert all(c.color is not None for c in project.path_classes)
    found = {o.uuid: o for o in objects_of(run)}
    for given in slide(tmp_path, "s1").objects:
        now = found[given.uuid]
        assert (now.kind, now.path_class, now.name) == (given.kind, given.path_class, given.name)
        assert dict(now.measurements) == pytest.approx(dict(given.measurements))
        assert dict(now.metadata) == dict(given.metadata)
        assert shapely.hausdorff_distance(now.geometry, given.geometry) < 0.05


def test_each_image_says_whose_it_is_and_sorts_by_what_there_is_to_look_at(tmp_path: Path) -> None:
    few, many = slide(tmp_path, "few", flagged=1), replace(slide(tmp_path, "many", flagged=6), flags=["mostly glass"])
    run, _ = handed_out(tmp_path, few, many)
    project = project_of(run, read_only=True)
    words = {i.metadata["wsi_slide_id"]: dict(i.metadata) for i in project.images()}
    assert words["few"] | {"wsi_priority": ""} == {
        "wsi_slide_id": "few",
        "wsi_state": "todo",
        "wsi_batch": "batch-1",
        "wsi_rater": "rater-1",
        "wsi_arm": "assisted",
        "wsi_priority": "",
    }
    assert words["many"]["wsi_flags"] == "mostly glass"
    assert words["many"]["wsi_priority"] < words["few"]["wsi_priority"]


def test_the_thumbnail_is_the_one_of_the_slide(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    with Image.open(run.project.parent / "data" / "1" / "thumbnail.jpg") as image:
        assert image.size == (40, 30)
        assert abs(float(np.asarray(image).mean()) - 230) < 2


def test_what_was_handed_out_is_kept_beside_the_project(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    (plan,) = read_plans(run)
    (entry,) = plan.slides
    assert (plan.batch, plan.rater, plan.arm, plan.project) == (
        "batch-1",
        "rater-1",
        "assisted",
        "project/project.qpproj",
    )
    assert (entry.slide_id, entry.entry_id, entry.run_id, entry.patient) == ("s1", 1, RUN_ID, "P-s1")
    assert entry.complete
    path = run.handout / "batch-1" / entry.snapshot
    assert sha256_file(path) == entry.sha256
    assert {o.uuid for o in read_geojson(path)} == {o.uuid for o in slide(tmp_path).objects}


def test_the_scripts_wake_up_in_this_project_and_the_key_card_lies_in_it(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    folder = run.project.parent
    marker = read_json(folder / MARKER)
    assert (marker["schema"], marker["batch"], marker["rater"], marker["run_id"]) == (1, "batch-1", "rater-1", RUN_ID)
    assert (folder / EVENTS).is_dir()
    card = (folder / "HOW_TO_REVIEW.md").read_text()
    # What people stumble over first: locked regions, taking away, saving.
    for word in ("locked", "Alt", "Ctrl+S", "Ignore", "reviewed"):
        assert word in card
    assert {p.name for p in (folder / "scripts").iterdir()} >= {"wsi_review.groovy", "wsi_event_log.groovy"}


def test_two_outputs_of_the_same_input_are_equal(tmp_path: Path) -> None:
    outputs = []
    for name in ("a", "b"):
        run, _ = handed_out(tmp_path / name, replace(slide(tmp_path), uri="/slides/s1.tif"))
        files = files_below(run.root)
        # The project says when it was made.
        for path in [p for p in files if p.endswith((".qpproj", ".qpproj.backup", "summary.json"))]:
            del files[path]
        # The log of what was done says when.
        outputs.append({name: data for name, data in files.items() if not name.startswith("audit.")})
    assert outputs[0] == outputs[1]


def test_a_newer_model_replaces_only_what_nobody_touched(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    a, b, c = annotations_of(run)
    edited = brushed(a)
    save(run, [edited, c, *tiles("s1", 2)])
    newer = slide(tmp_path, run_id=OTHER_RUN, regions=[region("s1", x, run_id=OTHER_RUN) for x in (1900, 2500)])
    _, result = handed_out(tmp_path, newer)
    now = {o.uuid: o for o in annotations_of(run)}
    new = {o.uuid for o in newer.objects if o.kind is Kind.ANNOTATION}
    # a was edited and stays, b was deleted and stays away, c was left alone and makes room.
    assert set(now) == {a.uuid} | new
    assert shapely.hausdorff_distance(now[a.uuid].geometry, edited.geometry) < 0.05
    assert {o.metadata.get(META_RUN) for o in objects_of(run) if o.kind is Kind.TILE} == {OTHER_RUN}
    # c and both tiles.
    assert result.replaced == 3
    assert any("1 predictions that a person touched were kept" in text for text in result.warnings)
    (plan,) = read_plans(run)
    handed = {o.uuid for o in snapshot_of(run, plan, plan.slides[0])}
    assert handed == {a.uuid, b.uuid} | {o.uuid for o in newer.objects}


def test_a_reviewed_image_keeps_what_was_reviewed(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    set_state(run, "reviewed")
    before = files_below(run.root)
    _, result = handed_out(tmp_path, slide(tmp_path, run_id=OTHER_RUN))
    assert files_below(run.root) == before
    assert "is reviewed already" in result.warnings[0]


def test_snapshots_of_older_models_stay(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    folder = run.handout / "batch-1" / "snapshot"
    first = files_below(folder)
    handed_out(tmp_path, slide(tmp_path, run_id=OTHER_RUN))
    save(run, [brushed(o) for o in annotations_of(run)])
    # Back to the first model: the same key, but what the person touched is in the snapshot, too.
    handed_out(tmp_path)
    after = files_below(folder)
    assert len(after) == 3
    assert first.items() <= after.items()


def test_predictions_that_changed_within_a_recipe_are_renewed(tmp_path: Path) -> None:
    # Blocks that had failed were computed after all: same recipe, one region more.
    run, _ = handed_out(tmp_path)
    more = [region("s1", x) for x in (500, 1200, 1900, 2600)]
    _, result = handed_out(tmp_path, slide(tmp_path, regions=more))
    assert {o.uuid for o in annotations_of(run)} == {o.uuid for o in more}
    assert result.objects == 6


def test_classes_that_a_person_recoloured_or_added_stay(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    project = project_of(run)
    project.path_classes = [PathClass("Mine", (1, 2, 3)), PathClass("Tumor", (9, 9, 9)), *project.path_classes[1:]]
    project.save()
    handed_out(tmp_path)
    classes = {c.name: c.color for c in project_of(run).path_classes}
    assert (classes["Mine"], classes["Tumor"]) == ((1, 2, 3), (9, 9, 9))


def test_a_mapped_slide_is_named_as_the_pathologist_sees_it(tmp_path: Path) -> None:
    rules = {"s3://bucket/": "file:///Z:/slides/", "s3://bucket/old/": "file:///Y:/"}
    settings = Handout(backend="native", slide_uris=rules)
    slides = [
        replace(slide(tmp_path, "new"), uri="s3://bucket/a b.tif"),
        replace(slide(tmp_path, "old"), uri="s3://bucket/old/c.tif"),
    ]
    run, result = handed_out(tmp_path, *slides, settings=settings)
    assert result.problems == []
    uris = [image.uri for image in project_of(run).images()]
    assert uris == ["file:///Z:/slides/a%20b.tif", "file:///Y:/c.tif"]


def test_a_slide_that_fails_does_not_keep_the_others_back(tmp_path: Path) -> None:
    outside = replace(slide(tmp_path, "bad"), objects=[region("bad", SIZE[0] + 500)])
    run, result = handed_out(tmp_path, outside, slide(tmp_path, "s1"))
    assert len(result.problems) == 1
    assert "do not lie on the image" in result.problems[0]
    assert len(annotations_of(run, "s1")) == 3


def test_what_is_too_much_for_quPath_is_said_and_handed_out_all_the_same(tmp_path: Path) -> None:
    many = [region("s1", 100 + 7 * (i % 500), 100 + 20 * (i // 500), radius=2) for i in range(501)]
    run, result = handed_out(tmp_path, slide(tmp_path, "s1", regions=many))
    assert any(text.startswith("s1: 501 annotations (above 500)") for text in result.warnings)
    assert result.problems == []
    assert len(annotations_of(run)) == 501


def test_a_slide_that_is_refused_leaves_no_trace_in_the_plan(tmp_path: Path) -> None:
    remote = replace(slide(tmp_path, "far"), uri="s3://bucket/far.tif")
    run, result = handed_out(tmp_path, remote, slide(tmp_path, "s1"))
    assert [p for p in result.problems if p.startswith("far: ")]
    assert [s.slide_id for s in read_plans(run)[0].slides] == ["s1"]
