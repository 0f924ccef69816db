from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.learning.made import CLASSES, blob_tile
from wsi_pipeline.errors import ModelError
from wsi_pipeline.learning.calibrate import read_calibration
from wsi_pipeline.learning.labels import UNKNOWN
from wsi_pipeline.learning.samples import Tile
from wsi_pipeline.learning.training import Recipe, _loss, tile_logits, train
from wsi_pipeline.learning.unseen import unseen_tiles
from wsi_pipeline.models.card import ClassSpec, ModelCard
from wsi_pipeline.models.load import load_card, load_segmenter
from wsi_pipeline.models.unet import read_unet
from wsi_pipeline.states import Source

SMALL = Recipe(channels=8, rate=1e-2)
TILES = [blob_tile(seed, slide_id=f"s{seed % 2}", side=64, group=f"p{seed % 2}") for seed in range(8)]
OTHERS = [blob_tile(seed, slide_id="t", side=64) for seed in range(100, 104)]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(out: Path, tiles: list[Tile] = TILES, *, steps: int = 3, **changes: object) -> ModelCard:
    settings = {"mpp": 1.0, "classes": CLASSES, "crop": 32, "batch": 8, "recipe": SMALL, "threads": 1, **changes}
    return train(tiles, out=out, steps=steps, **settings)  # type: ignore[arg-type]


