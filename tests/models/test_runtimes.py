"""Torch and OpenVINO: the same maps, wherever a window lies, from however many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.models.nets import BACKGROUND, NECROSIS, STROMA, TUMOR, contrasty_unet, texture, tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.load import load_segmenter
from wsi_pipeline.models.openvino_runtime import conversion_folder, load_openvino
from wsi_pipeline.models.segmenter import BINARY_ENTROPY, Maps, Segmenter, binary_uncertainty
from wsi_pipeline.models.torch_runtime import TorchSegmenter, fused
from wsi_pipeline.models.unet import save_model

RUNTIMES = ("torch", "openvino")
Floats = NDArray[np.float64]
SIDE = 320
IMAGE = texture(SIDE, SIDE, seed=7)


@pytest.fixture(scope="session", params=RUNTIMES)
def segmenter(request: pytest.FixtureRequest, model_folder: Path) -> Segmenter:
    return load_segmenter(model_folder, device="cpu", runtime=request.param, precision="fp32", threads=1)


@pytest.fixture(scope="session")
def whole(segmenter: Segmenter) -> Maps:
    return segmenter.predict(IMAGE[None])


def test_the_map_of_the_tests_has_contrast(whole: Maps) -> None:
    assert whole.probability.min() < 20
    assert whole.probability.max() > 235


@st.composite
def windows(draw: st.DrawFn) -> tuple[slice, slice]:
    """Cores of the image with a halo of real pixels on each side, sides and corners multiples of the stride."""
    halo, cells = 48 // 8, SIDE // 8
    spans = []
    for _ in range(2):
        start = draw(st.integers(halo, cells - halo - 1))
        end = draw(st.integers(start + 1, cells - halo))
        spans.append(slice(start * 8, end * 8))
    return spans[0], spans[1]


def same(segmenter: Segmenter, found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Another shape may be summed in another order, in any runtime: a step of rounding."""
    assert np.abs(found.astype(int) - expected).max() <= 1, segmenter.runtime


def grown(span: slice) -> slice:
    return slice(span.start - 48, span.stop + 48)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(window=windows())
def test_any_window_with_its_halo_gives_the_map_of_the_whole_image(
    segmenter: Segmenter, whole: Maps, window: tuple[slice, slice]
) -> None:
    rows, columns = window
    part = segmenter.predict(IMAGE[None, grown(rows), grown(columns)])
    same(segmenter, part.probability[:, :, 48:-48, 48:-48], whole.probability[:, :, rows, columns])


def test_a_window_off_the_stride_gives_another_map(segmenter: Segmenter, whole: Maps) -> None:
    part = segmenter.predict(IMAGE[None, 1:257, 1:257]).probability[:, :, 48:-48, 48:-48]
    assert (part != whole.probability[:, :, 49:209, 49:209]).any()


def test_a_batch_gives_what_its_images_give_one_by_one(segmenter: Segmenter) -> None:
    images = np.stack([texture(64, 96, seed) for seed in range(5)])
    together = segmenter.predict(images)
    for index in range(5):
        alone = segmenter.predict(images[index : index + 1])
        same(segmenter, together.probability[index], alone.probability[0])


def test_results_stay_as_they_are_when_the_next_image_comes(segmenter: Segmenter) -> None:
    first = segmenter.predict(IMAGE[None, :64, :64])
    kept = first.probability.copy()
    segmenter.predict(IMAGE[None, 64:128, 64:128])
    np.testing.assert_array_equal(first.probability, kept)


