"""Cards whose halo or stride does not hold, and networks that look at the whole window, are found before they run."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tests.models import saved
from tests.models.nets import contrasty_unet, texture, tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models import Maps, ModelCard, choose_runtime, unet
from wsi_pipeline.models.torch_runtime import TorchSegmenter
from wsi_pipeline.models.windows import UNET, check_windows, difference, kept_difference, needs_trial


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


class Spread(nn.Module):
    """A network whose logits span about ±4 on tissue."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        with torch.no_grad():
            given_ = net(torch.from_numpy(texture(128, 128, 0) / 255).float().permute(2, 0, 1)[None])
        self.register_buffer("middle", given_.mean((0, 2, 3), keepdim=True))
        self.factor = 4 / given_.std().item()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = (self.net(x) - self.middle) * self.factor
        return found


class Halved(nn.Module):
    """Reduced twice, and enlarged to the size of the image."""

    def __init__(self, align: bool = False) -> None:
        super().__init__()
        self.down = nn.Sequential(convolution(3, 8, 2), nn.ReLU(), convolution(8, 8, 2), nn.ReLU(), convolution(8, 2))
        self.align = align

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        return functional.interpolate(self.down(x), size=size, mode="bilinear", align_corners=self.align)


class Placed(nn.Module):
    """Adds an embedding of the place in the window, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = convolution(3, 2)
        self.place = nn.Parameter(torch.randn(1, 2, 64, 64))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.colour(x) + functional.interpolate(self.place, size=(x.shape[2], x.shape[3]))
        return found


class OneSize(nn.Module):
    """Traced, it gives a map of 64 x 64 whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.down = convolution(3, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.down(x), size=(64, 64))


def normalising(norm: nn.Module) -> nn.Module:
    return nn.Sequential(convolution(3, 8), norm, nn.ReLU(), convolution(8, 2))


def trial(net: nn.Module, *, spread: bool = True, **changes: Any) -> int:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return check_windows(TorchSegmenter(tumor_card(**changes), Spread(net) if spread else net))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_the_numbers_of_the_bundled_network_are_its_own() -> None:
    assert (unet.HALO, unet.STRIDE) == UNET


@pytest.mark.parametrize(
    ("net", "changes"),
    [
        (Halved(), {"stride": 4, "halo": 16}),
        (nn.Sequential(convolution(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 2, 3, 3)),
         {"stride": 3, "halo": 6, "window": 126}),
        (nn.Sequential(convolution(3, 8, 2), nn.ReLU(), convolution(8, 2, 2)),
         {"stride": 4, "output_downsample": 4, "halo": 8}),
        (normalising(nn.BatchNorm2d(8)), {"stride": 1, "halo": 2}),
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding=8, dilation=8), nn.ReLU(), convolution(8, 2)),
         {"stride": 1, "halo": 9}),
    ],
)  # fmt: skip
def test_a_card_that_holds_is_let_through(net: nn.Module, changes: dict[str, Any]) -> None:
    assert trial(net, **changes) <= 1


def test_the_bundled_network_holds_too_and_needs_no_trial() -> None:
    assert trial(contrasty_unet(), spread=False) <= 1
    assert not needs_trial(tumor_card())
    assert needs_trial(tumor_card(halo=40))
    assert needs_trial(tumor_card(stride=4))
    assert not needs_trial(tumor_card(architecture="onnx", halo=None, blend=0.5))
    assert not needs_trial(tumor_card(architecture="onnx", halo=16, fixed_window=True))


@pytest.mark.parametrize(
    ("net", "changes", "remedy"),
    [
        (contrasty_unet(), {"halo": 16}, r'write "halo": 4[08] into its card, or leave it out'),
        (contrasty_unet(), {"stride": 4}, r'write "stride": 8 and "halo": 48 into its card'),
        (contrasty_unet(), {"stride": 1, "halo": 45}, r'write "stride": 8 and "halo": 48 into its card'),
        (Halved(), {"stride": 1, "halo": 30}, r'write "stride": 4 and "halo": 32 into its card'),
        (Halved(align=True), {"stride": 4, "halo": 32}, r'looks at the whole window\. Write "blend": 0\.5'),
        (normalising(nn.InstanceNorm2d(8)), {"stride": 1, "halo": 16}, r'Write "blend": 0\.5'),
        (normalising(nn.GroupNorm(2, 8)), {"stride": 1, "halo": 16}, r'Write "blend": 0\.5'),
        (Placed(), {"stride": 1, "halo": 16}, r'Write "blend": 0\.5'),
        (OneSize(), {"stride": 2, "halo": 16}, r'it gives a map of 64 x 64 px.*"fixed_window": true'),
    ],
)  # fmt: skip
def test_a_card_that_does_not_hold_is_refused_with_what_it_should_say(
    net: nn.Module, changes: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ModelError, match=f"^model test: .*{remedy}"):
        trial(net, spread=not isinstance(net, unet.UNet), **changes)


@dataclass
class Looking:
    """A model that looks exactly so far to the left; the map is what it sees there."""

    left: int
    card: ModelCard
    weight: int = 255
    runtime: str = "numpy"

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        grey = images[..., 0]
        seen = np.zeros_like(grey)
        seen[:, :, self.left :] = grey[:, :, : grey.shape[2] - self.left]
        map_ = (seen.astype(int) * self.weight // 255).astype(np.uint8)
        return Maps(map_[:, None], map_)


@settings(max_examples=25, deadline=None)
@given(left=st.integers(0, 90), halo=st.integers(0, 90), stride=st.sampled_from([1, 2, 5]))
def test_the_trial_passes_when_the_halo_covers_what_is_seen_and_else_not(left: int, halo: int, stride: int) -> None:
    halo = -(-halo // stride) * stride
    segmenter = Looking(left, tumor_card(stride=stride, window=128 * stride, halo=halo))
    assert (difference(segmenter, stride, halo) <= 1) == (left <= halo)


def test_a_little_dependence_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    segmenter = Looking(8, tumor_card(stride=1, halo=0), weight=4)
    with caplog.at_level(logging.WARNING):
        assert 1 < check_windows(segmenter) <= 5
    assert "model test: the map of a place differs by up to 0.0" in caplog.text


def test_a_model_is_tried_once_and_again_when_its_card_says_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "cache"))
    saved.save_torchscript(tmp_path / "m.pt", Spread(Halved()))
    saved.write_card(tmp_path, "torchscript", "m.pt", halo=16, stride=4)
    wish = {"device": "cpu", "runtime": "torch", "precision": "fp32", "threads": 1}
    choose_runtime(tmp_path, **wish)  # type: ignore[arg-type]
    (kept,) = (tmp_path / "cache" / "windows").iterdir()
    assert json.loads(kept.read_text())["steps"] <= 1
    monkeypatch.setattr("wsi_pipeline.models.load.check_windows", lambda segmenter: pytest.fail("tried again"))
    choose_runtime(tmp_path, **wish)  # type: ignore[arg-type]
    saved.write_card(tmp_path, "torchscript", "m.pt", halo=16, stride=1)
    with pytest.raises(pytest.fail.Exception, match="tried again"):
        choose_runtime(tmp_path, **wish)  # type: ignore[arg-type]


def test_a_damaged_result_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path))
    from wsi_pipeline.models.windows import keep_difference

    card = tumor_card(architecture="onnx", sha256="a" * 64)
    keep_difference(card, 1)
    assert kept_difference(card) == 1
    (kept,) = (tmp_path / "windows").iterdir()
    kept.write_text("[]")
    assert kept_difference(card) is None
