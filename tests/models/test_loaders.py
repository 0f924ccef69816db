"""Models that people have: the same map as the network itself gives, found by what their path is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tests.models import saved
from tests.models.nets import contrasty_unet, texture, tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import sha256_file
from wsi_pipeline.models import Segmenter, Way, choose_runtime, load_card, load_segmenter
from wsi_pipeline.models.onnx_runtime import load_onnx
from wsi_pipeline.models.torch_runtime import TorchSegmenter
from wsi_pipeline.models.weights import sha256_of

IMAGES = np.stack([texture(96, 128, seed) for seed in (1, 2)])


def load(path: Path | str, runtime: str = "torch") -> Segmenter:
    return load_segmenter(path, device="cpu", runtime=runtime, precision="fp32", threads=1)


def close(found: NDArray[np.uint8], wanted: NDArray[np.uint8], steps: int = 1) -> None:
    assert found.dtype == np.uint8
    assert wanted.min() < 60
    assert wanted.max() > 195
    assert np.abs(found.astype(int) - wanted).max() <= steps


@pytest.fixture(scope="module")
def wanted() -> NDArray[np.uint8]:
    """What the bundled runtime gives for the network that the files hold."""
    return TorchSegmenter(tumor_card(), contrasty_unet()).predict(IMAGES).probability


@pytest.fixture(scope="module", params=["torchscript", "exported"])
def torch_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "torchscript":
        name = "model.pt"
        saved.save_torchscript(folder / name)
    else:
        name = "model.pt2"
        saved.save_exported(folder / name)
    return saved.write_card(folder, request.param, name)


def test_what_torch_saved_gives_the_network_s_own_map(torch_folder: Path, wanted: NDArray[np.uint8]) -> None:
    segmenter = load(torch_folder)
    close(segmenter.predict(IMAGES).probability, wanted)
    assert segmenter.runtime == "torch"


def test_the_weights_and_the_card_name_the_same_model(torch_folder: Path) -> None:
    card = load_card(torch_folder)
    assert load_card(torch_folder / "card.json") == load_card(torch_folder / str(card.weights)) == card
    assert card.model_id == f"{card.architecture}@{sha256_file(torch_folder / str(card.weights))[:12]}"


@pytest.mark.slow
def test_openvino_gives_the_same_map_and_is_measured_beside_torch(
    torch_folder: Path, wanted: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path))
    choice = choose_runtime(torch_folder, device="cpu", precision="fp32", threads=1)
    measured = {m.way.runtime: m for m in choice.measurements if m.way.batch == 1}
    assert set(measured) == {"torch", "openvino"}
    assert measured["openvino"].refused is None
    assert measured["openvino"].mpx_per_s > 0
    segmenter = load(torch_folder, "openvino")
    close(segmenter.predict(IMAGES).probability, wanted)
    # One, of another size, and many.
    for images in (IMAGES[:1, :64, :72], np.concatenate([IMAGES, IMAGES])):
        close(segmenter.predict(images).probability, load(torch_folder).predict(images).probability)
    with pytest.raises(ModelError, match=r"runs with torch or openvino, not with torch\.compile"):
        choose_runtime(torch_folder, device="cpu", runtime="torch.compile")


@pytest.mark.slow
def test_a_converted_network_starts_without_torch(torch_folder: Path) -> None:
    load(torch_folder, "openvino")
    program = (
        "import sys; from wsi_pipeline.models import load_segmenter\n"
        f"s = load_segmenter({str(torch_folder)!r}, device='cpu', runtime='openvino', precision='fp32', threads=1)\n"
        "print(s.runtime, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino", "False"]


def test_a_conversion_that_computes_something_else_is_refused_and_torch_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsi_pipeline.models import openvino_nets
    from wsi_pipeline.models.openvino_kept import traced

    saved.save_torchscript(tmp_path / "m.pt", Plain())
    saved.write_card(tmp_path, "torchscript", "m.pt")
    baked = traced(Halves(), 64)
    monkeypatch.setattr(openvino_nets, "traced", lambda graph, side: baked)
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelError, match=r"m\.pt: OpenVINO gives another map than torch for 1 of 64 x 64 px"):
        load(tmp_path, "openvino")
    choice = choose_runtime(tmp_path, device="cpu", precision="fp32", threads=1)
    assert choice.runtime == "torch"
    assert "OpenVINO gives another map than torch" in choice.reason


class Halves(nn.Module):
    """A map of another network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[..., :1] // 2).permute(0, 3, 1, 2)


