"""Folders of WSInfer and functions of the user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.models import saved
from tests.models.entries import Redness
from tests.models.nets import texture
from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import sha256_file
from wsi_pipeline.models import Segmenter, choose_runtime, is_named, load_card, load_segmenter

ENTRY = "tests.models.entries"


def load(path: Path | str) -> Segmenter:
    return load_segmenter(path, device="cpu", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved.save_wsinfer(tmp_path_factory.mktemp("zoo") / "breast-tumor-resnet34")


def test_the_configuration_becomes_a_card(folder: Path) -> None:
    card = load_card(folder)
    assert (card.mpp, card.stride, card.output_downsample, card.halo, card.window) == (0.5, 96, 96, 0, 768)
    assert (card.mean, card.std, card.activation) == ((0.5,) * 3, (0.25,) * 3, "softmax")
    assert [(spec.name, spec.background) for spec in card.classes] == [("Other", True), ("Tumor", False)]
    assert card.model_id == f"breast-tumor-resnet34@{sha256_file(folder / 'torchscript_model.pt')[:12]}"
    assert load_card(folder / "config.json") == load_card(folder / "torchscript_model.pt") == card


def test_each_patch_gives_a_pixel_of_the_map(folder: Path) -> None:
    images = np.stack([texture(96 * 2, 96 * 3, seed) for seed in range(2)])
    images[0, :96, 96:192] = (250, 20, 20)
    maps = load(folder).predict(images)
    assert maps.probability.shape == (2, 1, 2, 3)
    net = saved.Classifier()
    for image, row, column in np.ndindex(2, 2, 3):
        patch = images[image, row * 96 : (row + 1) * 96, column * 96 : (column + 1) * 96]
        x = torch.from_numpy(patch.copy()).permute(2, 0, 1)[None].float() / 255
        x = functional.interpolate(x, (64, 64), mode="bilinear", antialias=True)
        p = torch.softmax(net((x - 0.5) / 0.25), 1)[0, 1].item()
        assert abs(int(maps.probability[image, 0, row, column]) - 255 * p) <= 1
    assert maps.probability[0, 0, 0, 1] > 250


def test_a_patch_does_not_see_its_neighbours(folder: Path) -> None:
    segmenter = load(folder)
    image = texture(96, 288, 5)[None]
    whole = segmenter.predict(image).probability
    for column in range(3):
        part = segmenter.predict(image[:, :, column * 96 : (column + 1) * 96]).probability
        assert abs(int(part[0, 0, 0, 0]) - int(whole[0, 0, 0, column])) <= 1


def test_many_classes_without_a_background(tmp_path: Path) -> None:
    names = ["grade3", "grade4+5", "benign"]
    card = load_card(saved.save_wsinfer(tmp_path / "m", patch=175, resize=None, num_classes=3, class_names=names))
    assert [spec.name for spec in card.foreground] == names
    assert len({spec.color for spec in card.classes}) == 3
    assert load(tmp_path / "m").predict(texture(350, 175, 1)[None]).probability.shape == (1, 3, 2, 1)


def test_a_snapshot_of_a_cache_has_the_name_of_its_model(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--kaczmarj--breast-tumor" / "snapshots" / ("0" * 40)
    assert load_card(saved.save_wsinfer(snapshot)).name == "kaczmarj/breast-tumor"


def test_a_card_beside_the_configuration_goes_before_it(tmp_path: Path) -> None:
    folder = saved.save_wsinfer(tmp_path / "m")
    card = load_card(folder).dump()
    card["classes"][1]["name"] = "Carcinoma"
    (folder / "card.json").write_text(json.dumps(card))
    assert [spec.name for spec in load_card(folder).foreground] == ["Carcinoma"]
    assert load(folder).predict(texture(96, 96, 1)[None]).probability.shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_classes": 3}, "class_names: there are 2, num_classes says 3"),
        ({"patch_size_pixels": "big"}, "patch_size_pixels: Input should be a valid integer"),
        ({"spec_version": "9"}, "spec_version: Input should be '1.0'"),
        ({"transform": [{"name": "RandomCrop"}]}, r"transform\.0\.name"),
        ({"transform": [{"name": "ToTensor"}, {"name": "Resize"}]}, "transform: ToTensor, Resize; known here"),
        ({"transform": [{"name": "Resize", "arguments": {"size": [4, 5]}}, {"name": "ToTensor"}]}, "Resize to"),
        ({"transform": [{"name": "ToTensor"}, {"name": "Normalize"}]}, "mean"),
    ],
)
def test_a_wrong_configuration_is_refused_and_named(
    changes: dict[str, Any], match: str, folder: Path, tmp_path: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    (tmp_path / "torchscript_model.pt").write_bytes((folder / "torchscript_model.pt").read_bytes())
    with pytest.raises(ModelError, match=rf"config\.json: .*{match}"):
        load_card(tmp_path)


def test_missing_weights_of_wsinfer_are_named(tmp_path: Path) -> None:
    (saved.save_wsinfer(tmp_path) / "torchscript_model.pt").unlink()
    with pytest.raises(ModelError, match=r"there is no torchscript_model\.pt beside config\.json"):
        load_card(tmp_path)


def test_a_pickle_as_weights_of_wsinfer_is_refused_and_not_run(tmp_path: Path) -> None:
    saved.save_wsinfer(tmp_path / "m")
    (tmp_path / "m" / "torchscript_model.pt").write_bytes(saved.pickle_with_marker(tmp_path / "ran"))
    with pytest.raises(ModelError, match="this is a pickle, not a TorchScript archive"):
        load(tmp_path / "m")
    assert not (tmp_path / "ran").exists()


def test_a_function_gives_a_model() -> None:
    image = texture(32, 48, 3)[None]
    segmenter = load(f"{ENTRY}:redness")
    np.testing.assert_array_equal(
        segmenter.predict(image).probability, Redness(segmenter.card, 128).predict(image).probability
    )
    assert choose_runtime(f"{ENTRY}:redness", device="cpu", precision="own", runtime="python").runtime == "python"


def test_its_arguments_change_the_map_and_the_id() -> None:
    image = texture(32, 48, 3)[None]
    low, high = (load(f"{ENTRY}:redness?limit={limit}") for limit in (60, 200))
    assert low.predict(image).probability.mean() > high.predict(image).probability.mean()
    assert low.card.model_id != high.card.model_id
    assert low.card.model_id == load_card(f"{ENTRY}:redness?limit=60").model_id


def test_its_halo_is_measured_where_it_states_none() -> None:
    path = f"{ENTRY}:without_halo"
    assert load_card(path).halo == 3
    assert load(path).card.halo == 3


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("no_such_package.models:best", r"no_such_package\.models cannot be imported .*PYTHONPATH"),
        (f"{ENTRY}:nothing", "there is no nothing in tests"),
        (f"{ENTRY}:failing", "failing fails .RuntimeError: no licence found"),
        (f"{ENTRY}:redness?colour=1", "redness fails .TypeError: .*colour"),
        (f"{ENTRY}:something_else", "the factory gave str; it must give an object with a `card`"),
        (f"{ENTRY}:its_class", "the factory gave the class Redness; it must give an object"),
        (f"{ENTRY}:without_licence", r"its `card` or `predict` cannot be had .RuntimeError: no licence"),
        (f"{ENTRY}:leaving", "leaving fails .SystemExit: 3"),
        (f"{ENTRY}:without_version", "name a `version` in `architecture_args`"),
    ],
)
def test_a_function_that_cannot_be_used_is_named_with_the_cause(path: str, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        load_card(path)


def test_what_a_function_changes_in_its_images_changes_nothing_else() -> None:
    images = texture(32, 32, 1)[None]
    before = images.copy()
    load(f"{ENTRY}:painting").predict(images)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(
    ("factory", "match"),
    [
        ("floats", r"its probability must be uint8 \(1, 1, (\d+), \1\), not float64 \(1, \1, \1\)"),
        ("nothing_at_all", r"its `predict` fails, or gives no pair of maps, .*TypeError"),
        ("three_maps", r"its `predict` fails, or gives no pair of maps, .*ValueError: too many values"),
        ("lost", r"its `predict` fails, .* for 1 images of \d+ x \d+ px \(KeyError: 'weights'\)"),
    ],
)
def test_maps_of_another_kind_are_refused_with_the_model_s_name(factory: str, match: str) -> None:
    with pytest.raises(ModelError, match=f"^model redness: {match}"):
        load(f"{ENTRY}:{factory}")


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("baseline:stain-density?mpp=1", True),
        ("package.module:factory", True),
        ("module:factory?a=b", True),
        ("models/glands", False),
        ("models/a:b", False),
        (r"C:\models\glands", False),
        ("/models/net.onnx", False),
    ],
)
def test_names_are_told_from_paths(path: str, named: bool) -> None:
    assert is_named(path) == named
