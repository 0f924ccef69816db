"""The encoder alone: the network's own features on each runtime, kept converted; errors before anything is computed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.models.nets import contrasty_unet, texture, tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models import choose_runtime, load_card, load_segmenter
from wsi_pipeline.models.appearance import tissue_of
from wsi_pipeline.models.card import ModelCard, Triple
from wsi_pipeline.models.encoder import TorchEncoder
from wsi_pipeline.models.gauge import BATCH, Gauge, features_by, open_gauge
from wsi_pipeline.models.openvino_encoder import XML, encoder_folder, load_openvino_encoder
from wsi_pipeline.models.structure import STRUCTURE_NAME, fit_structure, write_structure
from wsi_pipeline.models.unet import UNet, save_model

MEAN, STD = (0.7, 0.5, 0.6), (0.2, 0.3, 0.25)
WINDOWS = [texture(128, 128, seed) for seed in range(40)]


def model(folder: Path, mean: Triple = MEAN, std: Triple = STD) -> ModelCard:
    """A U-Net whose card has statistics of the windows above."""
    net = contrasty_unet(seed=3)
    features = features_by(TorchEncoder(net, mean, std), WINDOWS)
    structure = write_structure(folder, fit_structure(features, np.arange(len(WINDOWS)) % 4))
    assert structure is not None
    return save_model(folder, net, tumor_card(mean=mean, std=std, structure=structure))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gauged")
    model(out)
    return out


def gauge_of(folder: Path, runtime: str) -> Gauge:
    found = open_gauge(load_card(folder), str(folder), runtime=runtime, device="cpu")
    assert found is not None
    return found


def deepest(net: UNet, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the network itself computes in its deepest stage, caught on its way."""
    caught: list[torch.Tensor] = []
    handle = net.e3.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.inference_mode():
        net.eval()(x)
    handle.remove()
    values: NDArray[np.float32] = caught[0].numpy()
    return values


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_the_encoder_gives_what_the_deepest_stage_of_the_network_does(folder: Path, runtime: str) -> None:
    net, images = contrasty_unet(seed=3), np.stack(WINDOWS[:3])
    card = load_card(folder)
    encoder: Callable[[NDArray[np.uint8]], NDArray[np.float32]] = (
        TorchEncoder(net, MEAN, STD)
        if runtime == "torch"
        else load_openvino_encoder(card, folder / "model.safetensors")
    )
    wanted = deepest(net, images)
    assert wanted.max() > 0.1
    np.testing.assert_allclose(encoder(images), wanted, atol=1e-4 * float(wanted.max()))


def test_both_runtimes_and_any_batch_give_the_same_distance(folder: Path) -> None:
    torch_gauge, openvino_gauge = (gauge_of(folder, runtime) for runtime in ("torch", "openvino"))
    together = torch_gauge.strangeness(WINDOWS)
    assert together.shape == (40,)
    assert len(WINDOWS) > 2 * BATCH
    np.testing.assert_allclose(openvino_gauge.strangeness(WINDOWS), together, rtol=1e-3)
    np.testing.assert_allclose([torch_gauge.strangeness([w])[0] for w in WINDOWS[:5]], together[:5], rtol=1e-4)
    assert openvino_gauge.strangeness(WINDOWS).tobytes() == openvino_gauge.strangeness(WINDOWS).tobytes()
    assert torch_gauge.strangeness([]).shape == (0,)


def test_training_windows_are_familiar_and_plain_ones_are_not(folder: Path) -> None:
    gauge = gauge_of(folder, "openvino")
    assert (gauge.strangeness(WINDOWS) > 1).sum() <= 1
    plain = [np.full((128, 128, 3), value, np.uint8) for value in (60, 120)]
    assert tissue_of(np.stack(plain)).all()
    assert (gauge.strangeness(plain) > 1).all()


def test_the_second_start_loads_no_torch(folder: Path) -> None:
    gauge_of(folder, "openvino").strangeness(WINDOWS[:1])
    code = (
        "import sys, json, numpy as np\n"
        "from wsi_pipeline.models.gauge import open_gauge\n"
        "from wsi_pipeline.models import load_card\n"
        f"gauge = open_gauge(load_card({str(folder)!r}), {str(folder)!r}, runtime='openvino', device='cpu')\n"
        "loaded = [n for n in ('openvino', 'torch') if n in sys.modules]\n"
        "value = float(gauge.strangeness([np.full((128, 128, 3), 90, np.uint8)])[0])\n"
        "print(json.dumps([loaded, value, [n for n in ('openvino', 'torch') if n in sys.modules]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, value, after = json.loads(done.stdout)
    # Statistics are read at once, so that an error is told before hours of computing; the encoder when it is needed.
    assert before == []
    assert after == ["openvino"]
    assert value > 1


def test_a_damaged_conversion_is_made_again(folder: Path) -> None:
    wanted = gauge_of(folder, "openvino").strangeness(WINDOWS[:2])
    (encoder_folder(load_card(folder)) / XML).write_text("<net", encoding="utf-8")
    np.testing.assert_array_equal(gauge_of(folder, "openvino").strangeness(WINDOWS[:2]), wanted)


def test_a_cache_that_cannot_be_written_costs_the_conversion_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = gauge_of(folder, "openvino").strangeness(WINDOWS[:2])
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "file"))
    np.testing.assert_array_equal(gauge_of(folder, "openvino").strangeness(WINDOWS[:2]), wanted)


def test_conversions_of_two_normalisations_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    other = model(tmp_path, (0, 0, 0), (1, 1, 1))
    assert encoder_folder(other) != encoder_folder(load_card(folder))


@pytest.mark.parametrize("suffix", ["", "card.json", "model.safetensors"])
def test_a_model_is_found_by_folder_card_or_weights(folder: Path, suffix: str) -> None:
    path = str(folder / suffix)
    found = open_gauge(load_card(path), path, runtime="torch", device="cpu")
    assert found is not None
    assert found.strangeness(WINDOWS[:1]) <= 1.5


def test_a_model_without_statistics_has_none(model_folder: Path) -> None:
    assert open_gauge(load_card(model_folder), str(model_folder), runtime="torch", device="cpu") is None


def test_statistics_that_are_missing_are_told_wherever_the_model_is_loaded(tmp_path: Path) -> None:
    card = model(tmp_path)
    (tmp_path / STRUCTURE_NAME).unlink()
    for load in (
        lambda: open_gauge(card, str(tmp_path), runtime="torch", device="cpu"),
        lambda: load_segmenter(tmp_path, device="cpu", runtime="torch"),
        lambda: choose_runtime(tmp_path, device="cpu"),
    ):
        with pytest.raises(ModelError, match=f"{STRUCTURE_NAME}.*copy the whole folder"):
            load()