def test_many_threads_get_what_one_gets(segmenter: Segmenter) -> None:
    images = [texture(64 + 8 * (seed % 3), 64, seed)[None] for seed in range(24)]
    one_by_one = [segmenter.predict(image).probability for image in images]
    with ThreadPoolExecutor(6) as pool:
        at_once = list(pool.map(lambda image: segmenter.predict(image).probability, images))
    for expected, found in zip(one_by_one, at_once, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_read_only_and_strided_images_are_taken_without_a_warning(segmenter: Segmenter) -> None:
    frozen = texture(64, 64, 1)[None]
    expected = segmenter.predict(frozen).probability
    frozen.flags.writeable = False
    np.testing.assert_array_equal(segmenter.predict(frozen).probability, expected)
    wide = np.ascontiguousarray(frozen.repeat(2, axis=2))[:, :, ::2]
    np.testing.assert_array_equal(segmenter.predict(wide).probability, expected)


@pytest.mark.parametrize(
    ("shape", "dtype", "sentence"),
    [
        ((1, 64, 60, 3), np.uint8, "multiples of 8, not 60 x 64"),
        ((0, 64, 64, 3), np.uint8, "multiples of 8"),
        ((64, 64, 3), np.uint8, r"takes uint8 \(N, H, W, 3\), not uint8 \(64, 64, 3\)"),
        ((1, 3, 64, 64), np.uint8, "takes uint8"),
        ((1, 64, 64, 3), np.float32, "not float32"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    segmenter: Segmenter, shape: tuple[int, ...], dtype: type, sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        segmenter.predict(np.zeros(shape, dtype=dtype))


def reference(net: nn.Module, card: ModelCard, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Probabilities (N, K, h, w) of all classes and entropy share (N, h, w), in float64 outside any graph."""
    x = (images / 255 - np.array(card.mean)) / np.array(card.std)
    with torch.no_grad():
        logits = net.double()(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy() / card.temperature
    net.float()
    if card.activation == "sigmoid":
        p = 1 / (1 + np.exp(-logits))
        return p, binary(p).max(axis=1)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return p, -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1) / np.log(p.shape[1])


def binary(p: Floats) -> Floats:
    q = np.clip(p, 1e-12, 1 - 1e-12)
    entropy: Floats = -(q * np.log(q) + (1 - q) * np.log(1 - q)) / np.log(2)
    return entropy


CARDS = {
    "background last": tumor_card(classes=(TUMOR, BACKGROUND)),
    "two foregrounds": tumor_card(classes=(TUMOR, STROMA)),
    "four classes": tumor_card(classes=(TUMOR, BACKGROUND, STROMA, NECROSIS), temperature=2.5),
    "sigmoid": tumor_card(activation="sigmoid", classes=(TUMOR, STROMA, NECROSIS)),
    "normalised and hot": tumor_card(mean=(0.7, 0.5, 0.65), std=(0.2, 0.25, 0.3), temperature=1.5),
}


# A conversion takes a second or two: OpenVINO gets the cards that differ most.
@pytest.mark.parametrize(
    ("name", "runtime"), [*[(name, "torch") for name in CARDS], ("four classes", "openvino"), ("sigmoid", "openvino")]
)
def test_maps_are_the_formulas_of_the_card(name: str, runtime: str, tmp_path: Path) -> None:
    card = CARDS[name]
    net = contrasty_unet(classes=len(card.classes))
    save_model(tmp_path, net, card)
    images = np.stack([texture(64, 64, seed) for seed in (1, 2)])
    maps = load_segmenter(tmp_path, device="cpu", runtime=runtime, precision="fp32", threads=1).predict(images)
    p, entropy = reference(net, card, images)
    foreground = p[:, list(card.foreground_channels)]
    assert maps.probability.dtype == maps.uncertainty.dtype == np.uint8
    assert maps.probability.shape == foreground.shape
    # Half a step of rounding, and what fp32 adds to it.
    assert np.abs(maps.probability / 255 - foreground).max() < 0.51 / 255
    # The table of two-sided entropy sees p in steps of 1/255, and entropy is steep near 0 and 1.
    assert np.abs(maps.uncertainty / 255 - entropy).max() < (0.01 if len(card.classes) == 4 else 0.025)


def test_the_entropy_table_is_the_formula() -> None:
    p = np.arange(256) / 255
    np.testing.assert_array_equal(BINARY_ENTROPY, np.rint(255 * binary(p)))
    assert (BINARY_ENTROPY[0], BINARY_ENTROPY[127], BINARY_ENTROPY[255]) == (0, 255, 0)


def test_the_uncertainty_of_several_sigmoids_is_that_of_the_least_certain() -> None:
    probability = np.array([[0, 255, 10], [128, 255, 200]], dtype=np.uint8).reshape(1, 2, 1, 3)
    np.testing.assert_array_equal(binary_uncertainty(probability)[0, 0], [255, 0, BINARY_ENTROPY[200]])


def test_folding_batch_norm_leaves_the_network_as_it_was_and_the_map_the_same() -> None:
    net = contrasty_unet().double()
    x = torch.from_numpy(IMAGE[None, :64, :64] / 255).permute(0, 3, 1, 2)
    before, names = net(x), list(net.state_dict())
    assert torch.allclose(fused(net)(x), before, rtol=0, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused(net).modules())
    assert list(net.state_dict()) == names
    assert torch.equal(net(x), before)


def test_half_precision_that_overflows_is_an_error_and_not_an_empty_map() -> None:
    """float16 ends at 65,504."""
    first, second = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 2, 1, bias=False)
    first.weight.data[:] = 1e4
    second.weight.data = torch.tensor([-10.0, 10.0]).view(2, 1, 1, 1).expand(2, 8, 1, 1).contiguous()
    net = nn.Sequential(first, second)
    images = texture(64, 64, 1)[None]
    assert TorchSegmenter(tumor_card(), net).predict(images).probability.any()
    with pytest.raises(ModelError, match=r"model test: the network gives values that are no numbers; set `model\.prec"):
        TorchSegmenter(tumor_card(), net, precision="fp16").predict(images)


class Hungry(nn.Module):
    """A network on a device that holds so many pixels at once; torch's own error beyond."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.seen: list[int] = []
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if x[:, 0].numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        y: Tensor = self.head(x)
        return y


def hungry(most: int) -> tuple[TorchSegmenter, list[int]]:
    segmenter = TorchSegmenter(tumor_card(), Hungry(most))
    net = segmenter._graph.net
    assert isinstance(net, Hungry)
    return segmenter, net.seen


def test_out_of_memory_halves_the_batch_goes_on_and_is_remembered() -> None:
    segmenter, seen = hungry(3 * 64 * 64)
    images = np.stack([texture(64, 64, seed) for seed in range(7)])
    maps = segmenter.predict(images)
    assert seen == [7, 3, 3, 1]
    seen.clear()
    again = segmenter.predict(images)
    assert seen == [3, 3, 1]
    np.testing.assert_array_equal(again.probability, maps.probability)
    roomy, _ = hungry(10**9)
    roomy._graph.load_state_dict(segmenter._graph.state_dict())
    np.testing.assert_array_equal(roomy.predict(images).probability, maps.probability)


def test_what_fitted_is_remembered_in_pixels_not_in_images() -> None:
    segmenter, seen = hungry(4 * 64 * 64)
    segmenter.predict(np.zeros((8, 64, 64, 3), dtype=np.uint8))
    seen.clear()
    segmenter.predict(np.zeros((4, 128, 64, 3), dtype=np.uint8))
    assert seen == [2, 2]


def test_one_image_that_does_not_fit_names_size_and_remedy() -> None:
    segmenter, _ = hungry(64 * 64)
    with pytest.raises(ModelError, match=r"does not hold one window of 128 x 64 px; set a smaller `inference\.window`"):
        segmenter.predict(np.zeros((3, 64, 128, 3), dtype=np.uint8))


@pytest.mark.slow
def test_a_kept_conversion_is_used_and_a_damaged_one_made_again(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path))
    first = load_segmenter(model_folder, device="cpu", runtime="openvino", precision="fp32", threads=1)
    folder = conversion_folder(first.card)
    assert sorted(path.name for path in folder.iterdir()) == ["inside.bin", "inside.xml", "model.bin", "model.xml"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    # With the conversion the weights are not read any more.
    warm = load_openvino(first.card, Path("nowhere"), threads=1)
    (folder / "model.xml").write_text("<net")
    again = load_segmenter(model_folder, device="cpu", runtime="openvino", precision="fp32", threads=1)
    assert (folder / "model.xml").stat().st_size > 1000
    expected = first.predict(IMAGE[None]).probability
    np.testing.assert_array_equal(warm.predict(IMAGE[None]).probability, expected)
    np.testing.assert_array_equal(again.predict(IMAGE[None]).probability, expected)


def test_a_cache_that_cannot_be_written_is_done_without(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file where the cache should be")
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "file"))
    segmenter = load_segmenter(model_folder, device="cpu", runtime="openvino", precision="fp32", threads=1)
    assert segmenter.predict(IMAGE[None]).probability.any()


def test_conversions_differ_when_card_or_weights_do() -> None:
    cards = [
        tumor_card(sha256="a" * 64),
        tumor_card(sha256="b" * 64),
        tumor_card(sha256="a" * 64, temperature=2),
        tumor_card(sha256="a" * 64, classes=(TUMOR, BACKGROUND)),
        tumor_card(sha256="a" * 64, mean=(0.5, 0.5, 0.5)),
    ]
    assert len({conversion_folder(card) for card in cards}) == len(cards)
    # What is not in the graph makes no new conversion.
    assert conversion_folder(tumor_card(sha256="a" * 64, notes="x", mpp=1)) == conversion_folder(cards[0])


def test_calls_from_threads_take_turns_on_the_cpu() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            y = x[:, :2] * 2
            with lock:
                running -= 1
            return y

    segmenter = TorchSegmenter(tumor_card(), Counting())
    segmenter._graph.net.forward = Counting().forward
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(segmenter.predict, [np.zeros((1, 64, 64, 3), dtype=np.uint8)] * 20))
    assert most == 1
