"""torch.compile for real where there is a compiler; and how many windows a CPU is given at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.nets import contrasty_unet, tumor_card
from wsi_pipeline.cli import doctor
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models import Maps, ModelCard, Segmenter, Way, choose_runtime, runtime
from wsi_pipeline.models.machine import compiler_missing
from wsi_pipeline.models.runtime import BATCHES, Measurement, RuntimeChoice, choose, kept_choices, ways
from wsi_pipeline.models.torch_runtime import TorchSegmenter

CARD = tumor_card(sha256="c" * 64)
NO_COMPILER = compiler_missing()
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "_SECONDS", 0.05)


def compiling(tmp_path: Path, *arguments: str, **environment: str) -> list[str]:
    """The lines that `tests.models.compiling` prints in a process that has compiled nothing before."""
    asked = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"), **environment}
    command = [sys.executable, "-m", "tests.models.compiling", *arguments]
    done = subprocess.run(command, env=asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


# ---- compiled


@pytest.mark.slow
@pytest.mark.skipif(NO_COMPILER is not None, reason=f"torch.compile: {NO_COMPILER}")
@pytest.mark.timeout(900)
def test_a_compiled_net_gives_the_map_of_the_plain_one_for_windows_of_every_size(
    model_folder: Path, tmp_path: Path
) -> None:
    assert compiling(tmp_path, "same", str(model_folder)) == ["through"]


def test_without_a_compiler_it_is_not_tried_and_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    told = f"there is no C++ compiler ({tmp_path}/no-such-compiler)"
    assert compiler_missing() == told
    assert "torch.compile" not in {way.runtime for way in ways("cpu")}
    with pytest.raises(ModelError, match=r"runtime torch.compile: there is no C\+\+ compiler .*or use `runtime: auto`"):
        ways("cpu", "torch.compile")
    with pytest.raises(ModelError, match=r"there is no C\+\+ compiler .* set `model.runtime: torch`"):
        TorchSegmenter(CARD, contrasty_unet(), compile_net=True)
    doctor.doctor()
    shown = " ".join(capsys.readouterr().out.split())
    assert "torch.compile" in shown
    assert "not tried: there is no C++ compiler" in shown


def test_without_headers_it_is_not_tried_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    assert compiler_missing() == "Python's headers are missing (python3-dev)"
    (tmp_path / "Python.h").touch()
    assert compiler_missing() is None
    assert [str(way) for way in ways("cpu", "torch.compile")] == ["torch.compile fp32 on cpu"]


@pytest.mark.slow
@pytest.mark.skipif(NO_COMPILER is not None, reason=f"torch.compile: {NO_COMPILER}")
def test_a_compiler_that_fails_is_told(tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'internal compiler error' >&2\nexit 1\n")
    compiler.chmod(0o755)
    told, end = compiling(tmp_path, "fails", CXX=str(compiler))
    assert re.fullmatch(r"torch.compile fails \(.*\); set `model.runtime: torch`", told)
    assert end == "through"


def test_on_a_gpu_it_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"torch": "2", "triton": None}
    monkeypatch.setattr("wsi_pipeline.models.machine.installed", lambda name: there[name])
    monkeypatch.setattr("wsi_pipeline.models.machine.shutil.which", lambda name: name)
    monkeypatch.setattr("wsi_pipeline.models.machine.Path.is_file", lambda path: True)
    assert "torch.compile" not in {way.runtime for way in ways("cuda:0")}
    with pytest.raises(ModelError, match=r"runtime torch\.compile: Triton is missing.*or use `runtime: auto`"):
        ways("cuda:0", runtime="torch.compile")
    there["triton"] = "3"
    assert [str(way) for way in ways("cuda:1")] == [
        f"{name} {precision} on cuda:1" for name in ("torch", "torch.compile") for precision in ("fp32", "bf16", "fp16")
    ]


@pytest.mark.slow
@pytest.mark.skipif(NO_COMPILER is not None, reason=f"torch.compile: {NO_COMPILER}")
@pytest.mark.timeout(900)
def test_code_for_many_images_serves_any_number_of_them(model_folder: Path, tmp_path: Path) -> None:
    """The way it is done on a GPU, on this processor."""
    assert compiling(tmp_path, "batches", str(model_folder)) == ["through"]


# ---- whether it pays


def measured(name: str, mpx_per_s: float, start_s: float = 0.0, refused: str | None = None) -> Measurement:
    return Measurement(Way(name, "cpu", "fp32"), mpx_per_s, 0.0, refused, start_s)


def test_compiling_is_chosen_when_it_pays_for_itself_over_the_stated_work() -> None:
    plain = measured("torch", 1.0)
    # 1,000 Mpx take 1,000 s, or 833 s and the compiling.
    for start_s, chosen in ((100.0, "torch.compile"), (160.0, "torch.compile"), (170.0, "torch")):
        choice = runtime._fastest([plain, measured("torch.compile", 1.2, start_s)], 2)
        assert choice.runtime == chosen
    assert "torch.compile fp32 1.20 after 170 s of compiling" in choice.reason
    assert measured("torch", 0.0).worth == 0


def test_compiling_is_not_tried_where_another_way_is_far_ahead() -> None:
    assert runtime._pointless("fp32", [measured("torch", 1.0), measured("openvino", 1.4)]) is None
    assert runtime._pointless("fp32", [measured("torch", 1.0), measured("openvino", 1.6)]) == (
        "not tried, since openvino is 1.6 times as fast as torch"
    )
    assert runtime._pointless("fp32", [measured("torch", 1.0), measured("openvino", 9.0, refused="differs")]) is None
    assert runtime._pointless("fp32", [measured("openvino", 9.0)]) is None
    assert runtime._pointless("fp32", []) is None


def test_compiling_is_tried_for_the_precision_alone_that_is_the_fastest_without_it() -> None:
    before = [Measurement(Way("torch", "cuda:0", p), mpx, 0.0) for p, mpx in (("fp32", 1.0), ("bf16", 2.0))]
    assert runtime._pointless("fp32", before) == "not tried, since torch is faster in bf16"
    assert runtime._pointless("bf16", before) is None


class Timed:
    """A model that takes a while for each call, and some for each window; its map is the red of the image."""

    def __init__(self, card: ModelCard, call_s: float, window_s: float, *, wrong_together: bool = False) -> None:
        self._call_s, self._window_s, self._wrong = call_s, window_s, wrong_together
        self.card = card
        self.runtime = "torch"
        self.most = 0

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        time.sleep(self._call_s + self._window_s * len(images))
        self.most = max(self.most, len(images))
        red = images[..., 0]
        return Maps((255 - red if self._wrong and len(images) > 1 else red)[:, None], red)


def decide(open_way: Callable[[Way, int], Segmenter]) -> RuntimeChoice:
    two = (Way("torch", "cpu", "fp32"), Way("openvino", "cpu", "fp32"))
    return choose(
        CARD, open_way, device="cpu", runtime="auto", precision="auto", threads=1, refresh=False,
        find_ways=lambda *_: two,
    )  # fmt: skip


def test_starting_is_counted_for_compiling_alone_and_kept() -> None:
    def open_way(way: Way, threads: int) -> Segmenter:
        time.sleep(0.4)
        return Timed(CARD, 0, 0.01)

    names = ("torch", "torch.compile")
    choice = choose(
        CARD, open_way, device="cpu", runtime="auto", precision="auto", threads=1, refresh=False,
        find_ways=lambda *_: tuple(Way(name, "cpu", "fp32") for name in names),
    )  # fmt: skip
    starts = {m.way.runtime: m.start_s for m in choice.measurements if m.way.batch == 1}
    assert starts["torch"] == 0
    assert starts["torch.compile"] >= 0.4
    assert RuntimeChoice.from_json(choice.to_json()) == choice
    ((_, kept),) = kept_choices()
    assert kept.measurements == choice.measurements


# ---- windows at once


@pytest.mark.slow
def test_windows_go_together_where_calls_are_dear_and_not_where_they_are_not() -> None:
    together = decide(lambda way, threads: Timed(CARD, 0.2, 0.0))
    assert together.batch == BATCHES[-1]
    assert f"; {together.batch} of " in together.reason
    assert {m.way.batch for m in together.measurements} == set(BATCHES)


@pytest.mark.slow
def test_windows_stay_alone_where_nothing_is_gained() -> None:
    alone = decide(lambda way, threads: Timed(CARD, 0.0, 0.2))
    assert alone.batch == 1
    assert "; 1 of " in alone.reason


def test_windows_that_come_out_otherwise_together_stay_alone() -> None:
    choice = decide(lambda way, threads: Timed(CARD, 0.1, 0.0, wrong_together=True))
    assert choice.batch == 1
    assert [m.refused is None for m in choice.measurements if m.way.batch > 1] == [False] * (len(BATCHES) - 1)


def test_no_more_pixels_are_measured_together_than_one_large_window_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "LARGEST_WINDOW", CARD.window + 10)
    opened: list[Timed] = []

    def open_way(way: Way, threads: int) -> Segmenter:
        opened.append(Timed(CARD, 0.2, 0.0))
        return opened[-1]

    # Twice are too many, and one is left: nothing to choose.
    assert decide(open_way).batch == 1
    assert max(net.most for net in opened) == 1


@pytest.mark.slow
def test_the_real_model_is_measured_with_several_windows(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    choice = choose_runtime(model_folder, device="cpu", threads=1)
    assert {m.way.batch for m in choice.measurements} == set(BATCHES)
    assert choice.batch in BATCHES
    assert all(m.difference <= 0.02 for m in choice.measurements)