def dice(folder: Path, tiles: list[Tile]) -> float:
    segmenter = load_segmenter(folder, device="cpu", runtime="torch", threads=1)
    marked = segmenter.predict(np.stack([tile.image for tile in tiles])).probability[:, 0] >= 128
    there = np.stack([tile.labels for tile in tiles]) == 1
    return float(2 * (marked & there).sum() / (marked.sum() + there.sum()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(folder, steps=40, held_out=OTHERS, name="blobs", seed=3)
    return folder


def test_it_learns_what_the_polygons_show(trained: Path) -> None:
    assert dice(trained, OTHERS) > 0.85


def test_the_card_tells_where_the_weights_come_from(trained: Path) -> None:
    card = load_card(trained)
    assert (card.name, card.mpp, card.halo, card.stride) == ("blobs", 1.0, 48, 8)
    assert [spec.name for spec in card.foreground] == ["Tumor"]
    provenance = card.trained_on
    assert (provenance.slides, provenance.patients) == (("s0", "s1"), ("p0", "p1"))
    assert (provenance.steps, provenance.seed, provenance.parent) == (40, 3, None)
    assert provenance.source == "simulated"
    assert provenance.figures["loss"] < 0.5


def test_the_temperature_is_fitted_on_held_out_tiles_and_said_to_be(trained: Path) -> None:
    card = load_card(trained)
    figures = card.trained_on.figures
    assert figures["nll_after"] <= figures["nll_before"]
    assert figures["calibration_groups"] == 1
    assert card.notes == "Temperature fitted on 1 held-out patients or slides; its ECE there is optimistic."


def test_several_held_out_patients_judge_the_temperature_of_the_others(tmp_path: Path) -> None:
    others = [replace(tile, group=f"h{number}") for number, tile in enumerate(OTHERS)]
    card = run(tmp_path, held_out=others)
    assert card.notes == (
        "Temperature fitted on 4 held-out patients or slides; "
        "its ECE was measured on each of them with a temperature of the others."
    )
    value = read_calibration(tmp_path, load_card(tmp_path))
    assert value is not None
    assert [c["name"] for c in value["classes"]] == ["Background", "Tumor"]
    assert value["classes"][1]["ece"] == pytest.approx(card.trained_on.figures["ece of Tumor"], abs=1e-4)
    run(tmp_path)
    assert read_calibration(tmp_path, load_card(tmp_path)) is None


def test_what_a_parent_learned_from_is_not_held_out_any_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parent = tmp_path / "parent"
    run(parent, [replace(tile, slide_id="old", group="patient") for tile in TILES])
    same = [replace(tile, slide_id="new slide", group="patient") for tile in OTHERS]
    with caplog.at_level("WARNING"):
        card = run(tmp_path / "child", init=parent, held_out=[*same, *OTHERS])
    assert "not held out, since the model learned from them: new slide" in caplog.text
    value = read_calibration(tmp_path / "child", card)
    assert value is not None
    assert (value["groups"], value["slides"]) == (1, 1)
    assert value["pixels"] == sum(tile.labels.size for tile in OTHERS)
    alone = run(tmp_path / "other", init=parent, held_out=same)
    assert alone.temperature == 1
    assert alone.notes == "Temperature not fitted: the model or its parent learned from all held-out slides."
    assert read_calibration(tmp_path / "other", alone) is None


def test_tiles_of_this_training_are_not_held_out_either() -> None:
    found = unseen_tiles([*TILES[:2], *OTHERS], TILES, None)
    assert list(found.tiles) == OTHERS
    assert found.seen == ("s0", "s1")
    assert unseen_tiles(OTHERS, TILES, None).seen == ()


@pytest.mark.parametrize(
    ("trained_on", "held_out", "source"),
    [
        (Source.MEASURED, Source.MEASURED, "measured"),
        (Source.MEASURED, Source.SIMULATED, "simulated"),
        (Source.SIMULATED, Source.MEASURED, "simulated"),
    ],
)
def test_a_calibration_on_simulated_annotations_is_simulated(
    tmp_path: Path, trained_on: Source, held_out: Source, source: str
) -> None:
    card = run(
        tmp_path,
        [replace(tile, source=trained_on) for tile in TILES],
        steps=1,
        held_out=[replace(tile, source=held_out) for tile in OTHERS],
    )
    value = read_calibration(tmp_path, card)
    assert value is not None
    assert value["source"] == source


def test_without_held_out_tiles_the_temperature_stays_and_the_card_says_so(tmp_path: Path) -> None:
    card = run(tmp_path)
    assert card.temperature == 1
    assert card.notes.startswith("Temperature not fitted")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a", seed=5), run(tmp_path / "b", seed=5)
    assert first == second
    assert (tmp_path / "a/card.json").read_bytes() == (tmp_path / "b/card.json").read_bytes()
    assert run(tmp_path / "c", seed=6).sha256 != first.sha256


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    run(tmp_path, threads=1, steps=1)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.rand(1), expected)


def test_progress_is_told_after_each_step(tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    run(tmp_path, steps=4, progress=lambda *told: seen.append(told))
    assert [(done, total) for done, total, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(loss > 0 for _, _, loss in seen)


def test_fine_tuning_goes_on_from_the_model_and_remembers_its_slides(trained: Path, tmp_path: Path) -> None:
    new = [replace(tile, slide_id="n", group="pn") for tile in OTHERS]
    card = run(tmp_path, new, init=trained, replay=TILES, steps=5)
    assert card.trained_on.parent == load_card(trained).model_id
    assert card.trained_on.slides == ("n", "s0", "s1")
    assert card.trained_on.patients == ("p0", "p1", "pn")
    # Five steps at a low rate do not undo forty.
    assert dice(tmp_path, TILES) > 0.85
    assert card.sha256 != load_card(trained).sha256


def test_what_the_parent_was_trained_on_counts_without_replay_too(trained: Path, tmp_path: Path) -> None:
    card = run(tmp_path, [replace(OTHERS[0], slide_id="n", group="n")], init=trained, steps=1)
    assert card.trained_on.slides == ("n", "s0", "s1")
    assert card.trained_on.patients == ("p0", "p1")


def test_unknown_pixels_teach_nothing() -> None:
    logits = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 16, 16, dtype=torch.long)
    labels[:, :, 8:] = UNKNOWN
    other = logits.clone()
    other[..., 8:] = 100
    for recipe in (Recipe(), Recipe(dice=1.0), Recipe(smoothing=0.1)):
        assert torch.equal(_loss(logits, labels, recipe), _loss(other, labels, recipe))


def test_the_dice_loss_is_nought_for_a_perfect_map_and_near_one_for_its_opposite() -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    labels[:, :16] = 1
    perfect = functional.one_hot(labels, 2).movedim(-1, 1).float() * 200 - 100
    recipe = Recipe(dice=1.0)
    assert _loss(perfect, labels, recipe).item() == pytest.approx(0, abs=1e-3)
    cross_entropy = _loss(-perfect, labels, Recipe()).item()
    assert _loss(-perfect, labels, recipe).item() - cross_entropy == pytest.approx(1, abs=0.01)


def test_logits_of_a_tile_are_those_of_the_network_away_from_its_edges(trained: Path) -> None:
    net = read_unet(trained / "model.safetensors")
    tile = blob_tile(1, side=128)
    whole = torch.from_numpy(tile.image).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        expected = net(whole)[0].numpy()
    found = tile_logits(net, tile)
    assert found.shape == (2, 128, 128)
    np.testing.assert_allclose(found[:, 48:80, 48:80], expected[:, 48:80, 48:80], atol=1e-4)


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    nothing = replace(TILES[0], labels=np.full((64, 64), UNKNOWN, dtype=np.uint8))
    for tiles in ([], [nothing]):
        with pytest.raises(ModelError, match="there is nothing to learn from"):
            run(tmp_path / "m", tiles)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("crop", [72, 30])
def test_a_crop_that_does_not_fit_is_refused(crop: int, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"a crop of {crop} px must be a multiple of 8 and fit into tiles of 64 px"):
        run(tmp_path, crop=crop)


def test_going_on_with_other_classes_or_another_mpp_is_refused(trained: Path, tmp_path: Path) -> None:
    three = (*CLASSES, ClassSpec(name="Necrosis", color=(0, 0, 0)))
    with pytest.raises(
        ModelError, match="has the classes Background, Tumor at 1 µm/px, not Background, Tumor, Necrosis"
    ):
        run(tmp_path, init=trained, classes=three)
    with pytest.raises(ModelError, match=r"not Background, Tumor at 0\.5; train from nothing"):
        run(tmp_path, init=trained, mpp=0.5)


def test_the_baseline_cannot_be_trained_further(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="stain-density baseline cannot be trained further"):
        run(tmp_path, init=Path("baseline:stain-density"))


def test_a_rate_that_blows_up_is_an_error_and_leaves_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the loss is no number after \d+ steps; use a lower learning rate"):
        run(tmp_path / "m", steps=30, recipe=Recipe(channels=4, rate=1e30))
    assert not (tmp_path / "m").exists()


def test_the_card_is_plain_json(trained: Path) -> None:
    raw = json.loads((trained / "card.json").read_text())
    assert raw["schema"] == 1
    assert raw["architecture_args"] == {"channels": 8}
