"""Handing out: killed anywhere, called again, with a newer model: nothing of a person's is touched or forgotten."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from shapely import Point, Polygon, box

from wsi_pipeline.config import Handout
from wsi_pipeline.errors import ProjectError, StoreError
from wsi_pipeline.handout import HandoutResult, HandoutSlide, hand_out, over_budget, read_plan, read_plans, snapshot_of
from wsi_pipeline.handout.plan import plan_path
from wsi_pipeline.handout.write import seen_by_the_rater
from wsi_pipeline.objects import META_RUN, Kind, PathClass, PathObject, object_uuid
from wsi_pipeline.qupath.native_project import NativeImage, NativeProject
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import EVENTS, MARKER, META_FLAGS, META_SLIDE, META_STATE, REVIEW_CLASS

CLASSES = [PathClass("Tumor", (200, 0, 0))]
SETTINGS = Handout(backend="native", classes=("Stroma",))


def region(x: float, *, run_id: str = "run-1", slide: str = "s1") -> PathObject:
    shape = Point(x, 500).buffer(80)
    return PathObject(
        object_uuid(run_id, slide, "Tumor", shape), Kind.ANNOTATION, shape, "Tumor", metadata={META_RUN: run_id}
    )


def tile(x: float, *, run_id: str = "run-1") -> PathObject:
    shape = box(x, 0, x + 100, 100)
    return PathObject(
        object_uuid(run_id, "s1", "tile", shape), Kind.TILE, shape, REVIEW_CLASS, metadata={META_RUN: run_id}
    )


def slide(name: str = "s1", *, run_id: str = "run-1", objects: Sequence[PathObject] | None = None) -> HandoutSlide:
    return HandoutSlide(
        slide_id=name,
        name=f"{name}.tif",
        uri=f"/slides/{name}.tif",
        size=(4000, 1000),
        mpp=0.5,
        mpp_source="file",
        levels=(),
        crop=None,
        patient="P1",
        run_id=run_id,
        objects=[region(200, run_id=run_id, slide=name), region(700, run_id=run_id, slide=name), tile(0, run_id=run_id)]
        if objects is None
        else objects,
        thumbnail=np.full((50, 200, 3), 230, np.uint8),
    )


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def give(run: RunDir, *slides: HandoutSlide, settings: Handout = SETTINGS) -> HandoutResult:
    return hand_out(run, settings, CLASSES, slides)


def image_of(run: RunDir, name: str = "s1") -> tuple[NativeProject, NativeImage]:
    project = NativeProject.open(run.project)
    return project, next(image for image in project.images() if image.metadata[META_SLIDE] == name)


def edit(run: RunDir, change: Callable[[list[PathObject]], list[PathObject]], **metadata: str) -> None:
    """What somebody does in QuPath."""
    project, image = image_of(run)
    project.save_objects(image, change(image.read_objects()))
    project.set_metadata(image, metadata)
    project.save()


def hashes(root: Path) -> dict[str, str]:
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def uuids(run: RunDir, name: str = "s1") -> set[str]:
    return {o.uuid for o in image_of(run, name)[1].read_objects()}


def test_the_project_holds_what_was_handed_out_and_the_snapshot_says_so(run: RunDir) -> None:
    result = give(run, slide("s1"), slide("s2"))
    assert (result.images, result.objects, result.added, result.problems) == (2, 6, 2, [])
    project, image = image_of(run)
    assert [c.name for c in project.path_classes] == ["Tumor", "Stroma", "Ignore*", REVIEW_CLASS]
    assert image.metadata[META_STATE] == "todo"
    assert image.image_type == "BRIGHTFIELD_H_E"
    assert (run.project.parent / MARKER).exists()
    assert (run.project.parent / EVENTS).is_dir()
    (plan,) = read_plans(run)
    handed = plan.slide("s1")
    assert handed is not None
    assert handed.complete
    assert handed.entry_id == image.entry_id
    assert {o.uuid for o in snapshot_of(run, plan, handed)} == uuids(run)


def test_a_second_call_changes_no_byte(run: RunDir) -> None:
    give(run, slide("s1"), slide("s2"))
    before = hashes(run.root)
    give(run, slide("s1"), slide("s2"))
    assert hashes(run.root) == before


def test_a_slide_that_comes_later_is_added_and_the_others_stay(run: RunDir) -> None:
    give(run, slide("s1"))
    edit(run, lambda objects: objects[1:])
    mine = uuids(run)
    result = give(run, slide("s1"), slide("s2"))
    assert result.added == 1
    assert uuids(run) == mine


@pytest.mark.parametrize("state", ["todo", "in_progress"])
def test_regions_that_somebody_deleted_do_not_come_back(run: RunDir, state: str) -> None:
    give(run, slide(objects=[region(200)]))
    edit(run, lambda _: [], wsi_state=state)
    give(run, slide(objects=[region(200)]))
    assert uuids(run) == set()


class Killed(BaseException):
    """The process ends here."""


POINTS = ("write_plan", "write_snapshot", "add_image", "add_objects", "replace_run_objects")


def killed_at(name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process end just before, or after, the `number`-th call of a step."""
    from wsi_pipeline.handout import images

    owner = images if hasattr(images, name) else NativeProject
    original = getattr(owner, name)
    calls = 0

    def step(*args: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            raise Killed
        return original(*args, **more)

    monkeypatch.setattr(owner, name, step)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("name", POINTS)
def test_a_handout_that_was_killed_anywhere_is_completed_by_the_next_call(
    run: RunDir, tmp_path: Path, name: str, number: int
) -> None:
    slides = [slide("s1"), slide("s2")]
    with pytest.MonkeyPatch.context() as patch:
        killed_at(name, number, patch)
        with suppress(Killed):
            give(run, *slides)
    give(run, *slides)
    whole = RunDir(tmp_path / "whole")
    give(whole, *slides)
    assert uuids(run, "s1") == uuids(whole, "s1")
    assert uuids(run, "s2") == uuids(whole, "s2")
    assert plan_path(run).read_bytes() == plan_path(whole).read_bytes()


def test_a_newer_model_replaces_what_nobody_touched_and_nothing_else(run: RunDir) -> None:
    give(run, slide())
    touched, left = (region(200).uuid, region(700).uuid)

    def brush(objects: list[PathObject]) -> list[PathObject]:
        drawn = PathObject(
            "11111111-1111-4111-8111-111111111111", Kind.ANNOTATION, Point(3000, 500).buffer(50), "Tumor"
        )
        return [
            replace(o, geometry=o.geometry.buffer(9), measurements={}) if o.uuid == touched and o.geometry else o
            for o in objects
        ] + [drawn]

    edit(run, brush, wsi_state="in_progress")
    result = give(run, slide(run_id="run-2"))
    now = uuids(run)
    assert touched in now
    assert "11111111-1111-4111-8111-111111111111" in now
    assert left not in now
    assert result.replaced == 2
    (plan,) = read_plans(run)
    handed = plan.slide("s1")
    assert handed is not None
    snapshot = {o.uuid for o in snapshot_of(run, plan, handed)}
    assert touched in snapshot
    assert left not in snapshot
    before = hashes(run.root)
    give(run, slide(run_id="run-2"))
    assert hashes(run.root) == before


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["write_plan", "write_snapshot", "replace_run_objects"])
def test_a_replacement_that_was_killed_anywhere_is_completed(run: RunDir, name: str, number: int) -> None:
    give(run, slide())
    edit(run, lambda objects: [o for o in objects if o.uuid != region(200).uuid], wsi_state="in_progress")
    with pytest.MonkeyPatch.context() as patch:
        killed_at(name, number, patch)
        with suppress(Killed):
            give(run, slide(run_id="run-2"))
    give(run, slide(run_id="run-2"))
    # What was deleted is not suggested once more by the newer model.
    assert uuids(run) == {o.uuid for o in slide(run_id="run-2").objects} - {region(200, run_id="run-2").uuid}
    (plan,) = read_plans(run)
    handed = plan.slide("s1")
    assert handed is not None
    assert handed.complete
    assert handed.previous is not None
    assert (handed.previous.complete, handed.previous.run_id, handed.previous.previous) == (True, "run-1", None)
    # The deletion is still to be found: the old region is in the snapshot, not in the project.
    assert region(200).uuid in {o.uuid for o in snapshot_of(run, plan, handed)}


