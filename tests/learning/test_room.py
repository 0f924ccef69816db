from __future__ import annotations

import subprocess
import sys

import pytest

import wsi_pipeline.learning as room


def test_everything_that_the_room_names_is_there() -> None:
    assert sorted(room.__all__) == sorted(room._HOME)
    for name in room.__all__:
        assert getattr(room, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = room.trian


def test_deciding_and_evaluating_load_no_torch() -> None:
    code = (
        "import sys; from wsi_pipeline.learning import AnnotatedSlide, decide, evaluate, tiles_of; "
        "assert 'torch' not in sys.modules; from wsi_pipeline.learning import train; assert 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
