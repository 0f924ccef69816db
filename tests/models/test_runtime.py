"""Choosing how to run: measured, checked, kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.nets import contrasty_unet, tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models import Maps, ModelCard, RuntimeChoice, Segmenter, Way, choose_runtime, machine, runtime
from wsi_pipeline.models.runtime import choose, kept_choices, probe, resolve_device, ways
from wsi_pipeline.models.torch_runtime import TorchSegmenter

CARD = tumor_card(sha256="c" * 64)


@pytest.fixture(autouse=True)
def _fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "_SECONDS", 0.05)
    # Compiling has tests of its own.
    monkeypatch.setenv("CXX", "no-such-compiler")


class Slowed:
    """A network that computes everything so many times over."""

    def __init__(self, card: ModelCard, times: int, temperature: float) -> None:
        self._inner = TorchSegmenter(card.model_copy(update={"temperature": temperature}), contrasty_unet())
        self._times = times
        self.card = card
        self.runtime = "torch"

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        for _ in range(self._times - 1):
            self._inner.predict(images)
        return self._inner.predict(images)


def opener(opened: list[Way], *, slow: str, wrong: str = "", broken: str = "") -> Callable[[Way, int], Segmenter]:
    def open_way(way: Way, threads: int) -> Segmenter:
        opened.append(way)
        if way.runtime == broken:
            raise RuntimeError("this processor cannot do that\nand much more")
        return Slowed(CARD, 4 if way.runtime == slow else 1, 3.0 if way.runtime == wrong else 1.0)

    return open_way


def decide(open_way: Callable[[Way, int], Segmenter], refresh: bool = False) -> RuntimeChoice:
    return choose(CARD, open_way, device="cpu", runtime="auto", precision="auto", threads=1, refresh=refresh)


@pytest.mark.parametrize("slow", ["torch", "openvino"])
def test_the_faster_way_is_chosen_and_the_reason_says_so(slow: str) -> None:
    choice = decide(opener([], slow=slow))
    assert choice.runtime == {"torch": "openvino", "openvino": "torch"}[slow]
    assert choice.reason.startswith(f"{choice.runtime} {choice.precision} on cpu: the fastest measured, ")
    assert {m.way.runtime for m in choice.measurements} == {"torch", "openvino"}
    assert all(m.mpx_per_s > 0 and m.refused is None for m in choice.measurements)


def test_a_faster_way_with_another_map_is_refused() -> None:
    choice = decide(opener([], slow="torch", wrong="openvino"))
    assert choice.runtime == "torch"
    refused = [m for m in choice.measurements if m.refused]
    assert [m.way.runtime for m in refused] == ["openvino"] * len(refused)
    assert refused[0].difference > 0.02
    assert "from torch in fp32" in choice.reason


def test_a_library_that_does_not_load_is_refused_and_the_others_go_on() -> None:
    def open_way(way: Way, threads: int) -> Segmenter:
        if way.runtime == "openvino":
            raise ImportError("libopenvino.so: cannot open shared object file")
        return opener([], slow="torch")(way, threads)

    choice = decide(open_way)
    assert choice.runtime == "torch"
    assert "libopenvino.so: cannot open shared object file" in choice.reason


def test_a_way_that_fails_is_refused_with_its_first_line() -> None:
    choice = decide(opener([], slow="torch", broken="openvino"))
    assert choice.runtime == "torch"
    assert "this processor cannot do that" in choice.reason
    assert "\n" not in choice.reason


def test_a_choice_is_kept_and_measured_anew_only_when_asked() -> None:
    opened: list[Way] = []
    first = decide(opener(opened, slow="torch"))
    assert opened
    opened.clear()
    second = decide(opener(opened, slow="openvino"))
    assert not opened
    assert (first.cached, second.cached) == (False, True)
    assert (second.runtime, second.measurements) == (first.runtime, first.measurements)
    assert decide(opener(opened, slow="openvino"), refresh=True).runtime == "torch"
    assert opened


def test_what_is_kept_is_listed_by_model_unless_it_is_of_another_processor(tmp_path: Path) -> None:
    assert kept_choices() == []
    chosen = decide(opener([], slow="torch"))
    ((name, listed),) = kept_choices()
    assert name
    assert (listed.runtime, listed.reason, listed.cached) == (chosen.runtime, chosen.reason, True)
    (kept,) = (tmp_path / "cache" / "runtime").iterdir()
    raw = json.loads(kept.read_text())
    kept.write_text(json.dumps({**raw, "machine": "another"}))
    assert kept_choices() == []
    kept.write_text("{")
    assert kept_choices() == []


class Threaded:
    """A model whose speed depends on the number of its threads."""

    def __init__(self, card: ModelCard, seconds: float) -> None:
        self.card, self._seconds, self.runtime = card, seconds, "torch"

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        time.sleep(self._seconds)
        return Maps(images[..., 0][:, None], images[..., 0])


@pytest.mark.parametrize(
    ("seconds", "asked", "wanted"),
    [
        ({8: 0.06, 4: 0.03}, None, 4),
        ({8: 0.03, 4: 0.06}, None, 8),
        ({8: 0.03, 4: 0.03}, None, 8),
        ({8: 0.06, 4: 0.03}, 8, 8),
    ],
)
def test_half_the_threads_are_taken_where_they_are_faster_and_nobody_asked_for_a_number(
    seconds: dict[int, float], asked: int | None, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "available_cores", lambda: 8)
    two = (Way("torch", "cpu", "fp32"), Way("openvino", "cpu", "fp32"))

    def decide_threads() -> RuntimeChoice:
        return choose(
            CARD, lambda way, threads: Threaded(CARD, seconds[threads]), device="cpu", runtime="auto",
            precision="auto", threads=asked, refresh=False, find_ways=lambda *_: two,
        )  # fmt: skip

    choice = decide_threads()
    assert choice.threads == wanted
    assert (f"{wanted} threads (4: " in choice.reason) == (asked is None)
    assert decide_threads().threads == wanted


def test_with_few_cores_there_are_no_threads_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "available_cores", lambda: 3)
    assert (
        runtime._with_threads(CARD, RuntimeChoice("torch", "cpu", "fp32", 3, "fast"), opener([], slow="")).threads == 3
    )


def test_a_kept_choice_that_is_damaged_is_measured_again(tmp_path: Path) -> None:
    decide(opener([], slow="torch"))
    (kept,) = (tmp_path / "cache" / "runtime").iterdir()
    for text in ("", "{}", '{"runtime": 1}'):
        kept.write_text(text)
        assert not decide(opener([], slow="torch")).cached
    assert decide(opener([], slow="torch")).cached


def test_a_choice_holds_for_one_model_and_one_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = ways("cpu")
    files = {
        runtime._choice_file(card, candidates, threads)
        for card in (CARD, tumor_card(sha256="d" * 64), tumor_card(sha256="c" * 64, temperature=2))
        for threads in (1, 2)
    }
    assert len(files) == 6
    for name, change in (
        ("cpu_name", lambda: "another processor"),
        ("cpu_features", lambda: "avx2"),
        ("gpu_name", lambda device: "another GPU"),
        ("installed", lambda name: f"another {name}"),
    ):
        monkeypatch.setattr(runtime, name, change)
        files.add(runtime._choice_file(CARD, candidates, 1))
    assert len(files) == 10
    monkeypatch.setattr(runtime, "installed", lambda name: "0" if name == "onnxruntime" else f"another {name}")
    assert runtime._choice_file(CARD, candidates, 1) not in files


def test_a_package_is_found_under_the_other_names_that_it_is_published_by(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    real = importlib.metadata.version
    assert machine.installed("onnxruntime") == real("onnxruntime")
    assert machine.installed("wsi-pipeline") is not None

    def version(name: str) -> str:
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.20.1" if name == "onnxruntime-gpu" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert machine.installed("onnxruntime") == "1.20.1"
    assert machine.installed("no_such_package") is None


def test_a_choice_goes_through_json() -> None:
    choice = decide(opener([], slow="torch", broken="openvino"))
    assert RuntimeChoice.from_json(choice.to_json()) == choice


def test_a_wish_is_met_without_a_measurement(model_folder: Path) -> None:
    choice = choose_runtime(model_folder, device="cpu", runtime="torch", precision="fp32", threads=3)
    assert (choice.runtime, choice.device, choice.precision, choice.threads) == ("torch", "cpu", "fp32", 3)
    assert choice.reason == "torch fp32 on cpu: as asked"
    assert choice.measurements == ()


def test_the_real_model_is_measured_on_the_real_runtimes(model_folder: Path) -> None:
    choice = choose_runtime(model_folder, device="cpu", threads=1)
    assert {m.way.runtime for m in choice.measurements} == {"torch", "openvino"}
    assert all(m.difference <= 0.02 for m in choice.measurements if m.way.precision == "fp32")
    assert choose_runtime(model_folder, device="cpu", threads=1).cached


def test_the_baseline_has_nothing_to_choose() -> None:
    choice = choose_runtime("baseline:stain-density")
    assert (choice.runtime, choice.device) == ("numpy", "cpu")


def test_ways_on_a_gpu_are_torch_in_every_precision() -> None:
    assert [str(way) for way in ways("cuda:0")] == [f"torch {p} on cuda:0" for p in ("fp32", "bf16", "fp16")]
    assert [way.precision for way in ways("cuda:1", precision="fp16")] == ["fp16"]
    with pytest.raises(ModelError, match="openvino runs on the CPU only"):
        ways("cuda:0", runtime="openvino")


def test_bf16_is_tried_on_a_processor_that_is_made_for_it_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_fast_bf16", lambda: False)
    assert {way.precision for way in ways("cpu")} == {"fp32"}
    assert [str(way) for way in ways("cpu", "openvino", "bf16")] == ["openvino bf16 on cpu"]
    monkeypatch.setattr(runtime, "has_fast_bf16", lambda: True)
    assert {way.precision for way in ways("cpu")} == {"fp32", "bf16"}


def test_without_openvino_torch_is_left_and_a_wish_for_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "installed", lambda name: None if name == "openvino" else "1")
    assert [way.runtime for way in ways("cpu", precision="fp32")] == ["torch"]
    with pytest.raises(ModelError, match=r"pip install 'wsi-pipeline\[openvino\]'"):
        ways("cpu", "openvino")


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("gpu", "unknown device 'gpu'"),
        ("cuda:x", "unknown device"),
        ("tpu:0", "unknown device"),
        ("", "unknown device"),
    ],
)
def test_an_unknown_device_is_refused_with_those_known(device: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=f"{sentence}.*known here: auto, cpu, cuda"):
        resolve_device(device)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match=r"device cuda:63 is not there: torch .* sees"):
        resolve_device("cuda:63")


@pytest.mark.parametrize(("wish", "word"), [({"runtime": "onnx"}, "runtime"), ({"precision": "int8"}, "precision")])
def test_an_unknown_wish_is_refused(wish: dict[str, str], word: str) -> None:
    with pytest.raises(ModelError, match=f"unknown {word} .*known here: auto, "):
        ways("cpu", **wish)


def test_the_probe_is_a_window_that_the_model_takes() -> None:
    image = probe(tumor_card(window=128, halo=48))
    assert image.shape == (1, 224, 224, 3)
    assert (image == probe(tumor_card(window=128, halo=48))).all()
    assert probe(tumor_card(window=8192)).shape == (1, 640, 640, 3)


def test_the_cache_lies_where_it_is_told_or_in_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("WSI_PIPELINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.cache_dir() == tmp_path / "wsi-pipeline"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert machine.cache_dir() == tmp_path / ".cache" / "wsi-pipeline"


def test_this_machine_has_cores_and_a_processor_with_a_name() -> None:
    assert machine.available_cores() >= 1
    assert machine.cpu_name()
    assert machine.installed("numpy") == np.__version__
    assert machine.installed("no_such_distribution") is None