def test_a_reviewed_image_keeps_what_it_has(run: RunDir) -> None:
    give(run, slide())
    edit(run, lambda objects: objects, wsi_state="reviewed")
    before = uuids(run)
    result = give(run, slide(run_id="run-2"))
    assert uuids(run) == before
    assert "is reviewed already" in result.warnings[0]


def test_another_mpp_is_refused_by_name_and_the_other_slides_go_on(run: RunDir) -> None:
    give(run, slide("s1"))
    result = give(run, replace(slide("s1"), mpp=0.25), slide("s2"))
    assert "was handed out with 0.5 µm/px and has 0.25 now" in result.problems[0]
    assert result.images == 2


def test_a_slide_that_quPath_cannot_open_is_refused_unless_a_rule_maps_it(run: RunDir) -> None:
    remote = replace(slide("s1"), uri="s3://bucket/a/s1.tif")
    result = give(run, remote, slide("s2"))
    assert "handout.slide_uris" in result.problems[0]
    mapped = Handout(backend="native", classes=("Stroma",), slide_uris={"s3://bucket/": "file:///Z:/slides/"})
    result = give(run, remote, slide("s2"), settings=mapped)
    assert result.problems == []
    assert image_of(run)[1].uri == "file:///Z:/slides/a/s1.tif"


