"""Killed at any moment and started again: the bytes of a run that was left alone, run.json included."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.models.nets import contrasty_unet, tumor_card
from tests.stages.made import MODEL, files_of, run_of, small_slide, start, states_of, write_config
from tests.watching import files_below
from wsi_pipeline.cli.app import run
from wsi_pipeline.models.unet import save_model


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration over three slides, one of them broken."""
    folder = tmp_path_factory.mktemp("cohort")
    even = small_slide(folder / "even.tif", width=1200, height=1000)
    odd = small_slide(folder / "odd.tif", width=1100, height=1300, seed=4, mpp=0.42)
    (folder / "text.svs").write_text("no slide")
    return write_config(folder, [even, "text.svs", odd], model=MODEL.replace("mpp=1", "mpp=0.7"))


@pytest.fixture(scope="module")
def alone(cohort: Path) -> dict[str, bytes]:
    """Every file of a run that nobody disturbs."""
    shutil.rmtree(run_of(cohort).root, ignore_errors=True)
    assert run(["predict", str(cohort)]) == 2
    return files_of(run_of(cohort))


def kill_once_there_are(process: subprocess.Popen[str], config: Path, files: int, delay: float = 0.0) -> bool:
    """SIGKILL as soon as the slides' folders hold so many files, or `delay` seconds later; false if it was through."""
    with process:
        while process.poll() is None:
            if len(files_below(run_of(config).root / "slides")) >= files:
                time.sleep(delay)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        process.communicate()
    return process.returncode == -signal.SIGKILL


def fresh(config: Path) -> None:
    shutil.rmtree(run_of(config).root, ignore_errors=True)


def test_a_run_that_is_killed_again_and_again_ends_in_the_bytes_of_one_left_alone(
    cohort: Path, alone: dict[str, bytes]
) -> None:
    fresh(cohort)
    slides = [name for name in alone if name.startswith("slides/")]
    assert kill_once_there_are(start("predict", cohort), cohort, 1)
    assert kill_once_there_are(start("predict", cohort), cohort, len(slides) // 2)
    assert run(["predict", str(cohort)]) == 2
    assert states_of(cohort) == {"even.tif": "done", "odd.tif": "done", "text.svs": "failed"}
    assert files_of(run_of(cohort)) == alone


@pytest.mark.slow
@pytest.mark.timeout(1200)  # twenty starts of Python and more, on a machine that may be busy
def test_killed_at_each_of_many_moments(cohort: Path, alone: dict[str, bytes]) -> None:
    slides = [name for name in alone if name.startswith("slides/")]
    moments = [*range(2, len(slides), max(1, len(slides) // 8)), len(slides)]
    kills = 0
    for files in moments:
        fresh(cohort)
        kills += kill_once_there_are(start("predict", cohort), cohort, files)
        assert run(["predict", str(cohort)]) == 2
        assert files_of(run_of(cohort)) == alone, files
    assert kills >= len(moments) - 1


@pytest.mark.slow
@pytest.mark.timeout(1200)  # twenty starts of Python and more, on a machine that may be busy
def test_killed_after_random_delays_without_a_fresh_start(cohort: Path, alone: dict[str, bytes]) -> None:
    rng = random.Random(0)
    fresh(cohort)
    for _ in range(6):
        kill_once_there_are(start("predict", cohort), cohort, 1, delay=rng.uniform(0, 1.5))
    assert run(["predict", str(cohort)]) == 2
    assert files_of(run_of(cohort)) == alone


@pytest.mark.slow
@pytest.mark.timeout(1200)  # twenty starts of Python and more, on a machine that may be busy
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_a_network_that_is_killed_goes_on_with_the_same_bytes(runtime: str, tmp_path: Path) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    save_model(tmp_path / "model", contrasty_unet(), tumor_card(mpp=0.7))
    small_slide(tmp_path / "slide.tif", width=1400, height=1200)
    config = write_config(tmp_path, ["slide.tif"], model={"path": "model", "runtime": runtime})
    process = start("predict", config)
    assert process.wait() == 0, process.communicate()
    process.communicate()
    alone = files_of(run_of(config))
    for files in (5, 12, len(alone) - 3):
        fresh(config)
        kill_once_there_are(start("predict", config), config, files)
        process = start("predict", config)
        process.communicate()
        assert process.returncode == 0
        assert files_of(run_of(config)) == alone, files


def test_other_blocks_on_resume_give_the_same_bytes(cohort: Path, alone: dict[str, bytes]) -> None:
    # A store keeps the blocks that it was begun with.
    fresh(cohort)
    text = cohort.read_text()
    assert kill_once_there_are(start("predict", cohort), cohort, 12)
    cohort.write_text(text.replace("block: 256", "block: 512").replace("window: 256", "window: 384"))
    assert run(["predict", str(cohort)]) == 2
    cohort.write_text(text)
    begun = {name.split("/")[1] for name in alone if name.startswith("slides/even-")}
    after = files_of(run_of(cohort))
    for slide_id in begun:
        names = [name for name in alone if name.startswith(f"slides/{slide_id}/")]
        assert {name: after[name] for name in names} == {name: alone[name] for name in names}
