"""How progress is told: a line for each item that has something to say, and now and then one for the others."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console
from rich.progress import Progress as RichBars

from wsi_pipeline.cli.progress import BarProgress
from wsi_pipeline.progress import LogProgress


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "wsi_pipeline")
    return caplog


def test_items_with_a_note_have_a_line_each(lines: pytest.LogCaptureFixture) -> None:
    progress = LogProgress()
    progress.begin("predict", 2)
    progress.finish("a", "3 regions")
    progress.finish("b", "failed")
    assert lines.messages == ["predict: 2 to do", "predict: 1/2 a: 3 regions", "predict: 2/2 b: failed"]


def test_items_without_a_note_are_counted_and_told_now_and_then(lines: pytest.LogCaptureFixture) -> None:
    quiet = LogProgress(every_s=3600)
    quiet.begin("collect", 3)
    for name in "abc":
        quiet.finish(name, "")
    assert lines.messages == ["collect: 3 to do"]
    lines.clear()
    loud = LogProgress(every_s=0)
    loud.begin("collect", 2)
    loud.finish("a", "")
    loud.finish("b", "")
    assert lines.messages == ["collect: 2 to do", "collect: 1/2 a", "collect: 2/2 b"]


def test_the_bar_moves_with_items_that_say_nothing(lines: pytest.LogCaptureFixture) -> None:
    bars = RichBars(console=Console(file=io.StringIO()))
    progress = BarProgress(bars)
    progress.begin("collect", 2)
    progress.finish("a", "")
    (task,) = bars.tasks
    assert (task.description, task.completed, task.total) == ("collect", 1, 2)
    assert lines.messages == []
    progress.finish("b", "read")
    assert lines.messages == ["b: read"]
    progress.end()
    assert bars.tasks == []
