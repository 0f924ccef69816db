"""An image says itself which handout it holds, through saves, copies and restorations."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.handout.made import (
    COSTS,
    REVIEW,
    annotations_of,
    brushed,
    files_below,
    handed_out,
    image_of,
    objects_of,
    project_of,
    region,
    save,
    set_state,
    slide,
)
from wsi_pipeline.collect import collect
from wsi_pipeline.collect.check import check_project
from wsi_pipeline.handout import HandedOutSlide, HandoutSlide, read_plans
from wsi_pipeline.handout.held import marker_of
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.copying import copy_project
from wsi_pipeline.qupath.history import first_of, history_of, restore
from wsi_pipeline.qupath.native.properties import with_texts
from wsi_pipeline.qupath.native.qpdata import read_qpdata, write_qpdata
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.qupath.relocate import relocate
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import PROPERTY_HANDOUT

NEWER = "b" * 16
PLACES = (500, 1200, 1900)


def newer(folder: Path, slide_id: str = "s1") -> HandoutSlide:
    """A second model, which sees the same three regions a little larger."""
    return slide(folder, slide_id, regions=[region(slide_id, x, radius=90, run_id=NEWER) for x in PLACES], run_id=NEWER)


def mark_of(run: RunDir, slide_id: str = "s1") -> str | None:
    return image_of(project_of(run, read_only=True), slide_id).read().properties.get(PROPERTY_HANDOUT)


def planned(run: RunDir, slide_id: str = "s1") -> HandedOutSlide:
    (plan,) = read_plans(run)
    found = plan.slide(slide_id)
    assert found is not None
    return found


def data_of(run: RunDir, entry: int = 1) -> Path:
    return run.project.parent / "data" / str(entry) / "data.qpdata"


def marked(path: Path, mark: str | None) -> None:
    """Write a file with another mark, or without any, as hands or an older version of this package leave it."""
    data = read_qpdata(path.read_bytes())
    node = with_texts(None, {} if mark is None else {PROPERTY_HANDOUT: mark})
    path.write_bytes(write_qpdata(replace(data, kept=replace(data.kept, properties=node))))


def told(run: RunDir, slide_id: str = "s1") -> set[tuple[str | None, str | None, str]]:
    """What a collection says of each annotation: before, after, change."""
    result = collect(run, REVIEW, COSTS)
    assert result.alarms == ()
    rows = pq.read_table(run.corrections).to_pylist()
    return {(r["uuid_before"], r["uuid_after"], r["change"]) for r in rows if r["slide_id"] == slide_id}


def flags(run: RunDir) -> list[str]:
    found: list[str] = collect(run, REVIEW, COSTS).metrics["flags"]
    return [text for text in found if "mark of the handout" in text]


# ---- it is there


def test_every_image_that_is_handed_out_carries_the_mark_of_its_snapshot(tmp_path: Path) -> None:
    bare = slide(tmp_path, "s3", regions=[], flagged=0)
    run, _ = handed_out(tmp_path, slide(tmp_path, "s1"), slide(tmp_path, "s2"), bare)
    marks = {s: mark_of(run, s) for s in ("s1", "s2", "s3")}
    assert marks == {s: marker_of(planned(run, s)) for s in marks}
    assert len(set(marks.values())) == 3
    handed_out(tmp_path, newer(tmp_path, "s1"), slide(tmp_path, "s2"), bare)
    assert mark_of(run, "s1") == marker_of(planned(run, "s1")) != marks["s1"]
    assert (mark_of(run, "s2"), mark_of(run, "s3")) == (marks["s2"], marks["s3"])


def test_the_mark_holds_no_name_and_no_path(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path, slide(tmp_path, "case-of-somebody"))
    mark = mark_of(run, "case-of-somebody")
    assert mark is not None
    assert len(mark) == 32
    assert set(mark) <= set("0123456789abcdef")
    properties = image_of(project_of(run), "case-of-somebody").read().properties
    assert dict(properties) == {PROPERTY_HANDOUT: mark}


def test_an_image_with_nothing_handed_out_is_known_when_it_is_restored(tmp_path: Path) -> None:
    """Without a mark, an empty image beside a later handout would be one from which all was deleted."""
    run, _ = handed_out(tmp_path, slide(tmp_path, regions=[], flagged=0))
    handed_out(tmp_path, newer(tmp_path))
    restore(run.project, first_of(run.project.parent)[1])
    assert told(run) == set()
    drawn = replace(region("s1", 3500, y=2500), metadata={}, measurements={})
    save(run, [drawn], state="in_progress")
    assert told(run) == {(None, drawn.uuid, "added")}
    # And the newer model comes again: nobody has deleted it.
    handed_out(tmp_path, newer(tmp_path))
    assert len(annotations_of(run)) == 4


# ---- it stays


def saved_by_qupath(run: RunDir, folder: Path) -> RunDir:
    save(run, [brushed(o) for o in annotations_of(run)] + objects_of(run)[3:], state="in_progress")
    return run


def relocated(run: RunDir, folder: Path) -> RunDir:
    relocate(run.project, str(folder / "slides"), "/elsewhere")
    return run


def copied(run: RunDir, folder: Path) -> RunDir:
    copy_project(run.project, folder / "copy")
    shutil.rmtree(run.project.parent)
    shutil.move(folder / "copy", run.project.parent)
    return run


def restored(run: RunDir, folder: Path) -> RunDir:
    saved_by_qupath(run, folder)
    restore(run.project, first_of(run.project.parent)[1])
    return run


@pytest.mark.parametrize("act", [saved_by_qupath, relocated, copied, restored])
def test_the_mark_stays_with_the_objects(tmp_path: Path, act: Callable[[RunDir, Path], RunDir]) -> None:
    run, _ = handed_out(tmp_path)
    mark = mark_of(run)
    assert mark is not None
    assert mark_of(act(run, tmp_path)) == mark
    assert flags(run) == []


def test_the_same_handout_again_changes_no_byte(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path, slide(tmp_path), slide(tmp_path, "s2", regions=[], flagged=0))
    before = files_below(run.root)
    handed_out(tmp_path, slide(tmp_path), slide(tmp_path, "s2", regions=[], flagged=0))
    assert files_below(run.root) == before


def test_a_newer_model_that_adds_nothing_leaves_file_and_mark_as_they_are(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    save(run, [brushed(o) for o in annotations_of(run)] + objects_of(run)[3:], state="in_progress")
    save(run, [o for o in objects_of(run) if o.kind is Kind.ANNOTATION])  # the tiles are gone
    mark, data = mark_of(run), data_of(run).read_bytes()
    again = replace(newer(tmp_path), objects=newer(tmp_path).objects[:3])  # each lies where a person has decided
    handed_out(tmp_path, again)
    assert (mark_of(run), data_of(run).read_bytes()) == (mark, data)
    assert planned(run).run_id == NEWER
    assert marker_of(planned(run)) == mark
    before = files_below(run.root)
    handed_out(tmp_path, again)
    assert files_below(run.root) == before


# ---- what only the mark can tell


def one_model_twice(folder: Path) -> tuple[RunDir, list[PathObject], list[PathObject], str]:
    """The newer model came twice, once beside a region that a person had brushed and then deleted.

    Returns the run, the older and newer regions, and the id of the state from after the first time.
    """
    run, _ = handed_out(folder)
    first, older = first_of(run.project.parent)[1], annotations_of(run)
    save(run, [brushed(older[0]), *objects_of(run)[1:]], state="in_progress")
    handed_out(folder, newer(folder))
    came = annotations_of(run)
    assert len(came) == 3
    save(run, [o for o in objects_of(run) if o.uuid != older[0].uuid])  # two regions of the newer model are left
    restore(run.project, first)
    (copy,) = [c for c in history_of(run.project) if c.id not in {first} and len(_regions(c.path)) == 2]
    handed_out(folder, newer(folder))
    assert len(annotations_of(run)) == 3
    return run, older, annotations_of(run), copy.id


def _regions(path: Path) -> list[PathObject]:
    return [o for o in read_qpdata(path.read_bytes()).objects if o.kind is Kind.ANNOTATION]


def test_of_two_handouts_of_one_model_the_restored_one_is_compared_with_its_own_snapshot(tmp_path: Path) -> None:
    run, older, came, copy = one_model_twice(tmp_path)
    restore(run.project, copy)
    left = {o.uuid for o in annotations_of(run)}
    assert left < {o.uuid for o in came}
    wanted = {(older[0].uuid, None, "deleted"), *((u, u, "untouched") for u in left)}
    assert told(run) == wanted
    # Again and again: the plan follows, and nothing that was deleted comes back.
    before = data_of(run).read_bytes()
    handed_out(tmp_path, newer(tmp_path))
    assert data_of(run).read_bytes() == before
    assert told(run) == wanted


def test_without_a_mark_its_objects_tell_as_they_did_before(tmp_path: Path) -> None:
    """A project of an older version: what cannot be told is still told the old way, and nothing is lost."""
    run, _, came, copy = one_model_twice(tmp_path)
    restore(run.project, copy)
    marked(data_of(run), None)
    left = {o.uuid for o in annotations_of(run)}
    (deleted,) = {o.uuid for o in came} - left
    assert told(run) == {(deleted, None, "deleted"), *((u, u, "untouched") for u in left)}
    assert flags(run) == []


# ---- projects from before


def test_a_project_without_marks_is_left_as_it_is_until_something_new_is_handed_out(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    marked(data_of(run), None)
    assert mark_of(run) is None
    before = files_below(run.root)
    handed_out(tmp_path)
    assert files_below(run.root) == before
    handed_out(tmp_path, newer(tmp_path))
    assert mark_of(run) == marker_of(planned(run))
    assert told(run) == {(o.uuid, o.uuid, "untouched") for o in annotations_of(run)}


def test_an_older_state_without_a_mark_is_told_by_its_objects(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    marked(data_of(run), None)
    older = annotations_of(run)
    handed_out(tmp_path, newer(tmp_path))
    (copy,) = [c for c in history_of(run.project) if c.id != first_of(run.project.parent)[1]]
    restore(run.project, copy.id)
    assert mark_of(run) is None
    assert told(run) == {(o.uuid, o.uuid, "untouched") for o in older}


# ---- marks that are wrong


def test_the_file_of_another_image_is_told_and_handed_out_over_nothing(tmp_path: Path) -> None:
    other = slide(tmp_path, "s2", regions=[region("s2", x, y=1500) for x in PLACES])
    run, _ = handed_out(tmp_path, slide(tmp_path, "s1"), other)
    drawn = replace(region("s1", 3500, y=2500), metadata={}, measurements={})
    save(run, [*objects_of(run, "s2"), drawn], "s2", state="in_progress")
    shutil.copy(data_of(run, 2), data_of(run, 1))
    there = objects_of(run)
    (alarm,) = collect(run, REVIEW, COSTS).alarms
    assert alarm.startswith("s1: all 5 objects that were handed out are gone")
    found = [f.what for f in check_project(run.project).images[0].findings]
    assert found == ["slide", "handout", "count"]
    set_state(run, "adjudicated")
    (flag,) = flags(run)
    assert flag.startswith("s1: the mark of the handout in its data.qpdata is none of this image")
    result = handed_out(tmp_path, slide(tmp_path, "s1"), other)[1]
    assert [w for w in result.warnings if w.startswith("s1: the mark")] == [flag]
    set_state(run, "in_progress")
    elsewhere = slide(tmp_path, "s1", regions=[region("s1", x, y=2200, run_id=NEWER) for x in PLACES], run_id=NEWER)
    handed_out(tmp_path, elsewhere, other)
    kept = {o.uuid for o in objects_of(run)}
    assert {o.uuid for o in there} <= kept
    assert mark_of(run) == marker_of(planned(run))


def test_a_mark_that_the_objects_belie_is_passed_over(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    old = mark_of(run)
    handed_out(tmp_path, newer(tmp_path))
    first, *rest = annotations_of(run)
    save(run, [brushed(first), *rest, *objects_of(run)[3:]], state="in_progress")
    wanted = told(run)
    assert {change for _, _, change in wanted} == {"edited", "untouched"}
    marked(data_of(run), old)
    assert told(run) == wanted
    (flag,) = flags(run)
    assert "does not fit its objects" in flag
    assert [f.what for f in check_project(run.project).images[0].findings] == ["slide", "handout"]
    before = data_of(run).read_bytes()
    handed_out(tmp_path, newer(tmp_path))
    assert data_of(run).read_bytes() == before


@pytest.mark.parametrize("mark", ["", "f" * 32, "a text by hand", "ü" * 70_000])
def test_a_mark_that_nobody_knows_changes_nothing_but_a_remark(tmp_path: Path, mark: str) -> None:
    run, _ = handed_out(tmp_path)
    wanted = told(run)
    marked(data_of(run), mark)
    assert told(run) == wanted
    assert len(flags(run)) == 1
    before = files_below(run.root)
    result = handed_out(tmp_path)[1]
    assert files_below(run.root) == before
    assert any("mark of the handout" in w for w in result.warnings)


def test_regions_of_two_handouts_brought_together_by_hand_are_compared_by_the_mark(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    older = annotations_of(run)
    handed_out(tmp_path, newer(tmp_path))
    came = annotations_of(run)
    restore(run.project, first_of(run.project.parent)[1])
    # Of the newer model somebody imports one region, from its GeoJSON.
    save(run, [*objects_of(run), came[0]], state="in_progress")
    assert told(run) == {*((o.uuid, o.uuid, "untouched") for o in older), (None, came[0].uuid, "added")}


def test_both_handouts_are_read_back_from_the_file_alone(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    image = NativeProject.open(run.project, read_only=True).image(1)
    objects, properties = image.read()
    assert [o.uuid for o in objects] == [o.uuid for o in image.read_objects()]
    assert dict(properties) == read_qpdata(data_of(run).read_bytes()).properties
