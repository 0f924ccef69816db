"""Nothing that was pickled is run, whatever it is called and wherever it hides."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch

from tests.models.saved import pickle_with_marker, rewrite, save_exported, save_onnx, save_torchscript, write_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import sha256_file
from wsi_pipeline.models import load_card, load_segmenter
from wsi_pipeline.models.onnx_files import external_files


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "code-was-run"


def refused(folder: Path, match: str, marker: Path) -> None:
    with pytest.raises(ModelError, match=match):
        load_segmenter(folder, device="cpu", threads=1)
    assert not marker.exists()


def test_the_marker_works(marker: Path, tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(pickle_with_marker(marker))
    torch.load(tmp_path / "m.pt", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_called_torchscript_is_refused_and_not_run(zipped: bool, tmp_path: Path, marker: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle_with_marker(marker, zipped=zipped))
    write_card(tmp_path, "torchscript", "model.pt")
    refused(tmp_path, r"model\.pt: this is (a pickle|no TorchScript archive)", marker)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_called_exported_is_refused_and_not_run(zipped: bool, tmp_path: Path, marker: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(pickle_with_marker(marker, zipped=zipped))
    write_card(tmp_path, "exported", "model.pt2")
    refused(tmp_path, r"model\.pt2: this is no (program of `torch\.export|torch\.export archive)", marker)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    save_exported(path, torch.nn.Conv2d(3, 2, 1))
    return path


@pytest.fixture
def program(exported: Path, tmp_path: Path) -> Path:
    (tmp_path / "model.pt2").write_bytes(exported.read_bytes())
    return tmp_path / "model.pt2"


def tampered(program: Path) -> Path:
    return write_card(program.parent, "exported", "model.pt2", halo=8)


def test_the_program_loads_while_nobody_tampers_with_it(program: Path) -> None:
    assert load_segmenter(tampered(program), device="cpu", runtime="torch", threads=1).runtime == "torch"


def test_torch_itself_would_run_a_pickle_inside_a_program(program: Path, marker: Path) -> None:
    """The reason for all of this; when it fails, torch has become safer and the test may go."""
    rewrite(program, lambda name, data: pickle_with_marker(marker) if name.endswith("inputs/model.pt") else data)
    with pytest.raises(Exception):  # noqa: B017, PT011  it runs the code first, and fails then
        torch.export.load(program)
    assert marker.exists()


def test_a_pickle_as_example_inputs_is_refused_and_not_run(program: Path, marker: Path) -> None:
    rewrite(program, lambda name, data: pickle_with_marker(marker) if name.endswith("inputs/model.pt") else data)
    refused(tampered(program), r"example inputs are a pickle that can run code \(", marker)


def test_a_pickle_beside_the_harmless_one_is_found_though_it_is_written_large(program: Path, marker: Path) -> None:
    """torch looks for `data.pkl` without regard to case, and takes what it finds first."""

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("inputs/model.pt"):
            return data
        evil = zipfile.ZipFile(io.BytesIO(pickle_with_marker(marker)))
        pickled = next(evil.read(n) for n in evil.namelist() if n.endswith("data.pkl"))
        honest, mixed = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
        with zipfile.ZipFile(mixed, "w") as new:
            folder = honest.namelist()[0].split("/")[0]
            new.writestr(f"{folder}/DATA.PKL", pickled)
            for record in honest.namelist():
                new.writestr(record, honest.read(record))
        return mixed.getvalue()

    rewrite(program, change)
    refused(tampered(program), r"example inputs are a pickle that can run code \(posix mkdir|\(STACK_GLOBAL", marker)


def test_bare_bytes_as_example_inputs_are_refused(program: Path, marker: Path) -> None:
    bare = pickle_with_marker(marker, zipped=False)
    rewrite(program, lambda name, data: bare if name.endswith("inputs/model.pt") else data)
    refused(tampered(program), "example inputs are a pickle that can run code", marker)


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_pickled_tensors_are_refused_and_not_run(kind: str, program: Path, marker: Path) -> None:
    prefix = {"weights": "weight", "constants": "tensor"}[kind]

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith(f"model_{kind}_config.json"):
            return data
        config = json.loads(data)
        entry = {"path_name": f"{prefix}_evil", "is_param": True, "use_pickle": True, "tensor_meta": None}
        return json.dumps({**config, "config": {**config["config"], "evil": entry}}).encode()

    rewrite(program, change, {f"model/data/{kind}/{prefix}_evil": pickle_with_marker(marker)})
    refused(tampered(program), "evil is stored as a pickle, which can run code", marker)


def test_an_opaque_constant_is_refused_though_it_says_that_it_is_no_pickle(program: Path, marker: Path) -> None:
    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("model_constants_config.json"):
            return data
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
        return json.dumps({"config": {"evil": entry}}).encode()

    add = {"model/data/constants/opaque_obj_0": pickle_with_marker(marker, zipped=False)}
    rewrite(program, change, add)
    refused(tampered(program), "evil is stored as a pickle", marker)


def test_weights_of_the_older_format_are_refused(program: Path, marker: Path) -> None:
    rewrite(program, lambda name, data: data, {"model/data/weights/model.pt": pickle_with_marker(marker)})
    refused(tampered(program), "its weights are pickled, which can run code", marker)


def test_a_record_that_is_there_twice_is_refused(program: Path, marker: Path) -> None:
    rewrite(program, lambda name, data: data, {"other/models/model.json": b"{}"})
    refused(tampered(program), "is in the archive twice", marker)


@pytest.mark.parametrize("architecture", ["torchscript", "exported"])
def test_files_that_end_early_are_refused(architecture: str, tmp_path: Path, exported: Path, marker: Path) -> None:
    name = {"torchscript": "model.pt", "exported": "model.pt2"}[architecture]
    if architecture == "exported":
        (tmp_path / name).write_bytes(exported.read_bytes()[:-200])
    else:
        save_torchscript(tmp_path / name, torch.nn.Conv2d(3, 2, 1))
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-200])
    refused(write_card(tmp_path, architecture, name), r"archive .a pickle, or damaged|no program of", marker)


def test_a_card_without_hash_is_told_the_hash(tmp_path: Path) -> None:
    save_onnx(tmp_path / "net.onnx")
    write_card(tmp_path, "onnx", "net.onnx", sha256=None)
    with pytest.raises(ModelError, match=f'add "sha256": "{sha256_file(tmp_path / "net.onnx")}"'):
        load_segmenter(tmp_path)


def test_every_file_of_an_onnx_model_counts(tmp_path: Path) -> None:
    save_onnx(tmp_path / "net.onnx", external=True)
    assert external_files(tmp_path / "net.onnx") == ("net.onnx.data",)
    write_card(tmp_path, "onnx", "net.onnx", halo=8)
    with pytest.raises(ModelError, match="SHA-256"):
        load_segmenter(tmp_path)  # the card's hash is of the first file alone
    (tmp_path / "net.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"net\.onnx\.data, which holds its tensors, is not beside it; copy both"):
        load_segmenter(tmp_path)


def test_an_onnx_model_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    save_onnx(tmp_path / "net.onnx", external=True)
    data = (tmp_path / "net.onnx").read_bytes()
    (tmp_path / "net.onnx").write_bytes(data.replace(b"net.onnx.data", b"../../secrets"))
    with pytest.raises(ModelError, match=r"come from '\.\./\.\./secrets'; only files beside it"):
        external_files(tmp_path / "net.onnx")


@pytest.mark.parametrize("data", [b"", b"hello, world", b"\x3a\xff\xff\xff\x7f", b"\xff" * 40])
def test_what_is_no_onnx_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(ModelError, match="this is no ONNX model, or damaged"):
        external_files(tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["loose.pt", "loose.pt2", "loose.onnx"])
def test_weights_without_a_card_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"?")
    with pytest.raises(ModelError, match=r"pickled weights are not loaded|weights without a card; a model is a folder"):
        load_card(tmp_path / name)
