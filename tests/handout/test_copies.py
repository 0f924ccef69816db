"""Copies of each image: the first state stays, the newest stay, a new model's handout keeps what it replaces."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from multiprocessing.queues import Queue
from pathlib import Path

import pytest

from tests.handout.made import (
    CLASSES,
    SETTINGS,
    annotations_of,
    brushed,
    files_below,
    handed_out,
    image_of,
    objects_of,
    project_of,
    region,
    save,
    slide,
)
from wsi_pipeline.collect import collect
from wsi_pipeline.config import Costs, Handout, Review
from wsi_pipeline.errors import ProjectChanged, ProjectError, StoreError
from wsi_pipeline.files import sha256_file
from wsi_pipeline.handout import Case, HandoutSlide, StudyBatch, hand_out
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.qupath.history import first_of, history_of, restore, tend
from wsi_pipeline.qupath.lease import NAME, hold
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.handout import hand_out_study

MODELS = [f"{n:016x}" for n in range(1, 8)]


def with_model(folder: Path, run_id: str, radius: float = 90.0) -> HandoutSlide:
    return slide(folder, regions=[region("s1", 500, 500, radius, run_id=run_id)], run_id=run_id)


def kept(root: Path) -> set[str]:
    return {copy.id for copy in history_of(root)}


def test_the_first_state_is_kept_with_its_twin_and_the_same_handout_adds_nothing(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    (copy,) = history_of(root)
    assert first_of(root) == {1: copy.id}
    assert sha256_file(copy.path) == sha256_file(root / "data" / "1" / "data.qpdata")
    twin = read_geojson(copy.path.with_suffix(".geojson"))
    assert {o.uuid for o in twin} == {o.uuid for o in objects_of(run)}
    before = files_below(run.root)
    handed_out(tmp_path)
    assert files_below(run.root) == before


def test_a_new_models_handout_keeps_what_it_replaces(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    seen = []
    for number, run_id in enumerate(MODELS[:3]):
        seen.append(objects_of(run))
        hand_out(run, SETTINGS, CLASSES, [with_model(tmp_path, run_id, 90.0 + 5 * number)])
    copies = history_of(root)
    assert len(copies) == 3
    for copy, objects in zip(copies, seen, strict=True):
        assert copy.path.with_suffix(".geojson").exists()
        restore(root, copy.id)
        assert objects_of(run) == objects


def test_old_copies_go_and_the_first_and_the_newest_stay(tmp_path: Path) -> None:
    few = SETTINGS.model_copy(update={"keep_copies": 2})
    run, _ = handed_out(tmp_path, settings=few)
    root = run.project.parent
    first = first_of(root)[1]
    ids = []
    for number, run_id in enumerate(MODELS):
        ids.append(f"1-{sha256_file(root / 'data' / '1' / 'data.qpdata')[:16]}")
        hand_out(run, few, CLASSES, [with_model(tmp_path, run_id, 90.0 + 5 * number)])
    assert ids[0] == first
    assert kept(root) == {first, *ids[-2:]}
    names = {p.name for p in (root / "history").iterdir()}
    assert names == {f"{i}{s}" for i in kept(root) for s in (".qpdata", ".geojson")} | {"first.json", "written.json"}
    assert tend(root, 1) != []
    assert kept(root) == {first, ids[-1]}


def test_every_image_has_its_own_copies(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path, slide(tmp_path, "s1"), slide(tmp_path, "s2"))
    root = run.project.parent
    for _ in range(4):
        save(run, [brushed(o) for o in annotations_of(run, "s2")], "s2")
    before = kept(root)
    tend(root, 1)
    assert {i for i in kept(root) if i.startswith("1-")} == {i for i in before if i.startswith("1-")}
    assert first_of(root)[2] in kept(root)


def test_where_the_first_state_is_not_known_the_oldest_copy_stays(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    for x in range(4):
        save(run, [region("s1", 300 + x, 300)])
    copies = history_of(root)
    (root / "history" / "first.json").unlink()
    tend(root, 1)
    assert kept(root) == {copies[0].id, copies[-1].id}
    (root / "history" / "first.json").write_text("[]")
    with pytest.raises(StoreError, match="damaged"):
        tend(root, 1)


def test_what_qupath_saved_before_the_first_copy_is_not_taken_for_the_first_state(tmp_path: Path) -> None:
    """A project that was handed out by a version that kept no first copy."""
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    for path in (root / "history").iterdir():
        path.unlink()
    save(run, [brushed(o) for o in annotations_of(run)])
    handed_out(tmp_path)
    assert first_of(root) == {}


def test_a_damaged_copy_is_kept_without_a_twin(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    (root / "history" / "1-00ff.qpdata").write_bytes(b"torn")
    assert tend(root, 5) == []
    assert not (root / "history" / "1-00ff.geojson").exists()


# ---- who writes


def test_a_handout_holds_the_lease_and_lets_it_go(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    assert not (root / NAME).exists()
    with hold(root), pytest.raises(ProjectError, match="works on it"):
        handed_out(tmp_path)
    assert not (root / NAME).exists()


def test_nothing_new_is_handed_out_while_qupath_is_open_and_what_is_there_already_is(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    log = root / "events" / "ann-1.jsonl"
    log.write_text('{"type":"heartbeat"}\n')
    before = files_below(run.root)
    handed_out(tmp_path)
    assert files_below(run.root) == before
    new = with_model(tmp_path, MODELS[0])
    with pytest.raises(ProjectError, match=r"QuPath seems to have it open.*close QuPath"):
        hand_out(run, SETTINGS, CLASSES, [new])
    assert files_below(run.root) == before
    more = SETTINGS.model_copy(update={"classes": ("Fat",)})
    with pytest.raises(ProjectError, match="QuPath seems to have it open"):
        hand_out(run, more, CLASSES, [slide(tmp_path)])
    log.write_text('{"type":"heartbeat"}\n{"type":"close"}\n')
    assert hand_out(run, SETTINGS, CLASSES, [new]).replaced == 5


def test_a_rater_who_has_the_project_open_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    settings = Handout(backend="native", raters=("anna", "ben"))
    due = [
        (
            StudyBatch(
                batch="batch-1",
                rater=rater,
                project=f"projects/batch-1-{rater}/project.qpproj",
                cases=(Case(slide_id="s1", arm="assisted", position=1),),
            ),
            None,
        )
        for rater in settings.raters
    ]
    assert hand_out_study(run, settings, CLASSES, {"s1": slide(tmp_path)}, due).problems == []
    (run.root / "projects" / "batch-1-anna" / "events" / "a.jsonl").write_text('{"type":"heartbeat"}\n')
    result = hand_out_study(run, settings, CLASSES, {"s1": with_model(tmp_path, MODELS[0])}, due)
    (problem,) = result.problems
    assert problem.startswith("batch-1-anna: ")
    assert "close QuPath" in problem
    assert [path.parent.name for path in result.projects] == ["batch-1-ben"]
    assert result.replaced == 5


def test_what_changed_since_it_was_read_is_not_written_over(tmp_path: Path) -> None:
    """A QuPath without the scripts leaves no log; what it saves meanwhile stays, in both files."""
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    ours = project_of(run)
    image = image_of(ours)
    objects = image.read_objects()
    save(run, objects[1:], state="in_progress")  # QuPath saves the image and the project
    theirs = files_below(root)
    with pytest.raises(ProjectChanged, match=r"s1\.tif: .*data\.qpdata was changed since it was read"):
        ours.replace_run_objects(image, objects[0].metadata["wsi_run"], [], objects)
    with pytest.raises(ProjectChanged, match=r"data\.qpdata was changed since it was read"):
        ours.add_objects(image, [region("s1", 300, 300)])
    ours.set_metadata(image, {"wsi_state": "reviewed"})
    with pytest.raises(ProjectChanged, match=r"project\.qpproj was changed since it was read"):
        ours.save()
    assert files_below(root) == theirs


def test_collecting_writes_nothing_into_a_project_and_needs_no_lease(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    (root / "events" / "ann-1.jsonl").write_text('{"type":"heartbeat"}\n')
    save(run, [brushed(o) for o in objects_of(run)[:1]] + objects_of(run)[1:], state="reviewed")
    with hold(root):
        before = files_below(root)
        result = collect(run, Review(), Costs())
        assert files_below(root) == before
    assert result.metrics["totals"]["counts"]["edited"] == 1


def test_a_stale_lease_is_taken_over_and_a_foreign_one_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"")
    with pytest.raises(ProjectError, match="took the lease just now"), hold(tmp_path):
        pass
    os.utime(tmp_path / NAME, (time.time() - 60,) * 2)
    theirs = json.dumps({"host": "elsewhere", "pid": 1, "who": "ben", "expires": int(time.time()) + 60})
    with hold(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
        (tmp_path / NAME).write_text(theirs)
    assert (tmp_path / NAME).read_text() == theirs
    with pytest.raises(ProjectError, match="ben on elsewhere"), hold(tmp_path):
        pass
    (tmp_path / NAME).write_text(json.dumps({"host": "elsewhere", "pid": 1, "expires": int(time.time()) - 1}))
    with hold(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def _count(root: str, held: Queue[str]) -> None:
    for _ in range(60):
        try:
            with hold(Path(root)):
                file = os.open(Path(root) / "inside", os.O_CREAT | os.O_EXCL)
                os.close(file)
                (Path(root) / "inside").unlink()
                held.put("once")
        except ProjectError:
            time.sleep(0.001)
        except FileExistsError:
            held.put("two at once")


def test_of_many_who_want_the_lease_one_has_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held: Queue[str] = context.Queue()
    workers = [context.Process(target=_count, args=(str(tmp_path), held)) for _ in range(3)]
    for worker in workers:
        worker.start()
    seen = []
    while any(worker.is_alive() for worker in workers) or not held.empty():
        while not held.empty():
            seen.append(held.get())
        time.sleep(0.02)
    for worker in workers:
        worker.join()
    assert set(seen) == {"once"}
    assert not (tmp_path / NAME).exists()
