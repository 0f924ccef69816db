from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.models.nets import tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models import Maps, ModelCard, load_card, load_segmenter, measure_halo
from wsi_pipeline.models.card import read_card


@dataclass
class Shifted:
    """A model that looks exactly so far to the left and so far down; the map is the sum of both pixels."""

    left: int
    down: int
    card: ModelCard
    runtime: str = "numpy"

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        d = self.card.output_downsample
        grey = images[..., 0]
        map_ = grey // 2
        if self.left:
            map_[:, :, self.left :] += grey[:, :, : -self.left] // 2
        if self.down:
            map_[:, : -self.down] += grey[:, self.down :] // 2
        map_ = map_[:, d // 2 :: d, d // 2 :: d]
        return Maps(map_[:, None], map_)


class Global(Shifted):
    """A model whose map depends on the whole image, as with global pooling."""

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        mean = images.mean(axis=(1, 2, 3)).astype(np.uint8)[:, None, None]
        map_ = images[..., 0] ^ mean
        return Maps(map_[:, None], map_)


@settings(max_examples=25, deadline=None)
@given(left=st.integers(0, 300), down=st.integers(0, 300), stride=st.sampled_from([1, 4, 16]))
def test_the_measured_halo_is_the_longest_reach_rounded_up_to_the_stride(left: int, down: int, stride: int) -> None:
    segmenter = Shifted(left, down, tumor_card(stride=stride, window=16 * stride, halo=None))
    assert measure_halo(segmenter) == -(-max(left, down) // stride) * stride


def test_a_coarse_map_is_measured_in_input_pixels() -> None:
    card = tumor_card(stride=8, output_downsample=4, halo=None)
    # Looking 40 px to the left from the middle of a map pixel: ten map pixels.
    assert measure_halo(Shifted(40, 0, card)) == 40


def test_a_model_that_looks_everywhere_has_no_exact_halo() -> None:
    with pytest.raises(ModelError, match="and perhaps farther, more than the 512 px"):
        measure_halo(Global(0, 0, tumor_card(halo=None)))


def without_halo(model_folder: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(model_folder, tmp_path / "m")
    raw = json.loads((folder / "card.json").read_text())
    del raw["halo"]
    (folder / "card.json").write_text(json.dumps(raw))
    return folder


def test_a_halo_that_the_card_lacks_is_measured_once(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "cache"))
    folder = without_halo(model_folder, tmp_path)
    assert read_card(folder).stated_halo is None
    halo = load_card(folder).halo
    # The architecture's reach is 46; what is seen in steps of 1/255 may be a little less, and never more.
    assert halo in (40, 48)
    (kept,) = (tmp_path / "cache" / "halo").iterdir()
    kept.write_text('{"halo": 64}')
    assert load_segmenter(folder, device="cpu", runtime="torch", threads=1).card.halo == 64
    kept.write_text("damaged")
    assert load_card(folder).halo == halo


def test_a_halo_cannot_be_measured_on_weights_that_are_not_there(model_folder: Path, tmp_path: Path) -> None:
    folder = without_halo(model_folder, tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="there is no model"):
        load_card(folder)
