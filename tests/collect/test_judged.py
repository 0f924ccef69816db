"""A verdict in the review panel comes back: as a row, and in the queue."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.handout.made import COSTS, REVIEW, annotations_of, handed_out, project_of, save, tiles
from wsi_pipeline.collect import collect
from wsi_pipeline.errors import StoreError
from wsi_pipeline.objects import PathObject
from wsi_pipeline.regions import ReviewTile, write_tiles
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.queue import write_queue
from wsi_pipeline.states import META_PROGRESS, REVIEW_VERDICT, Verdict, verdict_of


def judged(item: PathObject, value: float) -> PathObject:
    return replace(item, measurements={**item.measurements, REVIEW_VERDICT: value})


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found, _ = handed_out(tmp_path)
    first, second = tiles("s1", 2)
    save(found, [*annotations_of(found), judged(first, 2.0), second], state="in_progress")
    collect(found, REVIEW, COSTS)
    return found


def test_what_was_judged_is_a_row_with_place_verdict_and_reason(run: RunDir) -> None:
    (row,) = pq.read_table(run.judged_tiles).to_pylist()
    assert (row["slide_id"], row["batch"], row["verdict"]) == ("s1", "batch-1", "flagged")
    assert (row["x"], row["y"], row["width"], row["height"]) == (0, 0, 512, 512)
    assert "border unclear" in row["reason"]


def test_a_verdict_that_was_taken_back_is_gone_and_the_same_collection_gives_the_same_bytes(run: RunDir) -> None:
    before = run.judged_tiles.read_bytes()
    collect(run, REVIEW, COSTS)
    assert run.judged_tiles.read_bytes() == before
    save(run, [*annotations_of(run), *tiles("s1", 2)])
    collect(run, REVIEW, COSTS)
    assert pq.read_table(run.judged_tiles).num_rows == 0


def test_where_a_rater_stands_is_counted_of_the_tiles_and_not_of_the_panels_words(run: RunDir, tmp_path: Path) -> None:
    project = project_of(run)
    project.set_metadata(1, {META_PROGRESS: "2 of 2 judged"})
    project.save()
    (image,) = collect(run, REVIEW, COSTS).metrics["images"]
    assert image["tiles"] == {"shown": 2, "judged": 1, "flagged": 1}
    first, second = tiles("s1", 2)
    save(run, [*annotations_of(run), judged(first, 1.0), judged(second, 2.0)])
    (image,) = collect(run, REVIEW, COSTS).metrics["images"]
    assert image["tiles"] == {"shown": 2, "judged": 2, "flagged": 1}
    # A tile of a person's own is no review tile.
    save(run, [*annotations_of(run), replace(first, path_class="Tumor")])
    (image,) = collect(run, REVIEW, COSTS).metrics["images"]
    assert image["tiles"] == {"shown": 0, "judged": 0, "flagged": 0}


def queue_of(run: RunDir) -> list[str]:
    rows = [
        ReviewTile("s1", 512 * i, 0, 512, 512, 0.9, 0.3, 0.5, 0.6, 0.5 / (i + 1), i + 1, True, "border unclear")
        for i in range(2)
    ]
    write_tiles(run.slide("s1").tiles, rows)
    write_queue(run, ["s1"])
    with run.queue.open(newline="") as file:
        return [row["verdict"] for row in csv.DictReader(file)]


def test_the_queue_says_which_tiles_were_judged(run: RunDir) -> None:
    assert queue_of(run) == ["flagged", ""]
    first, second = tiles("s1", 2)
    save(run, [*annotations_of(run), judged(first, 1.0), judged(second, 1.0)])
    collect(run, REVIEW, COSTS)
    assert queue_of(run) == ["accepted", "accepted"]


def test_a_damaged_table_is_one_error(run: RunDir) -> None:
    run.judged_tiles.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"judged_tiles\.parquet cannot be read"):
        queue_of(run)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(1.0, Verdict.ACCEPTED), (2.0, Verdict.FLAGGED), (0.0, None), (float("nan"), None), (3.0, None)],
)
def test_the_panels_numbers_have_words(value: float, verdict: Verdict | None) -> None:
    assert verdict_of({REVIEW_VERDICT: value}) is verdict
    assert verdict_of({}) is None
