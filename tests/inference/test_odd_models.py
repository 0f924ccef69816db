"""Strides, reaches and coarse maps that no block knows of: the map of the whole slide, however it is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.inference.make import make_job, make_slide, maps_of, predict_here, speckled, whole_map
from tests.models import saved
from tests.models.nets import BACKGROUND, NECROSIS, STROMA, TUMOR
from tests.models.test_windows import Spread, convolution
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.models import load_segmenter
from wsi_pipeline.slides import open_slide

CLASSES = [spec.model_dump(mode="json") for spec in (BACKGROUND, TUMOR, STROMA, NECROSIS)]
COLOURS = [(200, 20 * i, 90) for i in range(8)]
EIGHT = [{"name": f"class {i}", "color": color} for i, color in enumerate(COLOURS)]


def down(classes: int, *strides: int) -> nn.Module:
    layers: list[nn.Module] = []
    for stride in strides:
        layers += [nn.Conv2d(3 if not layers else 8, 8, 2 * stride + 1, stride, padding=stride), nn.ReLU()]
    return nn.Sequential(*layers, convolution(8, classes))


def up_again(classes: int, stride: int) -> nn.Module:
    return nn.Sequential(down(8, stride), nn.ReLU(), nn.ConvTranspose2d(8, classes, stride, stride))


CASES: dict[str, tuple[nn.Module, dict[str, Any]]] = {
    "every third pixel, enlarged": (up_again(2, 3), {"stride": 3, "halo": 12, "window": 126}),
    "a coarse map of fives": (down(2, 5), {"stride": 5, "output_downsample": 5, "halo": 15, "window": 130}),
    "coarser than it must be": (down(4, 2, 3), {"stride": 6, "output_downsample": 6, "halo": 24, "window": 132,
                                               "classes": CLASSES}),
    "far apart": (nn.Sequential(nn.Conv2d(3, 8, 3, padding=31, dilation=31), nn.ReLU(), convolution(8, 2)),
                  {"stride": 1, "halo": 32}),
    "eight sigmoids": (convolution(3, 8), {"stride": 1, "halo": 1, "activation": "sigmoid", "classes": EIGHT}),
    "a halo of its own finding": (up_again(2, 7), {"stride": 7, "halo": None, "window": 126}),
}  # fmt: skip


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> SlideRef:
    """Of sides that none of the strides divides."""
    return make_slide(tmp_path_factory.mktemp("slides") / "s.tif", 701, 533)


@pytest.mark.parametrize("name", CASES)
def test_the_map_is_that_of_the_whole_slide_however_it_is_cut(
    name: str, slide: SlideRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(3)
    net, card = CASES[name]
    (tmp_path / "m").mkdir()
    saved.save_torchscript(tmp_path / "m" / "m.pt", Spread(net), 2 * card["stride"] * 16)
    saved.write_card(tmp_path / "m", "torchscript", "m.pt", **card)
    segmenter = load_segmenter(tmp_path / "m", device="cpu", runtime="torch", precision="fp32", threads=1)
    with open_slide(slide) as opened:
        tissue = speckled(opened, 5, 0.6)
    wanted, doubt = whole_map(make_job(slide, tmp_path / "none.zarr", tissue=tissue), segmenter)
    assert np.ptp(wanted) > 150
    for number, (block, window, runs) in enumerate(((256, 200, (1,)), (512, 330, (2, 1)), (2048, 768, (3,)))):
        job = make_job(slide, tmp_path / f"{number}.zarr", tissue=tissue)
        result = predict_here(job, str(tmp_path / "m"), block=block, window=window, runs=runs)
        assert result.store is not None
        probability, uncertainty = maps_of(result.store)
        assert np.abs(probability.astype(int) - wanted).max() <= 1
        # Entropy is steep where a class is all but certain: one step of a probability is up to twelve of it.
        assert np.abs(uncertainty.astype(int) - doubt).max() <= 12
