"""Model folders as people have them, written by the real libraries."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.models.nets import contrasty_unet, tumor_card
from wsi_pipeline.files import sha256_file

CLASSES = [spec.model_dump(mode="json") for spec in tumor_card().classes]
GLANDS = [{"name": name, "color": [10 * i, 50, 90]} for i, name in enumerate(("Lumen", "Epithelium", "Stroma"))]


def write_card(folder: Path, architecture: str, weights: str, **changes: Any) -> Path:
    """A card beside weights that are there; its halo is that of the bundled U-Net."""
    card = {
        "name": architecture,
        "architecture": architecture,
        "mpp": 0.5,
        "window": 128,
        "halo": 48,
        "stride": 8,
        "classes": CLASSES,
        "weights": weights,
        "sha256": sha256_file(folder / weights),
        **changes,
    }
    (folder / "card.json").write_text(json.dumps({k: v for k, v in card.items() if v is not None}))
    return folder


def save_torchscript(path: Path, net: nn.Module | None = None, side: int = 64) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace((net or contrasty_unet()).eval(), torch.rand(1, 3, side, side))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(path))


def save_exported(path: Path, net: nn.Module | None = None, *, fixed: int | None = None) -> None:
    """For images of any multiple of 8, or one image of `fixed` px."""
    shapes = None
    if fixed is None:
        many, height, width = (torch.export.Dim(name, min=1) for name in ("many", "height", "width"))
        shapes = ({0: many, 2: 8 * height, 3: 8 * width},)
    example = torch.rand(2 if fixed is None else 1, 3, fixed or 64, fixed or 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export((net or contrasty_unet()).eval(), (example,), dynamic_shapes=shapes)
        torch.export.save(program, path)


def save_onnx(
    path: Path,
    *,
    classes: int = 2,
    fixed: int | None = None,
    external: bool = False,
    colours_last: bool = False,
    half: bool = False,
) -> None:
    """A 3 x 3 convolution whose map has contrast, made with the `onnx` package.

    With `colours_last` images and maps are (N, H, W, C), as TensorFlow has them; with `half` all is float16.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    kernel = rng.normal(0, 2, (classes, 3, 3, 3)).astype(np.float32)
    kernel -= kernel.mean(axis=(1, 2, 3), keepdims=True)
    dtype, kind = (np.float16, TensorProto.FLOAT16) if half else (np.float32, TensorProto.FLOAT)
    kernel = kernel.astype(dtype)
    tensors = [
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(np.zeros(classes, dtype), "shift"),
    ]
    sides: list[Any] = [fixed, fixed] if fixed else ["height", "width"]
    many = 1 if fixed else "many"
    nodes = [helper.make_node("Conv", ["image", "kernel", "shift"], ["logits"], pads=[1, 1, 1, 1])]
    shapes = [[many, 3, *sides], [many, classes, *sides]]
    if colours_last:
        nodes = [
            helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "kernel", "shift"], ["maps"], pads=[1, 1, 1, 1]),
            helper.make_node("Transpose", ["maps"], ["logits"], perm=[0, 2, 3, 1]),
        ]
        shapes = [[many, *sides, 3], [many, *sides, classes]]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", kind, shapes[0])],
        [helper.make_tensor_value_info("logits", kind, shapes[1])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(
        model,
        str(path),
        save_as_external_data=external,
        location=f"{path.name}.data" if external else None,
        size_threshold=0,
    )


class Classifier(nn.Module):
    """Logits of patches from the mean of each colour: red is the second class."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((2, 3))
        return (4 * torch.stack([-mean[:, 0], mean[:, 0], mean[:, 2]], 1))[:, : self.classes]


def save_wsinfer(folder: Path, *, patch: int = 96, resize: int | None = 64, **changes: Any) -> Path:
    """A model folder of WSInfer with the classes Other and Tumor."""
    transform: list[dict[str, Any]] = [] if resize is None else [{"name": "Resize", "arguments": {"size": resize}}]
    transform += [{"name": "ToTensor"}, {"name": "Normalize", "arguments": {"mean": [0.5] * 3, "std": [0.25] * 3}}]
    config = {
        "spec_version": "1.0",
        "architecture": "resnet34",
        "num_classes": 2,
        "class_names": ["Other", "Tumor"],
        "patch_size_pixels": patch,
        "spacing_um_px": 0.5,
        "transform": transform,
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_torchscript(folder / "torchscript_model.pt", Classifier(config["num_classes"]), resize or patch)
    return folder


class Marker:
    """Unpickled, it makes a folder: the sign that code was run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def pickle_with_marker(marker: Path, *, zipped: bool = True) -> bytes:
    """A file of `torch.save`, or a bare pickle, that makes `marker` when it is unpickled."""
    if not zipped:
        return pickle.dumps(Marker(marker))
    buffer = io.BytesIO()
    torch.save({"weights": Marker(marker)}, buffer)
    return buffer.getvalue()


def rewrite(archive: Path, change: Callable[[str, bytes], bytes], add: dict[str, bytes] | None = None) -> None:
    """Write a zip anew, each record changed, records added."""
    with zipfile.ZipFile(archive) as old:
        records = {name: change(name, old.read(name)) for name in old.namelist()}
    with zipfile.ZipFile(archive, "w") as new:
        for name, data in (records | (add or {})).items():
            new.writestr(name, data)
