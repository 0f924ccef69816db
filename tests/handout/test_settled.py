"""Where a person has decided, a newer model does not speak again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shapely import box
from shapely.affinity import translate

from tests.handout.made import annotations_of, brushed, handed_out, objects_of, region, save, slide, tiles
from wsi_pipeline.handout.settled import without_settled
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.states import REVIEW_VERDICT, Verdict, verdict_of

OTHER_RUN = "fedcba9876543210"


def person(uuid: str, x: float, y: float, right: float, bottom: float, name: str | None = "Tumor") -> PathObject:
    return PathObject(uuid, Kind.ANNOTATION, box(x, y, right, bottom), name)


NEW = person("n", 0, 0, 100, 100)


@pytest.mark.parametrize(
    ("work", "stays"),
    [
        ([], True),
        ([person("p", 0, 0, 100, 100)], False),
        # Half of it lies in a larger region of its class, or in two together.
        ([person("p", 0, 0, 60, 5000)], False),
        ([person("p", 0, 0, 30, 900), person("q", 70, 0, 100, 900)], False),
        ([person("p", 0, 0, 40, 5000)], True),
        # Within a region of another class it says something new, unless it is the same region.
        ([person("p", -900, -900, 900, 900, "Stroma")], True),
        ([person("p", -900, -900, 900, 900, None)], True),
        ([person("p", 5, 0, 105, 100, "Ignore*")], False),
        ([person("p", 300, 0, 400, 100)], True),
    ],
)
def test_a_prediction_stays_only_where_it_adds_something(work: list[PathObject], stays: bool) -> None:
    assert (NEW in without_settled([NEW], work, [])) is stays


def test_what_was_deleted_does_not_come_back_from_another_model() -> None:
    assert without_settled([NEW], [], [person("d", -5, 0, 95, 100)]) == []
    # A large region that was deleted says nothing about a small one in it.
    assert without_settled([NEW], [], [person("d", -500, -500, 500, 500)]) == [NEW]


def test_tiles_are_not_about_regions() -> None:
    (tile,) = tiles("s1", 1)
    assert without_settled([tile], [person("p", 0, 0, 512, 512)], []) == [tile]


def test_a_tile_that_was_judged_is_not_asked_again(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    judged, other = tiles("s1", 2)
    flagged = replace(judged, measurements={**judged.measurements, REVIEW_VERDICT: 2.0})
    save(run, [*annotations_of(run), flagged, other])
    handed_out(tmp_path, slide(tmp_path, run_id=OTHER_RUN))
    now = [o for o in objects_of(run) if o.kind is Kind.TILE]
    assert {o.uuid for o in now} == {judged.uuid, tiles("s1", 2, OTHER_RUN)[1].uuid}
    assert [verdict_of(o.measurements) for o in now if o.uuid == judged.uuid] == [Verdict.FLAGGED]


@pytest.mark.parametrize("by", [(150, 0), (0, 0)])
def test_what_a_person_moved_away_or_cut_down_does_not_come_back(tmp_path: Path, by: tuple[int, int]) -> None:
    run, _ = handed_out(tmp_path)
    first, *rest = annotations_of(run)
    assert first.geometry is not None
    shape = translate(first.geometry, *by) if any(by) else first.geometry.intersection(box(420, 420, 470, 580))
    save(run, [replace(first, geometry=shape, measurements={}), *rest, *tiles("s1", 2)])
    handed_out(tmp_path, slide(tmp_path, run_id=OTHER_RUN))
    there = [o for o in annotations_of(run) if o.geometry is not None and o.geometry.centroid.x < 800]
    assert [o.uuid for o in there] == [first.uuid]


def test_a_newer_model_leaves_out_what_is_settled_and_says_so(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    a, b, c = annotations_of(run)
    assert b.geometry is not None
    merged = replace(person("1" * 8 + "-0000-4000-8000-" + "0" * 12, 0, 0, 1, 1), geometry=translate(b.geometry, 10, 0))
    save(run, [brushed(a), merged, *tiles("s1", 2)])
    newer = [region("s1", x, radius=84, run_id=OTHER_RUN) for x in (500, 1200, 1900, 2600)]
    _, result = handed_out(tmp_path, slide(tmp_path, regions=newer, run_id=OTHER_RUN))
    # a was brushed, b drawn anew, c deleted; only the fourth is news.
    assert {o.uuid for o in annotations_of(run)} == {a.uuid, merged.uuid, newer[3].uuid}
    assert c.uuid not in {o.uuid for o in annotations_of(run)}
    assert any("3 predictions lie where a person has worked" in text for text in result.warnings)


def test_called_again_nothing_changes(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    save(run, [brushed(o) for o in annotations_of(run)])
    newer = slide(tmp_path, run_id=OTHER_RUN)
    handed_out(tmp_path, newer)
    before = (run.handout / "batch-1" / "plan.json").read_bytes(), [o.uuid for o in annotations_of(run)]
    _, result = handed_out(tmp_path, newer)
    assert ((run.handout / "batch-1" / "plan.json").read_bytes(), [o.uuid for o in annotations_of(run)]) == before
    assert result.warnings == []
