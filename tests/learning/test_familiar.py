"""A model tells shapes that it has not learned from, where colour and sharpness are the very same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.learning.made import CLASSES, blob_tile
from tests.learning.textures import sharpness, tissue_tile, woven
from wsi_pipeline.learning import Recipe, train
from wsi_pipeline.learning.familiar import familiar_of
from wsi_pipeline.models import ModelCard, load_card
from wsi_pipeline.models.appearance import features_of, windows_of
from wsi_pipeline.models.gauge import Gauge, open_gauge
from wsi_pipeline.models.structure import STRUCTURE_NAME
from wsi_pipeline.models.unet import UNet, read_unet

# Training takes ten seconds.
pytestmark = pytest.mark.slow

Window = NDArray[np.uint8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that learned crowded nuclei on eight slides."""
    out = tmp_path_factory.mktemp("model")
    train(
        [tissue_tile(n, slide) for slide in range(8) for n in range(8)],
        out=out,
        steps=120,
        mpp=1.0,
        classes=CLASSES,
        crop=64,
        recipe=Recipe(channels=8),
        held_out=[tissue_tile(n, slide) for slide in (20, 21) for n in range(2)],
        threads=1,
    )
    return out


@pytest.fixture(scope="module")
def card(folder: Path) -> ModelCard:
    return load_card(folder)


@pytest.fixture(scope="module")
def gauge(card: ModelCard, folder: Path) -> Gauge:
    found = open_gauge(card, str(folder), runtime="torch", device="cpu")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def unseen() -> list[Window]:
    """Windows of 32 slides that the model has not seen."""
    return [window for slide in range(100, 132) for window, _ in windows_of(tissue_tile(9, slide).image)]


def looks_strange(card: ModelCard, windows: list[Window]) -> list[bool]:
    rows = [features_of(window) for window in windows]
    assert card.appearance is not None
    assert all(row is not None for row in rows)
    return [bool(value > 1) for value in card.appearance.strangeness(np.array(rows))]


def test_another_texture_of_the_same_pixels_is_strange_in_structure_alone(
    card: ModelCard, gauge: Gauge, unseen: list[Window]
) -> None:
    plain = unseen[:40]
    other = [woven(window, seed) for seed, window in enumerate(plain)]
    for before, after in zip(plain, other, strict=True):
        # The very same pixels in another order, and as sharp.
        assert sorted(map(bytes, before.reshape(-1, 3))) == sorted(map(bytes, after.reshape(-1, 3)))
        assert sharpness(after) == pytest.approx(sharpness(before), abs=0.01)
    assert looks_strange(card, other) == looks_strange(card, plain)
    assert (gauge.strangeness(other) > 1).mean() >= 0.9
    assert (gauge.strangeness(plain) > 1).mean() <= 0.05


def test_about_one_window_in_a_hundred_of_other_such_slides_is_strange(gauge: Gauge, unseen: list[Window]) -> None:
    assert len(unseen) == 128
    assert (gauge.strangeness(unseen) > 1).mean() <= 0.04


def test_the_card_says_what_it_was_measured_on(card: ModelCard) -> None:
    assert card.structure is not None
    assert (card.structure.features, card.structure.windows, card.structure.slides) == (64, 256, 8)
    assert card.structure.left_out
    figures = card.trained_on.figures
    assert figures["held_out_windows"] == 16
    assert figures["held_out_strange_in_structure"] <= 0.2
    assert figures["held_out_strange_in_appearance"] <= 0.2


def test_training_on_makes_statistics_of_the_new_network_and_keeps_what_things_look_like(
    card: ModelCard, folder: Path, tmp_path: Path
) -> None:
    own = [tissue_tile(n, slide) for slide in range(30, 33) for n in range(3)]
    further = train(own, out=tmp_path, steps=3, mpp=1.0, classes=CLASSES, crop=64, init=folder, threads=1)
    assert card.structure is not None
    assert further.structure is not None
    assert (further.structure.windows, further.structure.slides) == (36, 3)
    assert further.structure.sha256 != card.structure.sha256
    # Its features are its own, colours are what they were before.
    wanted = familiar_of(own, read_unet(tmp_path / "model.safetensors")).structure
    assert wanted is not None
    assert further.structure.threshold == pytest.approx(wanted.threshold, rel=1e-4)
    assert card.appearance is not None
    assert further.appearance is not None
    assert further.appearance.windows == card.appearance.windows + 36
    assert open_gauge(further, str(tmp_path), runtime="torch", device="cpu") is not None


def test_tiles_smaller_than_a_window_give_no_statistics_of_features() -> None:
    found = familiar_of([blob_tile(n, side=64) for n in range(40)], UNet(4, 2).eval(), held_out=[blob_tile(1, side=64)])
    assert found.structure is None
    assert found.appearance is not None
    assert found.figures == {}


def test_a_model_without_statistics_leaves_none_of_an_earlier_one_behind(tmp_path: Path) -> None:
    few = [blob_tile(n) for n in range(2)]
    (tmp_path / STRUCTURE_NAME).write_bytes(b"of another model")
    card = train(few, out=tmp_path, steps=1, mpp=1.0, classes=CLASSES, crop=64, recipe=Recipe(channels=4), threads=1)
    assert card.structure is None
    assert "structure" not in card.dump()
    assert not (tmp_path / STRUCTURE_NAME).exists()
    assert open_gauge(card, str(tmp_path), runtime="torch", device="cpu") is None