def test_a_halo_that_the_card_lacks_is_measured(tmp_path: Path) -> None:
    net = nn.Conv2d(3, 2, 5, padding=2, bias=False)
    net.weight.data = torch.tensor([-0.2, 0.2]).view(2, 1, 1, 1).expand(2, 3, 5, 5).contiguous()
    saved.save_torchscript(tmp_path / "m.pt", net)
    saved.write_card(tmp_path, "torchscript", "m.pt", halo=None, stride=1)
    assert load_card(tmp_path).halo == 2


def test_a_program_for_one_size_needs_a_card_that_keeps_to_it(tmp_path: Path, wanted: NDArray[np.uint8]) -> None:
    saved.save_exported(tmp_path / "m.pt2", fixed=128)
    saved.write_card(tmp_path, "exported", "m.pt2")
    with pytest.raises(ModelError, match=r'images of 128 x 128 px only; write "window": 128, "fixed_window": true'):
        load(tmp_path)
    saved.write_card(tmp_path, "exported", "m.pt2", fixed_window=True, halo=24)
    images = np.stack([texture(128, 128, seed) for seed in (1, 2)])  # two, though it takes one at a time
    plain = TorchSegmenter(tumor_card(), contrasty_unet()).predict(images).probability
    close(load(tmp_path).predict(images).probability, plain)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"classes": saved.GLANDS, "activation": "sigmoid"}, r"gives \(1, 2, 64, 64\).*asks for \(1, 3, 64, 64\)"),
        ({"output_downsample": 8}, r"gives \(1, 2, 64, 64\).*asks for \(1, 2, 8, 8\)"),
    ],
)
def test_a_card_of_another_network_is_refused(changes: dict[str, object], match: str, tmp_path: Path) -> None:
    saved.save_torchscript(tmp_path / "m.pt")
    saved.write_card(tmp_path, "torchscript", "m.pt", **changes)
    with pytest.raises(ModelError, match=match):
        load(tmp_path)


class Probabilities(nn.Module):
    def __init__(self, softmax: bool) -> None:
        super().__init__()
        self.net, self.softmax = contrasty_unet(), softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.net(x), 1) if self.softmax else torch.sigmoid(self.net(x))


@pytest.mark.parametrize("softmax", [True, False])
def test_a_network_that_gives_probabilities(softmax: bool, tmp_path: Path) -> None:
    saved.save_torchscript(tmp_path / "m.pt", Probabilities(softmax))
    changes = {} if softmax else {"activation": "sigmoid", "classes": saved.GLANDS[:2]}
    saved.write_card(tmp_path, "torchscript", "m.pt", output="probabilities", **changes)
    plain = TorchSegmenter(tumor_card(**changes), contrasty_unet()).predict(IMAGES)
    found = load(tmp_path).predict(IMAGES)
    close(found.probability, plain.probability)
    close(found.uncertainty, plain.uncertainty, 6)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = contrasty_unet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(x)
        return found