def test_the_longest_rule_counts() -> None:
    rules = {"s3://b/": "file:///x/", "s3://b/deep/": "file:///y/"}
    assert seen_by_the_rater("s3://b/deep/1.svs", rules) == "file:///y/1.svs"
    assert seen_by_the_rater("/local/1.svs", rules) == "/local/1.svs"


def test_an_image_that_was_removed_by_hand_is_not_added_again(run: RunDir) -> None:
    give(run, slide("s1"), slide("s2"))
    text = run.project.read_text()
    value = json.loads(text)
    value["images"] = value["images"][1:]
    run.project.write_text(json.dumps(value))
    result = give(run, slide("s1"), slide("s2"))
    assert "removed from the project by hand" in result.problems[0]
    assert result.images == 1


def test_a_project_never_changes_hands(run: RunDir) -> None:
    give(run, slide())
    with pytest.raises(ProjectError, match="a project never changes hands"):
        give(run, slide(), settings=Handout(backend="native", rater="somebody-else"))


def test_a_snapshot_that_was_changed_is_refused(run: RunDir) -> None:
    give(run, slide())
    (plan,) = read_plans(run)
    handed = plan.slide("s1")
    assert handed is not None
    path = plan_path(run).parent / handed.snapshot
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StoreError, match="was changed after the handout"):
        snapshot_of(run, plan, handed)
    path.unlink()
    with pytest.raises(StoreError, match="is gone"):
        snapshot_of(run, plan, handed)


def test_a_newer_or_damaged_plan_is_refused(run: RunDir) -> None:
    give(run, slide())
    path = plan_path(run)
    text = path.read_text()
    path.write_text(text.replace('"schema": 1', '"schema": 9'))
    with pytest.raises(StoreError, match="has schema 9"):
        read_plan(path)
    path.write_text(text.replace('"rater"', '"ratter"'))
    with pytest.raises(StoreError, match="is damaged"):
        read_plan(path)


def test_flags_of_a_slide_are_seen_in_quPath(run: RunDir) -> None:
    give(run, replace(slide(), flags=("97 % of the tissue predicted Tumor",)))
    assert image_of(run)[1].metadata[META_FLAGS] == "97 % of the tissue predicted Tumor"


def test_too_much_for_one_image_is_said_before_anybody_opens_it() -> None:
    many = [region(100.0 + i) for i in range(501)]
    angle = np.linspace(0, 2 * np.pi, 200_002)
    wide = PathObject("w", Kind.ANNOTATION, Polygon(np.column_stack([np.cos(angle), np.sin(angle)])), "Tumor")
    assert "501 annotations" in over_budget(many)[0]
    assert "vertices" in over_budget([wide])[0]
    assert over_budget([region(1)]) == []


def test_all_images_are_measured_before_the_first_is_written(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []

    def adding(project: NativeProject, *args: Any, **kwargs: Any) -> NativeImage:
        said.append(caplog.text)
        return add(project, *args, **kwargs)

    add = NativeProject.add_image
    monkeypatch.setattr(NativeProject, "add_image", adding)
    many = [region(100.0 + i) for i in range(501)]
    result = give(run, slide("s1"), slide("s2", objects=many))
    assert len(said) == 2
    assert "s2: 501 annotations" in said[0]
    assert result.budget == {"s2": over_budget(many)}
    assert [line for line in result.warnings if line.startswith("s2")] == [f"s2: {over_budget(many)[0]}"]


def test_slides_are_named_so_that_quPath_finds_them_again_beside_a_project_that_was_moved(
    run: RunDir, tmp_path: Path
) -> None:
    # QuPath resolves a missing slide by its way from where the project was last saved.
    there = tmp_path / "slides" / "a b.tif"
    give(run, replace(slide("s1"), uri=str(there)))
    stored = json.loads(run.project.read_text())
    saved_at = Path(unquote(urlsplit(stored["uri"]).path))
    named = Path(unquote(urlsplit(image_of(run)[1].uri).path))
    assert saved_at == run.project
    assert named == there
    assert os.path.relpath(named, saved_at.parent) == "../../slides/a b.tif"
