"""Dropout that stays at work: the draw decides the masks, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wsi_pipeline.models.dropout import Draws, with_draws
from wsi_pipeline.models.ensemble import Draw
from wsi_pipeline.models.unet import UNet


def drawn(layer: nn.Module) -> tuple[nn.Sequential, Draws]:
    net, draws = nn.Sequential(layer).eval(), Draws()
    assert with_draws(net, draws) == 1
    return net, draws


def at(net: nn.Module, draws: Draws, x: Tensor, *which: Draw) -> Tensor:
    with draws.at_work(which):
        out: Tensor = net(x)
    return out


@pytest.mark.parametrize("layer", [nn.Dropout(0.4), nn.Dropout2d(0.4)])
def test_without_draws_it_does_nothing_and_with_them_it_drops_its_share(layer: nn.Module) -> None:
    net, draws = drawn(layer)
    x = torch.ones(1, 2000, 4, 4)
    assert torch.equal(net(x), x)
    out = at(net, draws, x, Draw(0, 0, 0))
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 1 / 0.6))
    assert float((out == 0).float().mean()) == pytest.approx(0.4, abs=0.04)
    # The mean stays: what is kept is made larger.
    assert float(out.mean()) == pytest.approx(1, abs=0.07)
    assert torch.equal(net(x), x)


def test_masks_depend_on_the_draw_and_neither_on_order_nor_on_what_else_is_computed() -> None:
    net, draws = drawn(nn.Dropout(0.5))
    x = torch.ones(2, 8, 6, 6)
    one, two = Draw(0, 128, 0), Draw(3, 0, 256)
    both = at(net, draws, x, one, two)
    torch.manual_seed(99)
    assert torch.equal(at(net, draws, x, two, one), both.flip(0))
    assert torch.equal(at(net, draws, x[:1], one)[0], both[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(at(net, draws, x[:1], Draw(0, 0, 0))[0], both[0])


def test_whole_channels_are_dropped_for_the_whole_slide() -> None:
    net, draws = drawn(nn.Dropout2d(0.5))
    x = torch.ones(1, 64, 3, 3)
    here, there = (at(net, draws, x, Draw(1, *place)) for place in ((0, 0), (4096, 128)))
    assert torch.equal(here, there)
    assert torch.equal(here.amax((2, 3)), here.amin((2, 3)))
    assert not torch.equal(here, at(net, draws, x, Draw(2, 0, 0)))


def test_layers_of_one_network_have_masks_of_their_own() -> None:
    net, draws = UNet(4, dropout=0.5).eval(), Draws()
    assert with_draws(net, draws) == 3
    x = torch.ones(1, 8, 5, 5)
    with draws.at_work([Draw(0, 0, 0)]):
        first, second = net.drop2(x), net.drop1(x)
    assert not torch.equal(first, second)
    assert with_draws(UNet(4).eval(), Draws()) == 0


def test_dropout_adds_nothing_to_the_weights() -> None:
    assert UNet(4, dropout=0.3).state_dict().keys() == UNet(4).state_dict().keys()
