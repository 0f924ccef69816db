"""Two raters and one slide: what they changed differently is listed, and nobody's work wins by coming last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import Point, box
from shapely.affinity import translate

from tests.handout.made import CLASSES, COSTS, REVIEW, SETTINGS, brushed, image_of, region, slide
from wsi_pipeline.collect import CollectResult, collect
from wsi_pipeline.collect.conflicts import Work, conflicts_of
from wsi_pipeline.collect.matching import match
from wsi_pipeline.handout import Part, hand_out
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import META_STATE

Edit = Callable[[list[PathObject]], Sequence[PathObject]]
RATERS = ("anna", "ben")
DRAWN = PathObject("00000000-0000-4000-8000-00000000000a", Kind.ANNOTATION, Point(2500, 2000).buffer(60), "Tumor")


def path_of(rater: str) -> str:
    return f"projects/batch-1-{rater}/project.qpproj"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """The same slide in one project for each rater."""
    made = RunDir(tmp_path / "run")
    for rater in RATERS:
        part = Part("batch-1", rater, path_of(rater), study=True)
        assert hand_out(made, SETTINGS, CLASSES, [slide(tmp_path)], part).problems == []
    return made


def work(run: RunDir, rater: str, edit: Edit, state: str = "reviewed") -> None:
    project = NativeProject.open(run.root / path_of(rater))
    image = image_of(project)
    project.save_objects(image, edit(image.read_objects()))
    project.set_metadata(image, {META_STATE: state})
    project.save()


def nothing(objects: list[PathObject]) -> Sequence[PathObject]:
    return objects


def first(change: Callable[[PathObject], PathObject | None]) -> Edit:
    """Change the first region alone."""

    def edit(objects: list[PathObject]) -> Sequence[PathObject]:
        head, *rest = objects
        new = change(head)
        return rest if new is None else [new, *rest]

    return edit


def shifted(item: PathObject, by: float) -> PathObject:
    assert item.geometry is not None
    return replace(item, geometry=translate(item.geometry, by, by))


def collected(run: RunDir) -> CollectResult:
    return collect(run, REVIEW, COSTS)


def conflicts(run: RunDir) -> list[dict[str, Any]]:
    found = collected(run).metrics["conflicts"]
    assert isinstance(found, list)
    return found


def told(conflict: dict[str, Any]) -> dict[str, str]:
    return {side["rater"]: side["change"] for side in conflict["raters"]}


def test_the_same_work_is_no_conflict(run: RunDir) -> None:
    for rater in RATERS:
        work(run, rater, first(brushed))
    assert conflicts(run) == []
    assert "differently" not in collected(run).summary


def test_another_class_is_a_conflict_with_what_each_did(run: RunDir) -> None:
    work(run, "anna", first(lambda o: replace(o, path_class="Stroma")))
    work(run, "ben", first(lambda o: replace(o, path_class="Necrosis")))
    (conflict,) = conflicts(run)
    uuid = slide(run.root.parent).objects[0].uuid
    assert (conflict["slide_id"], conflict["object"], conflict["differs"]) == ("s1", uuid, "class")
    assert conflict["iou"] == pytest.approx(1.0)
    assert conflict["adjudicated"] is False
    assert conflict["raters"] == [
        {
            "rater": rater,
            "batch": "batch-1",
            "change": "reclassified",
            "class_before": "Tumor",
            "class_after": name,
            "uuids_after": [uuid],
        }
        for rater, name in zip(RATERS, ("Stroma", "Necrosis"), strict=True)
    ]
    assert collected(run).summary.endswith(
        "1 objects on 1 slides were changed differently by raters, 1 in class; "
        "`conflicts` in review/metrics.json lists them"
    )


@pytest.mark.parametrize(
    ("anna", "ben", "differs", "words"),
    [
        (first(brushed), first(lambda o: brushed(o, 60)), "shape", ("edited", "edited")),
        (first(brushed), first(lambda _: None), "presence", ("edited", "deleted")),
        (first(lambda _: None), nothing, "presence", ("deleted", "accepted")),
        (first(lambda o: replace(o, path_class="Stroma")), nothing, "class", ("reclassified", "accepted")),
        (first(lambda o: shifted(o, 9)), nothing, "shape", ("moved", "accepted")),
    ],
)
def test_each_way_to_differ(run: RunDir, anna: Edit, ben: Edit, differs: str, words: tuple[str, str]) -> None:
    work(run, "anna", anna)
    work(run, "ben", ben)
    (conflict,) = conflicts(run)
    assert conflict["differs"] == differs
    assert told(conflict) == dict(zip(RATERS, words, strict=True))


def test_both_deleted_is_agreement_and_so_is_a_split_of_the_same_halves(run: RunDir) -> None:
    def halves(offset: int) -> Edit:
        def edit(objects: list[PathObject]) -> Sequence[PathObject]:
            split, *rest = objects
            assert split.geometry is not None
            x, y, right, bottom = split.geometry.bounds
            sides = box(x, y, x + 80, bottom), box(x + 80, y, right, bottom)
            made = [
                PathObject(f"00000000-0000-4000-8000-{offset + i:012d}", Kind.ANNOTATION, shape, "Tumor")
                for i, shape in enumerate(split.geometry.intersection(side) for side in sides)
            ]
            return [*made, *rest]

        return edit

    work(run, "anna", halves(10))
    work(run, "ben", halves(20))
    assert conflicts(run) == []


def test_who_has_not_reviewed_contradicts_nobody_by_leaving_it(run: RunDir) -> None:
    work(run, "anna", first(lambda o: replace(o, path_class="Stroma")))
    work(run, "ben", nothing, "in_progress")
    assert conflicts(run) == []


def test_what_raters_drew_on_each_other_is_a_conflict_without_a_uuid(run: RunDir) -> None:
    other = replace(DRAWN, uuid=DRAWN.uuid[:-1] + "b", geometry=Point(2510, 2000).buffer(60), path_class="Stroma")
    far = replace(DRAWN, uuid=DRAWN.uuid[:-1] + "c", geometry=Point(3500, 2000).buffer(60))
    work(run, "anna", lambda objects: [*objects, DRAWN])
    work(run, "ben", lambda objects: [*objects, other, far])
    (conflict,) = conflicts(run)
    assert conflict["object"] is None
    assert conflict["differs"] == "class"
    assert 0.8 < conflict["iou"] < 0.9
    assert [side["uuids_after"] for side in conflict["raters"]] == [[DRAWN.uuid], [other.uuid]]


def test_an_adjudicated_image_decides_and_stands_for_the_slide(run: RunDir) -> None:
    work(run, "anna", first(lambda o: replace(o, path_class="Stroma")))
    work(run, "ben", first(lambda o: replace(o, path_class="Necrosis")), "adjudicated")
    result = collected(run)
    (conflict,) = result.metrics["conflicts"]
    assert conflict["adjudicated"] is True
    assert "differently" not in result.summary
    assert result.metrics["slides"]["s1"]["rater"] == "ben"


@pytest.mark.parametrize("order", [RATERS, RATERS[::-1]])
def test_who_saves_last_wins_nothing(run: RunDir, order: tuple[str, str]) -> None:
    edits = {
        "anna": first(lambda o: replace(o, path_class="Stroma")),
        "ben": first(lambda o: replace(o, path_class="Necrosis")),
    }
    for rater in order:
        work(run, rater, edits[rater])
        collected(run)
    result = collected(run)
    assert result.metrics["slides"]["s1"]["rater"] == "anna"
    by_rater = {image["rater"]: image["counts"]["reclassified"] for image in result.metrics["images"]}
    assert by_rater == {"anna": 1, "ben": 1}
    corrected = {p.parent.name: p.read_bytes() for p in (run.review / "corrected").glob("*/s1.geojson")}
    assert len(corrected) == 2
    assert b"Stroma" in corrected["batch-1-anna"]
    assert b"Necrosis" in corrected["batch-1-ben"]


# ---- by themselves


def done(rater: str, after: Sequence[PathObject], before: Sequence[PathObject], reviewed: bool = True) -> Work:
    pairs = match(before, after)
    accepted = {p.before.uuid for p in pairs if p.change == "untouched" and p.before} if reviewed else set()
    return Work("s", "b", rater, False, tuple(p for p in pairs if p.change != "untouched"), frozenset(accepted))


BEFORE = [region("s", 300.0 + 400 * i) for i in range(3)]


def test_merged_alike_is_told_of_no_object_and_merged_otherwise_once_for_each() -> None:
    whole = shapely.union_all([o.geometry for o in BEFORE[:2]] + [box(300, 490, 700, 510)])
    wider = whole.union(box(300, 450, 700, 550))
    one, same, other = (
        replace(DRAWN, uuid=f"00000000-0000-4000-8000-0000000001{n:02d}", geometry=shape)
        for n, shape in enumerate((whole, whole, wider))
    )
    assert conflicts_of([done("a", [one, BEFORE[2]], BEFORE), done("b", [same, BEFORE[2]], BEFORE)]) == []
    found = conflicts_of([done("a", [one, BEFORE[2]], BEFORE), done("b", [other, BEFORE[2]], BEFORE)])
    assert [c["object"] for c in found] == sorted(o.uuid for o in BEFORE[:2])


def test_one_rater_twice_is_no_conflict() -> None:
    changed = [replace(BEFORE[0], path_class="Stroma"), *BEFORE[1:]]
    assert conflicts_of([done("a", changed, BEFORE), done("a", BEFORE, BEFORE)]) == []
    assert len(conflicts_of([done("a", changed, BEFORE), done("b", BEFORE, BEFORE)])) == 1


def test_a_point_that_two_moved_apart_is_a_conflict_without_a_figure() -> None:
    point = PathObject("p", Kind.ANNOTATION, Point(10, 10), "Tumor")
    one, other = ([replace(point, geometry=Point(x, 10))] for x in (50, 90))
    (conflict,) = conflicts_of([done("a", one, [point]), done("b", other, [point])])
    assert (conflict["differs"], conflict["iou"]) == ("shape", None)


FATES = st.sampled_from(["leave", "delete", "class", "brush"])


def meet(item: PathObject, fate: str) -> list[PathObject]:
    if fate == "delete":
        return []
    if fate == "class":
        return [replace(item, path_class="Stroma")]
    return [brushed(item)] if fate == "brush" else [item]


@given(st.lists(st.tuples(FATES, FATES, FATES), min_size=3, max_size=3), st.permutations(range(3)))
def test_an_object_is_listed_exactly_when_two_raters_left_something_else(
    fates: list[tuple[str, str, str]], order: list[int]
) -> None:
    works = [
        done(f"r{r}", [o for item, own in zip(BEFORE, fates, strict=True) for o in meet(item, own[r])], BEFORE)
        for r in range(3)
    ]
    found = conflicts_of([works[i] for i in order])
    wanted = {item.uuid for item, own in zip(BEFORE, fates, strict=True) if len(set(own)) > 1}
    assert {c["object"] for c in found} == wanted
    assert len(found) == len(wanted)
    for conflict in found:
        assert {side["rater"] for side in conflict["raters"]} == {"r0", "r1", "r2"}
