"""The U-Net that computes less is the same function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tests.models.nets import contrasty_unet, tumor_card
from wsi_pipeline.models.openvino_runtime import INSIDE_HALO, OpenVinoSegmenter, load_openvino
from wsi_pipeline.models.segmenter import InsideSegmenter, Maps, inside
from wsi_pipeline.models.torch_runtime import MapGraph
from wsi_pipeline.models.unet import HALO, save_model
from wsi_pipeline.models.unet_rewrite import MARGINS, JoinedConv, RewrittenUNet


def assert_same(found: Tensor, wanted: Tensor) -> None:
    """Equal but for the order of sums in float64; a wrong tap or margin is a million times larger.

    In float32 two orders differ by an amount that depends on the processor, so sameness is not looked for there.
    """
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


def exact(height: int, width: int, count: int = 1) -> Tensor:
    """Random images (count, 3, height, width) in float64."""
    return torch.rand(
        count, 3, height, width, generator=torch.Generator().manual_seed(height * width), dtype=torch.float64
    )


@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99)
)
@settings(max_examples=40, deadline=None)
def test_a_joined_convolution_is_that_of_the_concatenated_images(
    low: int, skipped: int, outputs: int, height: int, width: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(low + skipped, outputs, 3, padding=1).double()
    small = torch.randn(2, low, height, width, generator=generator, dtype=torch.float64)
    skip = torch.randn(2, skipped, 2 * height, 2 * width, generator=generator, dtype=torch.float64)
    large = functional.interpolate(small, scale_factor=2.0, mode="nearest")
    with torch.no_grad():
        wanted = conv(torch.cat([large, skip], 1))
        found = JoinedConv(conv, low)(small, skip)
    assert_same(found, wanted)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 2, 1),
        nn.Conv2d(4, 2, 3),
        nn.Conv2d(4, 2, 3, padding=1, stride=2),
        nn.Conv2d(4, 2, 3, padding=1, bias=False),
    ],
)
def test_other_convolutions_are_refused(conv: nn.Conv2d) -> None:
    with pytest.raises(ValueError, match="3 x 3"):
        JoinedConv(conv, 2)


@pytest.mark.parametrize("channels", [2, 5])
def test_the_rewritten_network_gives_the_same_logits(channels: int) -> None:
    net = contrasty_unet(channels, classes=3).double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = exact(64, 88, count=2)
    with torch.no_grad():
        assert_same(RewrittenUNet(net).double()(x), net(x))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@given(st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=12, deadline=None)
def test_the_inside_alone_is_the_inside_of_the_whole(rows: int, columns: int) -> None:
    net = contrasty_unet(3).double()
    x = exact(2 * HALO + 8 * rows, 2 * HALO + 8 * columns)
    with torch.no_grad():
        whole, part = RewrittenUNet(net).double()(x), RewrittenUNet(net, inside=True).double()(x)
    assert part.shape == (1, 2, 8 * rows, 8 * columns)
    assert_same(part, whole[:, :, HALO:-HALO, HALO:-HALO])


def test_margins_that_were_smaller_would_show() -> None:
    """The inside depends on all that is kept: with a stage cut closer the logits differ."""
    net = contrasty_unet(3)
    rewritten = RewrittenUNet(net, inside=True).double()
    x = exact(2 * HALO + 32, 2 * HALO + 32)
    changed = x.clone()
    changed[..., : HALO - 40, :] = 0
    with torch.no_grad():
        assert not torch.equal(rewritten(x), rewritten(changed))
    assert MARGINS == (2, 8, 16)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> OpenVinoSegmenter:
    folder = tmp_path_factory.mktemp("model")
    card = save_model(folder, contrasty_unet(), tumor_card())
    return load_openvino(card, folder / "model.safetensors", threads=1)


@pytest.mark.parametrize("halo", [48, 56, 96, 40, 0])
def test_openvino_gives_the_inside_for_any_halo(converted: OpenVinoSegmenter, halo: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 2 * halo + 64, 2 * halo + 40, 3), dtype=np.uint8)
    whole, part = converted.predict(images), converted.predict_inside(images, halo)
    wanted = inside(whole, halo)
    assert part.probability.shape == (2, 1, 64, 40)
    assert np.abs(part.probability.astype(int) - wanted.probability).max() <= 1
    assert np.abs(part.uncertainty.astype(int) - wanted.uncertainty).max() <= 4


@pytest.fixture(scope="module")
def large(converted: OpenVinoSegmenter) -> tuple[NDArray[np.uint8], Maps]:
    """An image of 256 px in its halo, coarse and fine, and the maps of all of it at once, computed to the edge."""
    rng = np.random.default_rng(1)
    side = 256 + 2 * HALO
    coarse = rng.integers(0, 200, (side // 16, side // 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    image = coarse + rng.integers(0, 56, coarse.shape, dtype=np.uint8)
    maps = inside(converted.predict(image[None]), HALO)
    assert np.ptp(maps.probability) > 64
    return image, maps


@given(st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_of_any_shape_anywhere_gives_the_map_of_the_whole_within_one_step(
    converted: OpenVinoSegmenter, large: tuple[NDArray[np.uint8], Maps], data: st.DataObject
) -> None:
    image, whole = large
    height, width = (8 * data.draw(st.integers(1, 32)) for _ in range(2))
    y, x = (8 * data.draw(st.integers(0, 32 - side // 8)) for side in (height, width))
    window = image[None, y : y + height + 2 * HALO, x : x + width + 2 * HALO]
    wanted = whole.probability[:, :, y : y + height, x : x + width].astype(int)
    for maps in (converted.predict_inside(window, HALO), inside(converted.predict(window), HALO)):
        # The order of sums may depend on a window's shape, and a value between two steps go either way.
        assert np.abs(maps.probability - wanted).max() <= 1
    again = converted.predict_inside(window, HALO)
    np.testing.assert_array_equal(again.probability, converted.predict_inside(window, HALO).probability)


@pytest.mark.parametrize("channels", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_the_map_is_that_of_torch_with_the_network_as_it_was_learned(tmp_path: Path, channels: int) -> None:
    """What the bundle computes and the plain network's probability part by a step of 1/255 at most."""
    net = contrasty_unet(channels)
    card = save_model(tmp_path, net, tumor_card())
    images = np.random.default_rng(2).integers(0, 256, (1, 2 * HALO + 64, 2 * HALO + 40, 3), dtype=np.uint8)
    found = load_openvino(card, tmp_path / "model.safetensors", threads=1).predict_inside(images, HALO)
    with torch.no_grad():
        wanted = MapGraph(net, card).eval()(torch.from_numpy(images))[0].numpy()[:, :, HALO:-HALO, HALO:-HALO]
    assert np.abs(found.probability.astype(int) - wanted).max() <= 1


def test_the_halo_of_the_runtime_is_that_of_the_network(converted: OpenVinoSegmenter) -> None:
    assert INSIDE_HALO == HALO
    assert isinstance(converted, InsideSegmenter)


def test_the_inside_of_maps_is_cut_on_every_side() -> None:
    maps = Maps(np.arange(2 * 30, dtype=np.uint8).reshape(1, 2, 5, 6), np.arange(30, dtype=np.uint8).reshape(1, 5, 6))
    part = inside(maps, 2)
    assert part.probability.tolist() == [[[[14, 15]], [[44, 45]]]]
    assert part.uncertainty.tolist() == [[[14, 15]]]
    assert inside(maps, 0).probability.shape == (1, 2, 5, 6)
