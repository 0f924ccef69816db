from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.models.nets import BACKGROUND, NECROSIS, STROMA, TUMOR, contrasty_unet, tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import sha256_file
from wsi_pipeline.models.card import read_card
from wsi_pipeline.models.unet import HALO, STRIDE, UNet, read_unet, save_model


def spreading(net: UNet) -> UNet:
    """`net` in float64 with equal positive weights: a change cannot cancel out, so all that is reached shows."""
    net = copy.deepcopy(net).double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1 / module.weight[0].numel())
                if module.bias is not None:
                    module.bias.zero_()
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.reset_parameters()
    return net.eval()


@pytest.mark.parametrize("channels", [2, 16])
def test_the_map_inside_an_aligned_window_depends_on_46_pixels_beyond_it(channels: int) -> None:
    net = spreading(UNet(channels, 2))
    edge = 128
    reach = 0
    for outside in range(edge, edge + STRIDE):
        x = torch.zeros(1, 3, 64, 256, dtype=torch.float64)
        x[..., outside] = 1e6
        with torch.inference_mode():
            touched = torch.nonzero(net(x).abs().amax((0, 1, 2)) > 0)
        reach = max(reach, edge - int(touched.min()))
    assert reach == 46
    assert -(-reach // STRIDE) * STRIDE == HALO


def test_the_state_dict_has_the_names_of_the_published_layout() -> None:
    names = set(UNet().state_dict())
    per_block = {f"{i}.weight" for i in (0, 1, 3, 4)} | {
        f"{i}.{n}" for i in (1, 4) for n in ("bias", "running_mean", "running_var", "num_batches_tracked")
    }
    blocks = {f"{block}.{name}" for block in ("e0", "e1", "e2", "e3", "d2", "d1", "d0") for name in per_block}
    assert names == blocks | {"head.weight", "head.bias"}


@pytest.mark.testdata
def test_the_weights_of_the_benchmarks_load(testdata: Path) -> None:
    file = testdata.parent / "bench" / "unet.pt"
    if not file.exists():
        pytest.skip("the benchmarks' weights are not there")
    net = read_unet(file)
    assert (net.channels, net.classes, net.training) == (16, 2, False)


def test_a_saved_model_has_the_same_weights_and_a_card_with_their_hash(tmp_path: Path) -> None:
    net = contrasty_unet(channels=6)
    card = save_model(tmp_path / "deep" / "model", net, tumor_card(halo=None))
    folder = tmp_path / "deep" / "model"
    assert card == read_card(folder)
    assert card.sha256 == sha256_file(folder / "model.safetensors")
    assert (card.halo, card.stride, card.architecture_args) == (48, 8, {"channels": 6})
    back = read_unet(folder / "model.safetensors").state_dict()
    assert all(torch.equal(value, back[name]) for name, value in net.state_dict().items())
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.safetensors"]


def test_the_same_network_gives_the_same_bytes_whatever_its_memory_format(tmp_path: Path) -> None:
    net = contrasty_unet()
    first = save_model(tmp_path / "a", net, tumor_card())
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    assert save_model(tmp_path / "b", net, tumor_card()).sha256 == first.sha256


def test_a_card_for_other_classes_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the card has 4 classes, the head 2 outputs"):
        save_model(tmp_path / "m", UNet(2, 2), tumor_card(classes=(BACKGROUND, TUMOR, STROMA, NECROSIS)))
    assert not (tmp_path / "m").exists()


def test_a_state_dict_written_by_torch_is_read(tmp_path: Path) -> None:
    net = contrasty_unet(channels=3, classes=4)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    back = read_unet(tmp_path / "weights.pt")
    assert (back.channels, back.classes) == (3, 4)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(net(x), back(x))


class Trap:
    """What a malicious file holds: reading it would run a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.mark,)  # type: ignore[return-value]


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"head.weight": Trap(mark)}, tmp_path / "zip.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Trap(mark), protocol=2))
    for name in ("zip.pt", "plain.pkl"):
        with pytest.raises(ModelError, match="is not a file of plain tensors that can be read safely"):
            read_unet(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("data", [b"", b"hello, this is text", b"\x00" * 100, b"PK\x03\x04broken"])
def test_damaged_weights_are_refused_by_name(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=name):
        read_unet(tmp_path / name)


def test_missing_weights_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the weights .*nowhere\.pt: No such file"):
        read_unet(tmp_path / "nowhere.pt")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"fc.weight": torch.zeros(2, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="not the weights of the bundled U-Net"):
        read_unet(tmp_path / "other.safetensors")
    state = UNet(2, 2).state_dict()
    del state["e0.0.weight"]
    safetensors.torch.save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match=r"bundled U-Net: .*e0\.0\.weight"):
        read_unet(tmp_path / "part.safetensors")
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="something other than a state dict"):
        read_unet(tmp_path / "list.pt")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    net = contrasty_unet()
    next(net.d0.parameters()).data[1, 1, 1, 1] = float("inf")
    save_model(tmp_path, net, tumor_card())
    with pytest.raises(ModelError, match=r"model\.safetensors: holds values that are no numbers.*train again"):
        read_unet(tmp_path / "model.safetensors")
