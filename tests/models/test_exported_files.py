"""Programs of torch.export, and TorchScript, that would run code or write files without a single pickle."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.models.nets import texture
from tests.models.saved import GLANDS, rewrite, save_exported, save_torchscript, write_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models import load_segmenter
from wsi_pipeline.models.exported_files import _check_size

Change = Callable[[dict[str, Any], str], None]


class Attending(nn.Module):
    """Of many kinds of layers, with two outputs: what an honest program may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.GroupNorm(4, 16)
        self.look = nn.MultiheadAttention(16, 2, batch_first=True)
        self.up = nn.ConvTranspose2d(16, 2, 4, 4)
        self.register_buffer("factor", torch.ones(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.norm(self.down(x))
        count, channels, height, width = y.shape
        flat = y.flatten(2).transpose(1, 2)
        y = self.look(flat, flat, flat)[0].transpose(1, 2).reshape(count, channels, height, width)
        y = torch.einsum("nchw,nchw->nchw", y, y)
        with torch.no_grad():
            y = nn.functional.interpolate(y, size=(height, width), mode="bilinear", antialias=True)
        y = nn.functional.pad(y, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1]
        return {"map": self.up(y) * self.factor, "mean": y.mean((2, 3))}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    save_exported(path, nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Upsample(scale_factor=2),
                                      nn.Conv2d(4, 2, 1)))  # fmt: skip
    return path


@pytest.fixture
def program(exported: Path, tmp_path: Path) -> Path:
    (tmp_path / "model.pt2").write_bytes(exported.read_bytes())
    return tmp_path / "model.pt2"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "code-was-run"


def change_graph(program: Path, change: Change, marker: Path) -> None:
    def changed(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        graph = json.loads(data)
        change(graph, f"__import__('os').mkdir('{marker}')")
        return json.dumps(graph).encode()

    rewrite(program, changed)


def load(program: Path, architecture: str = "exported", **changes: Any) -> Any:
    write_card(program.parent, architecture, program.name, **{"halo": 8, **changes})
    return load_segmenter(program.parent, device="cpu", runtime="torch", threads=1)


def size(graph: dict[str, Any], code: str) -> None:
    first = next(iter(graph["graph_module"]["graph"]["tensor_values"].values()))
    first["sizes"][0] = {"as_expr": {"expr_str": f"{code} or 1", "hint": None}}


def condition(graph: dict[str, Any], code: str) -> None:
    graph["guards_code"] = [f"{code} is None"]


def argument(graph: dict[str, Any], code: str) -> None:
    text = json.dumps(graph["graph_module"])
    name = graph["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"]
    graph["graph_module"] = json.loads(text.replace(f'"{name}"', json.dumps(f"{name}={code}")))


def named_argument(graph: dict[str, Any], code: str) -> None:
    for call in graph["graph_module"]["module_call_graph"]:
        if call["signature"]:
            call["signature"]["forward_arg_names"] = [f"x={code}"]


def keyword(graph: dict[str, Any], code: str) -> None:
    spec = {"type": "builtins.dict", "context": json.dumps([f"x={code}"]), "children_spec": []}
    for call in graph["graph_module"]["module_call_graph"]:
        if call["signature"]:
            call["signature"]["in_spec"] = json.dumps([1, spec])


def operator(graph: dict[str, Any], code: str) -> None:
    graph["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.mkdir"


def factory(graph: dict[str, Any], code: str) -> None:
    spec = {"type": "collections.defaultdict", "context": "{}", "children_spec": []}
    for call in graph["graph_module"]["module_call_graph"]:
        if call["signature"]:
            call["signature"]["out_spec"] = json.dumps([1, spec])


def mapping(graph: dict[str, Any], code: str) -> None:
    graph["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"


@pytest.mark.parametrize("change", [size, condition])
def test_torch_itself_would_run_code_in_sizes_and_conditions(change: Change, program: Path, marker: Path) -> None:
    """The reason for all of this; when it fails, torch has become safer and the test may go."""
    change_graph(program, change, marker)
    torch.export.load(program).module()(torch.zeros(2, 3, 64, 64))
    assert marker.exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (size, r"__import__\('os'\).*is no size of a tensor"),
        (argument, "is no name"),
        (named_argument, "is no name"),
        (keyword, "is no name"),
        (operator, r"'torch\.os\.mkdir' is no operator"),
        (mapping, r"'torch\.ops\.aten\.from_file\.default' is no operator"),
        (factory, "'collections.defaultdict' among its inputs or outputs"),
    ],
)
def test_a_graph_that_would_run_code_is_refused_and_not_run(
    change: Change, match: str, program: Path, marker: Path
) -> None:
    change_graph(program, change, marker)
    with pytest.raises(ModelError, match=rf"model\.pt2: its graph is damaged, or would run code \(.*{match}"):
        load(program)
    assert not marker.exists()


def test_conditions_on_the_inputs_are_not_run(program: Path, marker: Path) -> None:
    change_graph(program, condition, marker)
    load(program).predict(texture(64, 64, 1)[None])
    assert not marker.exists()


def test_a_graph_that_is_nested_without_end_is_refused(program: Path) -> None:
    rewrite(program, lambda name, data: b"[" * 10**6 if name.endswith("models/model.json") else data)
    with pytest.raises(ModelError, match="its graph is damaged"):
        load(program)


@pytest.mark.parametrize("record", ["data/aotinductor/model/evil.so", "extra/readme", "models/other.json"])
def test_records_that_no_program_has_are_refused(record: str, program: Path) -> None:
    rewrite(program, lambda name, data: data, {f"model/{record}": b"\x7fELF"})
    with pytest.raises(ModelError, match=rf"holds {re.escape(record)}, which no program"):
        load(program)


def test_a_record_with_the_same_name_but_for_case_is_refused(program: Path) -> None:
    """torch takes whichever it finds first."""
    with zipfile.ZipFile(program) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("model_constants_config.json"))
    rewrite(program, lambda name, data: data, {name.replace("config.json", "config.JSON"): b"{}"})
    with pytest.raises(ModelError, match=r"model_constants_config\.json is in the archive twice; it was tampered"):
        load(program)


@pytest.mark.parametrize("architecture", ["exported", "torchscript"])
def test_an_archive_in_front_of_another_is_refused(architecture: str, exported: Path, tmp_path: Path) -> None:
    """Python reads the last one; torch goes by places counted from the file's start."""
    path = tmp_path / "model.pt2"
    if architecture == "exported":
        path.write_bytes(exported.read_bytes() * 2)
    else:
        path = tmp_path / "model.pt"
        save_torchscript(path, nn.Conv2d(3, 2, 1))
        path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ModelError, match="something before or behind the archive; it was tampered with"):
        load(path, architecture)


