from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.models.nets import STROMA, contrasty_unet, texture, tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import sha256_file
from wsi_pipeline.models import choose_runtime, load_card, load_segmenter
from wsi_pipeline.models.unet import save_model

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model_folder, tmp_path / "m")


def edit(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def load(folder: Path) -> None:
    load_segmenter(folder, device="cpu", runtime="torch", threads=1)


def test_folder_and_card_give_the_same_model(folder: Path) -> None:
    image = texture(64, 64, 0)[None]
    maps = [
        load_segmenter(path, device="cpu", runtime="torch", threads=1).predict(image).probability
        for path in (folder, str(folder), folder / "card.json")
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"/m: there is no model\.safetensors beside the card; copy the whole folder"):
        load(folder)


def test_weights_that_changed_by_a_bit_are_refused(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=r"has the SHA-256 .*…, the card says .*…; the file is damaged"):
        load(folder)


def test_a_card_without_hash_is_refused(folder: Path) -> None:
    edit(folder, sha256=None)
    with pytest.raises(ModelError, match="names no `weights` with their `sha256`"):
        load(folder)


def test_a_card_with_more_classes_than_outputs_is_refused(folder: Path) -> None:
    classes = json.loads((folder / "card.json").read_text())["classes"]
    edit(folder, classes=[*classes, STROMA.model_dump()])
    with pytest.raises(ModelError, match=r"has 2 outputs, the card 3 classes \(Background, Tumor, Stroma\)"):
        load(folder)


def test_a_card_with_another_width_is_refused(folder: Path) -> None:
    edit(folder, architecture_args={"channels": 64})
    with pytest.raises(ModelError, match="the network is 4 channels wide, the card says 64"):
        load(folder)


def put_weights(folder: Path, name: str, write: Callable[[Path], object]) -> None:
    write(folder / name)
    edit(folder, weights=name, sha256=sha256_file(folder / name))


def test_weights_of_another_network_are_refused_though_their_hash_fits(folder: Path) -> None:
    put_weights(folder, "other.safetensors", lambda path: safetensors.torch.save_file({"a": torch.zeros(1)}, path))
    with pytest.raises(ModelError, match="not the weights of the bundled U-Net"):
        load(folder)


def test_text_called_safetensors_is_refused(folder: Path) -> None:
    put_weights(folder, "text.safetensors", lambda path: path.write_text("weights? what weights?"))
    with pytest.raises(ModelError, match="not the weights of the bundled U-Net"):
        load(folder)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin", "model.pkl", "last.ckpt"])
def test_pickled_weights_are_refused_with_the_way_out(name: str, folder: Path) -> None:
    put_weights(folder, name, lambda path: torch.save(contrasty_unet().state_dict(), path))
    with pytest.raises(ModelError, match=r"pickled weights are not loaded.*`save_model`"):
        load(folder)
    with pytest.raises(ModelError, match="pickled weights are not loaded"):
        load_card(folder / name)


def test_weights_given_without_their_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="weights without a card"):
        load_card(tmp_path / "loose.safetensors")


def test_a_model_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    for function in (load_card, load_segmenter, choose_runtime):
        with pytest.raises(ModelError, match=r"nowhere: there is no card\.json"):
            function(tmp_path / "nowhere")


def test_the_hash_is_checked_before_the_runtime_is_chosen(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="SHA-256"):
        choose_runtime(folder, device="cpu")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_models_loads_neither_torch_nor_openvino() -> None:
    assert (
        python(
            "import sys, wsi_pipeline.models; "
            "print([name for name in ('torch', 'openvino', 'pandas', 'scipy') if name in sys.modules])"
        )
        == "[]"
    )


@pytest.mark.slow
def test_a_warm_start_with_openvino_loads_no_torch(folder: Path) -> None:
    cold = choose_runtime(folder, device="cpu", threads=1)
    load_segmenter(folder, device="cpu", runtime="openvino", threads=1)
    code = f"""
import sys
import numpy as np
from wsi_pipeline.models import choose_runtime, load_segmenter
choice = choose_runtime({str(folder)!r}, device="cpu", threads=1)
segmenter = load_segmenter({str(folder)!r}, device="cpu", runtime="openvino", precision="fp32", threads=1)
segmenter.predict(np.zeros((1, 64, 64, 3), dtype=np.uint8))
print(choice.runtime, choice.cached, "torch" in sys.modules)
"""
    assert python(code) == f"{cold.runtime} True False"


def test_the_baseline_loads_without_torch() -> None:
    code = (
        "import sys, numpy as np; from wsi_pipeline.models import load_segmenter; "
        "load_segmenter('baseline:stain-density').predict(np.zeros((1, 64, 64, 3), np.uint8)); "
        "print('torch' in sys.modules, 'openvino' in sys.modules)"
    )
    assert python(code) == "False False"


def test_saving_over_a_model_replaces_both_files(tmp_path: Path) -> None:
    save_model(tmp_path, contrasty_unet(seed=1), tumor_card())
    first = load_card(tmp_path)
    save_model(tmp_path, contrasty_unet(seed=2), tumor_card())
    assert load_card(tmp_path).sha256 != first.sha256
    load(tmp_path)
