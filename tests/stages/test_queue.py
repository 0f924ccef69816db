"""The cohort's queue: one table, in one order, whole or not at all."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from wsi_pipeline.regions import ReviewTile, write_tiles
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.queue import COLUMNS, write_queue


def tile(slide_id: str, rank: int, score: float, *, flagged: bool = True, audit: bool = False) -> ReviewTile:
    return ReviewTile(
        slide_id, 512 * rank, 0, 512, 500, 0.9, 0.3, 0.5, 0.6, score, rank, flagged, 'border, "unclear"', audit=audit
    )


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    write_tiles(run.slide("a").tiles, [tile("a", 1, 50.0), tile("a", 2, 5.0, flagged=False, audit=True)])
    write_tiles(
        run.slide("b").tiles,
        [tile("b", 1, 70.04), tile("b", 2, 50.0), tile("b", 3, 90.0, flagged=False)],
    )
    return run


def rows_of(run: RunDir) -> list[dict[str, str]]:
    with run.queue.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_largest_expected_change_comes_first_and_the_random_check_last(run: RunDir) -> None:
    assert write_queue(run, ["b", "a"]) == 4
    rows = rows_of(run)
    assert tuple(rows[0]) == COLUMNS
    assert [(r["slide"], r["rank"], r["score"]) for r in rows] == [
        ("b", "1", "70.0"), ("a", "2", "50.0"), ("b", "3", "50.0"), ("a", "4", "5.0"),
    ]  # fmt: skip
    assert [r["audit"] for r in rows] == ["false", "false", "false", "true"]
    assert (rows[0]["x"], rows[0]["width"], rows[0]["height"]) == ("512", "512", "500")
    assert rows[0]["reason"] == 'border, "unclear"'


def test_the_order_of_slides_changes_no_byte(run: RunDir) -> None:
    write_queue(run, ["a", "b"])
    before = run.queue.read_bytes()
    write_queue(run, ["b", "a"])
    assert run.queue.read_bytes() == before


def test_a_slide_without_its_table_is_left_out_with_a_warning(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    run.slide("c").tiles.parent.mkdir(parents=True)
    run.slide("c").tiles.write_bytes(b"half")
    assert write_queue(run, ["a", "c", "nowhere"]) == 2
    assert {r.getMessage().split(":")[0] for r in caplog.records} == {"c", "nowhere"}


def test_no_slide_is_a_table_without_rows(tmp_path: Path) -> None:
    assert write_queue(RunDir(tmp_path), []) == 0
    assert rows_of(RunDir(tmp_path)) == []