def test_an_honest_program_of_many_layers_is_not_taken_for_a_bad_one(tmp_path: Path) -> None:
    path, net = tmp_path / "model.pt2", Attending()
    height, width = (4 * torch.export.Dim(name, min=2) for name in ("height", "width"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given_shapes = ({2: height, 3: width},)
        program = torch.export.export(net.eval(), (torch.rand(1, 3, 64, 96),), dynamic_shapes=given_shapes)
        torch.export.save(program, path)
    card: dict[str, Any] = {"stride": 4, "halo": None, "blend": 0.5, "activation": "sigmoid", "classes": GLANDS[:2]}
    image = texture(96, 128, 1)[None]
    with torch.inference_mode():
        wanted = torch.sigmoid(net(torch.from_numpy(image / 255).float().permute(0, 3, 1, 2))["map"]).numpy()
    found = load(path, **card).predict(image).probability
    assert np.abs(found - 255 * wanted).max() <= 1


EXPRESSIONS = st.recursive(
    st.one_of(
        st.integers(-99, 99).map(lambda n: f"Integer({n})"),
        st.integers(0, 99).map(lambda n: f"Symbol('s{n}', positive=True, integer=True)"),
        st.integers(0, 99).map(lambda n: f"s{n}"),
    ),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["Mul", "Add", "Max", "FloorDiv", "Mod"]), inner, inner).map(
            lambda t: f"{t[0]}({t[1]}, {t[2]})"
        ),
        st.tuples(inner, st.sampled_from(["+", "*", "//", "-", "<", "=="]), inner).map(lambda t: f"({' '.join(t)})"),
    ),
)


@given(EXPRESSIONS)
def test_sizes_as_torch_prints_them_are_let_through(text: str) -> None:
    _check_size(text)


CALLS = ["__import__('os')", "f(1)", "().__class__", "s0[0]", "lambda: 1", "'a b'", "open", "[s0 for s0 in s1]",
         "Symbol('x=1')", "Integer.__init__", "(s0 := 1)", "f'{s0}'", "*s0"]  # fmt: skip


@given(EXPRESSIONS, st.sampled_from([call for call in CALLS if call != "open"]), EXPRESSIONS)
def test_nothing_else_is_wherever_it_stands(left: str, call: str, right: str) -> None:
    with pytest.raises((ValueError, SyntaxError)):
        _check_size(f"Add({left}, {call}, {right})")


class Writing(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x[:, :2]


def test_torchscript_that_writes_a_file_is_refused(tmp_path: Path, marker: Path) -> None:
    torch.jit.save(torch.jit.script(Writing(str(marker))), str(tmp_path / "m.pt"))
    with pytest.raises(ModelError, match=r"m\.pt: its code calls save, which may write files"):
        load(tmp_path / "m.pt", "torchscript")
    assert not marker.exists()


@pytest.mark.parametrize("between", [b"", b" ", b" \\\n  ", b" # nothing\n"])
def test_what_stands_between_the_name_and_its_parenthesis_hides_nothing(between: bytes, tmp_path: Path) -> None:
    save_torchscript(tmp_path / "m.pt", nn.Conv2d(3, 2, 1))
    call = b"_8 = torch.save" + between + b'(argument_1, "/tmp/never")\n    return'

    def change(name: str, data: bytes) -> bytes:
        return data.replace(b"return", call) if name.endswith(".py") else data

    rewrite(tmp_path / "m.pt", change)
    with pytest.raises(ModelError, match=r"its code calls save, which may write files"):
        load(tmp_path / "m.pt", "torchscript")


def test_torchscript_whose_layers_have_the_names_of_bad_functions_is_let_through(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.save, self.ops = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.ops(self.save(x))
            return found

    save_torchscript(tmp_path / "m.pt", Named())
    assert load(tmp_path / "m.pt", "torchscript", halo=0, stride=1).runtime == "torch"


def test_torchscript_that_names_operators_of_unknown_origin_is_refused(tmp_path: Path) -> None:
    save_torchscript(tmp_path / "m.pt", nn.Conv2d(3, 2, 1))

    def change(name: str, data: bytes) -> bytes:
        return data.replace(b"return", b"_9 = ops.c10d.barrier()\n    return") if name.endswith(".py") else data

    rewrite(tmp_path / "m.pt", change)
    with pytest.raises(ModelError, match=r"its code calls ops\.c10d\.barrier"):
        load(tmp_path / "m.pt", "torchscript")