class Divided(Plain):
    """As networks that scale each image by itself, without a thought of glass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward((x - x.min()) / (x.max() - x.min()))


SIGMOID = {"activation": "sigmoid", "classes": saved.GLANDS[:2]}


@pytest.mark.parametrize(
    ("net", "changes", "match"),
    [
        (
            Probabilities(True),
            {},
            r'gives probabilities already, the card says logits; write "output": "probabilities"',
        ),
        (Probabilities(True), SIGMOID, r'"probabilities" into it and "activation": "softmax"'),
        (Probabilities(False), SIGMOID, r'gives probabilities already.*"probabilities" into it$'),
        (Probabilities(False), {"output": "probabilities"}, r'do not add up to 1.*"activation": "sigmoid"'),
        (Plain(), {"output": "probabilities"}, r"gives values from -\d+ to \d+, which are no probabilities"),
        (Plain(), {"output": "probabilities", **SIGMOID}, "which are no probabilities; leave `output` out"),
    ],
)
def test_logits_are_not_taken_for_probabilities_nor_the_other_way_round(
    net: nn.Module, changes: dict[str, object], match: str, tmp_path: Path
) -> None:
    saved.save_torchscript(tmp_path / "m.pt", net)
    saved.write_card(tmp_path, "torchscript", "m.pt", **changes)
    with pytest.raises(ModelError, match=rf"m\.pt: .*{match}"):
        load(tmp_path)


def test_a_network_of_no_numbers_is_refused(tmp_path: Path) -> None:
    net = contrasty_unet()
    net.head.weight.data[0, 0] = float("nan")
    saved.save_torchscript(tmp_path / "m.pt", net)
    saved.write_card(tmp_path, "torchscript", "m.pt")
    with pytest.raises(ModelError, match=r"m\.pt: the network gives values that are no numbers"):
        load(tmp_path)


def test_a_window_that_gives_no_numbers_is_an_error_and_not_an_empty_map(tmp_path: Path) -> None:
    saved.save_torchscript(tmp_path / "m.pt", Divided())
    saved.write_card(tmp_path, "torchscript", "m.pt", halo=None, blend=0.5)
    segmenter = load(tmp_path)
    assert segmenter.predict(IMAGES).probability.any()
    with pytest.raises(ModelError, match="model torchscript: the network gives values that are no numbers"):
        segmenter.predict(np.full((1, 64, 64, 3), 255, np.uint8))


def test_a_network_that_fails_on_a_size_says_which(tmp_path: Path) -> None:
    saved.save_torchscript(tmp_path / "m.pt")
    saved.write_card(tmp_path, "torchscript", "m.pt", stride=4, halo=None, blend=0.5)
    with pytest.raises(ModelError, match=r"torchscript: the network fails on images of 68 x 64 px \(.*Sizes of"):
        load(tmp_path).predict(IMAGES[:, :64, :68])


RUNTIMES = ("onnxruntime", "openvino")


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_onnx_gives_the_network_s_own_map_on_either_runtime(classes: int, external: bool, tmp_path: Path) -> None:
    saved.save_onnx(tmp_path / "m.onnx", classes=classes, external=external)
    names = ("m.onnx.data",) if external else ()
    colours = {"mean": [0.5, 0.4, 0.6], "std": [0.2, 0.25, 0.3]}
    changes = {"classes": [*saved.CLASSES, saved.GLANDS[0]][:classes], "halo": 8, "temperature": 2.0, **colours}
    saved.write_card(tmp_path, "onnx", "m.onnx", sha256=sha256_of(tmp_path / "m.onnx", names), **changes)
    import onnx.numpy_helper

    kernel = next(t for t in onnx.load(tmp_path / "m.onnx").graph.initializer if t.name == "kernel")
    net = nn.Conv2d(3, classes, 3, padding=1, bias=False)
    net.weight.data = torch.from_numpy(onnx.numpy_helper.to_array(kernel).copy())
    plain = TorchSegmenter(tumor_card(**changes), net).predict(IMAGES)
    for runtime in RUNTIMES:
        segmenter = load(tmp_path, runtime)
        assert segmenter.runtime == runtime
        found = segmenter.predict(IMAGES)
        close(found.probability, plain.probability)
        close(found.uncertainty, plain.uncertainty, 2)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("how", [{"colours_last": True}, {"half": True}, {"colours_last": True, "fixed": 64}])
def test_onnx_with_colours_last_or_in_half_precision(how: dict[str, Any], runtime: str, tmp_path: Path) -> None:
    """As TensorFlow and many GPU exports write it."""
    card: dict[str, Any] = {"halo": 8, "stride": 1, **({"window": 64, "fixed_window": True} if "fixed" in how else {})}
    images = IMAGES[:, :64, :64] if "fixed" in how else IMAGES
    for name, saving in (("plain", {}), ("asked", how)):
        (tmp_path / name).mkdir()
        saved.save_onnx(tmp_path / name / "m.onnx", **saving)
        saved.write_card(tmp_path / name, "onnx", "m.onnx", **(card if saving else {"halo": 8}))
    wanted, found = (load(tmp_path / name, runtime).predict(images) for name in ("plain", "asked"))
    close(found.probability, wanted.probability, 2 if "half" in how else 1)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_onnx_runtime_that_cannot_use_the_gpu_says_so_and_does_not_run_elsewhere(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime can use a GPU")
    saved.save_onnx(tmp_path / "m.onnx")
    saved.write_card(tmp_path, "onnx", "m.onnx", halo=8)
    with pytest.raises(ModelError, match=r"m\.onnx: ONNX Runtime cannot use cuda:0 .*`model\.device: cpu`"):
        load_onnx(load_card(tmp_path), tmp_path / "m.onnx", Way("onnxruntime", "cuda:0", "fp32"), 1)


def test_onnx_runtimes_are_measured_and_must_agree(tmp_path: Path) -> None:
    saved.save_onnx(tmp_path / "m.onnx")
    saved.write_card(tmp_path, "onnx", "m.onnx", halo=8)
    choice = choose_runtime(tmp_path, device="cpu", threads=1)
    assert {m.way.runtime for m in choice.measurements} == set(RUNTIMES)
    assert all(m.refused is None for m in choice.measurements)
    assert choose_runtime(tmp_path / "m.onnx", device="cpu", threads=1).cached


def test_without_a_runtime_for_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved.save_onnx(tmp_path / "m.onnx")
    saved.write_card(tmp_path, "onnx", "m.onnx", halo=8)
    monkeypatch.setattr("wsi_pipeline.models.onnx_runtime.installed", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'wsi-pipeline\[onnx\]'"):
        load(tmp_path, "auto")
    with pytest.raises(ModelError, match=r"onnxruntime is not installed; `pip install 'wsi-pipeline\[onnx\]'"):
        load(tmp_path, "onnxruntime")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_onnx_for_one_size_needs_a_card_that_keeps_to_it(runtime: str, tmp_path: Path) -> None:
    saved.save_onnx(tmp_path / "m.onnx", fixed=64)
    saved.write_card(tmp_path, "onnx", "m.onnx", halo=8)
    with pytest.raises(ModelError, match=r'64 x 64 px only; write "window": 64'):
        load(tmp_path, runtime)
    saved.write_card(tmp_path, "onnx", "m.onnx", halo=8, window=64, fixed_window=True)
    assert load(tmp_path, runtime).predict(IMAGES[:, :64, :64]).probability.shape == (2, 1, 64, 64)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_onnx_file_that_ends_early_is_refused(runtime: str, tmp_path: Path) -> None:
    saved.save_onnx(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:-9])
    saved.write_card(tmp_path, "onnx", "m.onnx", halo=8)
    with pytest.raises(ModelError, match=r"m\.onnx: this is no ONNX model, or damaged"):
        load(tmp_path, runtime)


def test_what_is_no_model_is_told_what_a_model_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    for path in (tmp_path, tmp_path / "config.json", tmp_path / "nowhere"):
        with pytest.raises(ModelError, match=r"card\.json.*a model is a folder .*WSInfer.*package\.module:factory"):
            load_card(path)


def test_openvino_that_fails_on_a_size_says_which(tmp_path: Path) -> None:
    from wsi_pipeline.models.openvino_kept import traced
    from wsi_pipeline.models.openvino_runtime import OpenVinoSegmenter

    model = traced(Halves(), 64)
    model.reshape([1, 64, 64, 3])
    segmenter = OpenVinoSegmenter(tumor_card(), model, threads=1)
    assert segmenter.predict(IMAGES[:1, :64, :64]).probability.any()
    with pytest.raises(ModelError, match=r"model test: OpenVINO fails on images of 128 x 96 px \(.*runtime: torch"):
        segmenter.predict(IMAGES[:1])
