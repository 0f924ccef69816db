"""Killed at any moment and started again: the bytes of a run that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.inference.make import BASELINE, make_job, make_slide, make_unet, tree
from tests.watching import files_below
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.inference import BlockState, Engine, EngineSettings, PredictionStore

PROGRAM = """
import sys
from pathlib import Path
from tests.inference.make import make_job
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.inference import Engine, EngineSettings
from wsi_pipeline.models.ensemble import Passes

uri, store, model, limit, workers, tta, dropout = sys.argv[1:]
if int(limit):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
ref = SlideRef(slide_id="slide", uri=uri, name="slide.tif")
settings = EngineSettings(
    block=256,
    window=384,
    device="cpu",
    runtime="torch",
    precision="fp32",
    workers=int(workers) or None,
    passes=Passes(int(tta), int(dropout), above=0.1) if int(tta) + int(dropout) else None,
)
if __name__ == "__main__":
    with Engine(model, settings) as engine:
        for result in engine.predict([make_job(ref, Path(store))]):
            print(result.error or "complete", flush=True)
"""


def start(
    ref: SlideRef,
    store: Path,
    model: str = BASELINE,
    *,
    limit: int = 0,
    workers: int = 0,
    tta: int = 0,
    dropout: int = 0,
) -> subprocess.Popen[str]:
    """The program in a session of its own, as from a terminal of its own."""
    numbers = [str(number) for number in (limit, workers, tta, dropout)]
    command = [sys.executable, "-c", PROGRAM, ref.uri, str(store), model, *numbers]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": "."}
    return subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def kill_when(process: subprocess.Popen[str], store: Path, files: int, delay: float = 0.0) -> bool:
    """SIGKILL once the store has so many files; false when the program ended before."""
    while process.poll() is None:
        if len(files_below(store)) >= files:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return process.returncode == -signal.SIGKILL
        time.sleep(0.001)
    process.communicate()
    return False


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> SlideRef:
    return make_slide(tmp_path_factory.mktemp("slide") / "slide.tif", 1800, 1600)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_in_the_bytes_of_one_left_alone(
    ref: SlideRef, tmp_path: Path
) -> None:
    settings = EngineSettings(block=256, window=384)
    for name in ("alone", "killed"):
        if name == "killed":
            # While the store is made, after the first blocks, in the middle.
            kills = [kill_when(start(ref, tmp_path / name), tmp_path / name, files) for files in (2, 10, 40)]
            assert all(kills)
            assert (PredictionStore.open(tmp_path / name).blocks == BlockState.TODO).any()
        with Engine(BASELINE, settings) as engine:
            assert next(engine.predict([make_job(ref, tmp_path / name)])).complete
    assert tree(tmp_path / "killed") == tree(tmp_path / "alone")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[SlideRef, str, dict[str, str]]:
    """A slide, a network, and the files of a run that was left alone."""
    folder = tmp_path_factory.mktemp("network")
    ref = make_slide(folder / "slide.tif", 1000, 1000)
    model = make_unet(folder / "model")
    assert start(ref, folder / "alone", model).communicate()[0] == "complete\n"
    return ref, model, tree(folder / "alone")


@pytest.mark.slow
@pytest.mark.parametrize(("files", "delay"), [(4, 0.0), (9, 0.02), (14, 0.07), (21, 0.01)])
def test_a_network_killed_at_any_moment_ends_in_the_same_bytes(
    network: tuple[SlideRef, str, dict[str, str]], tmp_path: Path, files: int, delay: float
) -> None:
    ref, model, alone = network
    assert kill_when(start(ref, tmp_path / "killed", model), tmp_path / "killed", files, delay)
    assert start(ref, tmp_path / "killed", model).communicate()[0] == "complete\n"
    assert tree(tmp_path / "killed") == alone


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["passes", "blend"])
def test_several_predictions_of_a_place_end_in_the_same_bytes_after_a_kill(tmp_path: Path, kind: str) -> None:
    ref = make_slide(tmp_path / "slide.tif", 800, 600)
    if kind == "passes":
        model, passes = make_unet(tmp_path / "model", dropout=0.3), {"tta": 4, "dropout": 2}
    else:
        model, passes = make_unet(tmp_path / "model", window=128, blend=0.5), {}
    assert start(ref, tmp_path / "alone", model, **passes).communicate()[0] == "complete\n"
    assert kill_when(start(ref, tmp_path / "killed", model, **passes), tmp_path / "killed", 11)
    assert (PredictionStore.open(tmp_path / "killed").blocks == BlockState.TODO).any()
    assert start(ref, tmp_path / "killed", model, **passes).communicate()[0] == "complete\n"
    assert tree(tmp_path / "killed") == tree(tmp_path / "alone")
    assert list((tmp_path / "alone" / "mutual_information").rglob("c/*/*"))


def test_a_store_that_cannot_grow_is_named_and_goes_on_when_there_is_room(ref: SlideRef, tmp_path: Path) -> None:
    # Room for the attributes, not for a block.
    told = start(ref, tmp_path / "full", limit=4096).communicate()[0]
    assert "full cannot be written: File too large" in told
    assert not list((tmp_path / "full").rglob("*.partial"))
    with Engine(BASELINE, EngineSettings(block=256, window=384)) as engine:
        assert next(engine.predict([make_job(ref, tmp_path / "full")])).complete
        assert next(engine.predict([make_job(ref, tmp_path / "alone")])).complete
    assert tree(tmp_path / "full") == tree(tmp_path / "alone")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupt_from_the_keyboard_ends_the_program_and_keeps_what_is_done(
    ref: SlideRef, tmp_path: Path, workers: int
) -> None:
    process = start(ref, tmp_path / "p", workers=workers)
    while not files_below(tmp_path / "p", "c/0/*/*"):
        assert process.poll() is None
        time.sleep(0.001)
    # A terminal sends it to every process of the program.
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode not in (0, -signal.SIGKILL)
    states = PredictionStore.open(tmp_path / "p").blocks
    done = {(int(row), int(column)) for row, column in zip(*(states == BlockState.DONE).nonzero(), strict=True)}
    shards = {tuple(map(int, path.parts[-2:])) for path in (tmp_path / "p" / "probability" / "c").glob("0/*/*")}
    assert done
    assert done == shards


@pytest.mark.slow
def test_workers_of_a_client_that_was_killed_end_and_the_rest_can_be_done(ref: SlideRef, tmp_path: Path) -> None:
    process = start(ref, tmp_path / "killed", workers=2)
    while not files_below(tmp_path / "killed", "c/0/*/*"):
        assert process.poll() is None
        time.sleep(0.001)
    processes = psutil.Process(process.pid).children(recursive=True)
    assert processes
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Engine(BASELINE, EngineSettings(block=256, window=384)) as engine:
        assert next(engine.predict([make_job(ref, tmp_path / "killed")])).complete
        assert next(engine.predict([make_job(ref, tmp_path / "alone")])).complete
    _, alive = psutil.wait_procs(processes, timeout=120)
    assert not alive
    assert tree(tmp_path / "killed") == tree(tmp_path / "alone")
