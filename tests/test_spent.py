"""What computing took: laps add up to the whole, lines survive crashes, and a full disk loses no work."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from wsi_pipeline.spent import PREDICT, TRAIN, Meter, Spent, append, read_spent


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_laps_add_up_to_the_whole_and_name_what_was_through(tmp_path: Path) -> None:
    path = tmp_path / "log" / "compute.jsonl"
    start, cpu = time.perf_counter(), time.process_time()
    meter = Meter(path, PREDICT)
    time.sleep(0.05)
    meter.lap(device="cpu", slide_id="a")
    burn(0.05)
    meter.lap(device="cpu", units=3, here=False, slide_id="b")
    meter.lap(device="cuda:0")
    whole, burnt = time.perf_counter() - start, time.process_time() - cpu
    one, two, rest = read_spent(path)
    assert (one.slide_id, two.slide_id, rest.slide_id) == ("a", "b", None)
    assert (one.units, two.units) == (1, 3)
    assert one.wall_s >= 0.049
    assert one.cpu_s is not None
    assert one.cpu_s <= burnt + 0.001
    assert two.cpu_s is None
    assert two.paid_s == pytest.approx(3 * two.wall_s)
    assert one.wall_s + two.wall_s + rest.wall_s == pytest.approx(whole, abs=0.01)
    assert [item.on_gpu for item in (one, two, rest)] == [False, False, True]


def test_what_was_written_is_read_and_later_calls_add_to_it(tmp_path: Path) -> None:
    path = tmp_path / "compute.jsonl"
    assert read_spent(path) == []
    items = [Spent(PREDICT, "cpu", 1, 1.5, 2.5, "a"), Spent(TRAIN, "cuda", 2, 0.0)]
    append(path, items[:1])
    append(path, items[1:])
    assert read_spent(path) == items


@pytest.mark.parametrize(
    "line",
    [
        b'{"schema":1,"stage":"pre',
        b"[]",
        b'{"schema":2,"stage":"predict","device":"cpu","units":1,"wall_s":1,"cpu_s":1,"slide_id":"a"}',
        b'{"schema":1,"stage":"predict","device":"cpu","units":0,"wall_s":1,"cpu_s":1,"slide_id":"a"}',
        b'{"schema":1,"stage":"predict","device":"cpu","units":1,"wall_s":-1,"cpu_s":1,"slide_id":"a"}',
        b'{"schema":1,"stage":"predict","device":"cpu","units":1,"wall_s":"long","cpu_s":1,"slide_id":"a"}',
        b'{"schema":1,"stage":"predict","device":"cpu","units":1,"wall_s":1}',
    ],
)
def test_a_line_that_is_none_is_left_out_and_the_next_is_kept(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "compute.jsonl"
    item = Spent(PREDICT, "cpu", 1, 1.5, 2.5, "a")
    append(path, [item])
    with path.open("ab") as file:
        file.write(line)
    append(path, [item])
    assert read_spent(path) == [item, item]


def test_what_cannot_be_noted_is_said_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file" / "compute.jsonl"
    path.parent.write_text("no folder")
    logger = logging.getLogger("wsi_pipeline")
    logger.propagate, before = True, logger.propagate
    try:
        Meter(path, PREDICT).lap(device="cpu")
    finally:
        logger.propagate = before
    assert "what computing took cannot be kept" in caplog.text
