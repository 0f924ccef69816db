"""The simulated pathologist in a QuPath project: files as QuPath saves them, states, and a log that says simulated."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.synthetic.suggestions import ALL, MPP, SIZE, Fault, suggestion, suggestions_of, truth_of
from wsi_pipeline.collect.matching import Change, match
from wsi_pipeline.files import write_json
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.states import MARKER, META_PRIORITY, META_SLIDE, META_SOURCE, META_STATE
from wsi_pipeline.synthetic import Truth
from wsi_pipeline.synthetic.pathologist import Did, Habits
from wsi_pipeline.synthetic.review import SimulatedEdit, review_project

LIVELY = Habits(overlooks=0.1, ignores=0.3, merges=0.6, splits=0.6, slivers=0.4, forgets_class=0.2, slips=0.1)
SLIDES = ("s1", "s2", "s3")


def snapshot(faults: tuple[Fault, ...]) -> list[PathObject]:
    tile = replace(
        suggestion(faults[0][1][0], path_class="Review"), kind=Kind.TILE, uuid="0" * 8 + "-0000-4000-8000-" + "0" * 12
    )
    return [*suggestions_of(*faults), tile]


def make_project(folder: Path) -> dict[str, list[PathObject]]:
    """Three images with every fault, and what was handed out."""
    project = NativeProject.create(folder)
    handed = {}
    for order, slide_id in enumerate(SLIDES):
        handed[slide_id] = snapshot(ALL)
        image = project.add_image(
            (folder.parent / f"{slide_id}.tif").as_uri(),
            f"{slide_id}.tif",
            size=SIZE,
            mpp=MPP,
            image_type="brightfield_h_e",
            metadata={META_SLIDE: slide_id, META_STATE: "todo", META_PRIORITY: f"{9 - order}"},
        )
        project.add_objects(image, handed[slide_id])
    project.save()
    write_json(folder / MARKER, {"schema": 1, "project": "project", "batch": "batch-1", "rater": "dr-x", "run_id": "r"})
    return handed


def truths() -> dict[str, Truth]:
    return {slide_id: truth_of(*ALL) for slide_id in SLIDES}


def events(folder: Path) -> list[list[dict[str, object]]]:
    return [[orjson.loads(line) for line in p.read_bytes().splitlines()] for p in sorted(folder.glob("events/*.jsonl"))]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_told_is_what_a_comparison_with_the_snapshot_finds(tmp_path: Path, seed: int) -> None:
    handed = make_project(tmp_path / "project")
    told = review_project(tmp_path / "project", truths(), seed=seed, habits=LIVELY)
    project = NativeProject.open(tmp_path / "project", read_only=True)
    found = []
    for image in project.images():
        slide_id = image.metadata[META_SLIDE]
        for pair in match(handed[slide_id], image.read_objects()):
            item = pair.before or pair.after
            assert item is not None
            found.append(SimulatedEdit(slide_id, item.uuid, Did(pair.change)))
    # A split object is one act and one row for each part.
    assert set(found) == set(told)
    assert Counter(e for e in found if e.kind is not Did.SPLIT) == Counter(e for e in told if e.kind is not Did.SPLIT)


def test_the_words_are_those_of_the_collection() -> None:
    assert [str(did) for did in Did] == [str(change) for change in Change]


def test_reviewed_images_say_so_and_an_unfinished_one_does_not(tmp_path: Path) -> None:
    make_project(tmp_path / "project")
    told = review_project(tmp_path / "project", truths(), unfinished=["s2"])
    images = {i.metadata[META_SLIDE]: i for i in NativeProject.open(tmp_path / "project", read_only=True).images()}
    assert {k: i.metadata[META_STATE] for k, i in images.items()} == {
        "s1": "reviewed",
        "s2": "in_progress",
        "s3": "reviewed",
    }
    assert {i.metadata[META_SOURCE] for i in images.values()} == {"simulated"}
    assert sum(e.slide_id == "s2" for e in told) < sum(e.slide_id == "s1" for e in told)


def test_an_image_without_truth_is_not_opened(tmp_path: Path) -> None:
    make_project(tmp_path / "project")
    before = (tmp_path / "project/data/2/data.qpdata").read_bytes()
    told = review_project(tmp_path / "project", {"s1": truth_of(*ALL)})
    images = {i.metadata[META_SLIDE]: i for i in NativeProject.open(tmp_path / "project", read_only=True).images()}
    assert {e.slide_id for e in told} == {"s1"}
    assert images["s2"].metadata[META_STATE] == "todo"
    assert META_SOURCE not in images["s2"].metadata
    assert (tmp_path / "project/data/2/data.qpdata").read_bytes() == before


def test_a_second_review_does_nothing(tmp_path: Path) -> None:
    make_project(tmp_path / "project")
    review_project(tmp_path / "project", truths())
    before = {p: p.read_bytes() for p in (tmp_path / "project").rglob("*") if p.is_file()}
    assert review_project(tmp_path / "project", truths()) == []
    assert {p: p.read_bytes() for p in (tmp_path / "project").rglob("*") if p.is_file()} == before


def test_the_same_seed_writes_the_same_events_and_objects(tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        make_project(tmp_path / name / "project")
        review_project(tmp_path / name / "project", truths(), seed=4)
        project = NativeProject.open(tmp_path / name / "project", read_only=True)
        log = {p.name: p.read_bytes() for p in (tmp_path / name / "project/events").iterdir()}
        results.append((log, [i.read_objects() for i in project.images()]))
    assert results[0] == results[1]


def test_what_is_done_to_a_slide_does_not_depend_on_the_others(tmp_path: Path) -> None:
    for name in ("all", "one"):
        make_project(tmp_path / name)
    all_of = review_project(tmp_path / "all", truths(), seed=2)
    one = review_project(tmp_path / "one", {"s3": truth_of(*ALL)}, seed=2)
    assert [e for e in all_of if e.slide_id == "s3"] == one


def test_the_review_tiles_stay(tmp_path: Path) -> None:
    make_project(tmp_path / "project")
    review_project(tmp_path / "project", truths())
    for image in NativeProject.open(tmp_path / "project", read_only=True).images():
        assert [o.kind for o in image.read_objects()].count(Kind.TILE) == 1


def test_each_day_has_a_log_that_begins_with_a_header_and_says_simulated(tmp_path: Path) -> None:
    make_project(tmp_path / "project")
    review_project(tmp_path / "project", truths())
    logs = events(tmp_path / "project")
    assert len(logs) == 2
    for log in logs:
        header = log[0]
        assert header["type"] == "header"
        assert header["schema"] == 1
        assert header["source"] == "simulated"
        assert (header["rater"], header["batch"], header["run"], header["project"]) == (
            "dr-x",
            "batch-1",
            "r",
            "project",
        )
        assert [e["seq"] for e in log] == list(range(len(log)))
        times = [int(str(e["t"])) for e in log]
        assert times == sorted(times)


def test_every_change_is_in_the_log_and_nothing_happens_outside_of_an_image(tmp_path: Path) -> None:
    handed = make_project(tmp_path / "project")
    told = review_project(tmp_path / "project", truths(), seed=1, habits=LIVELY)
    touched: dict[str, set[str]] = {}
    for log in events(tmp_path / "project"):
        front = None
        for event in log[1:]:
            if event["type"] == "open":
                assert front is None
                front = event["image"]
                assert event["objects"] == len(handed["s1"]) - 1
            assert event["image"] == front
            if event["type"] in {"edit", "class", "delete"}:
                touched.setdefault(str(event["image"]), set()).add(str(event["object"]))
            if event["type"] == "close":
                front = None
        assert front is None
    images = {i.metadata[META_SLIDE]: str(i.entry_id) for i in NativeProject.open(tmp_path / "project").images()}
    for edit in told:
        assert (edit.uuid in touched.get(images[edit.slide_id], set())) == (edit.kind is not Did.UNTOUCHED)


def test_heartbeats_come_every_thirty_seconds_while_an_image_is_in_front(tmp_path: Path) -> None:
    make_project(tmp_path / "project")
    review_project(tmp_path / "project", truths(), habits=Habits(merges=0))
    gaps = []
    for log in events(tmp_path / "project"):
        last = 0
        for event in log[1:]:
            at = int(str(event["t"]))
            if event["type"] == "heartbeat" and last:
                gaps.append(at - last)
            if event["type"] in {"open", "focus", "heartbeat"}:
                last = at
    assert gaps
    assert np.min(gaps) >= 29_000
    assert np.max(gaps) <= 31_000
