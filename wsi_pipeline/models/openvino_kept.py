"""Networks converted for OpenVINO, kept on this machine: a warm start reads them and loads no torch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino

from wsi_pipeline.models.machine import cache_dir

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger(__name__)

Models = tuple[openvino.Model, ...]


def kept_folder(*parts: Any) -> Path:
    """Where a conversion is kept that all these parts, plain data, have gone into; another one per OpenVINO version."""
    first, *others = parts
    key = json.dumps([first, openvino.__version__, *others], sort_keys=True)
    return cache_dir() / "openvino" / hashlib.sha256(key.encode()).hexdigest()[:32]


def kept(folder: Path, names: Sequence[str], convert: Callable[[], Models]) -> Models:
    """The models of `folder`, one in each of these files; converted first where they are not there or damaged."""
    return _read(folder, names) or _convert_and_keep(folder, names, convert)


def traced(graph: nn.Module, side: int) -> openvino.Model:
    """`graph`, from uint8 (N, H, W, 3) images, converted for every N, H and W; tried with one of `side` px."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own, about deprecated parts of torch
        model = openvino.convert_model(
            graph.eval().requires_grad_(False), example_input=torch.zeros(1, side, side, 3, dtype=torch.uint8)
        )
    model.reshape([-1, -1, -1, 3])
    return model


def _read(folder: Path, names: Sequence[str]) -> Models | None:
    if not all((folder / name).is_file() for name in names):
        return None
    core = openvino.Core()
    try:
        return tuple(core.read_model(folder / name) for name in names)
    except RuntimeError as error:
        _log.warning("the kept conversion %s cannot be read (%s); converting again", folder, str(error).splitlines()[0])
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _convert_and_keep(folder: Path, names: Sequence[str], convert: Callable[[], Models]) -> Models:
    """Convert, write beside its place, rename there; without a cache that can be written, keep nothing.

    The models are read back from disk in any case: as converted they are optimised a little differently, and a run
    that was killed must go on with the same bits.
    """
    models = convert()
    with tempfile.TemporaryDirectory(prefix="wsi-pipeline-") as elsewhere:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            beside = tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.")
        except OSError as error:
            _log.warning("the converted model cannot be kept in %s: %s", folder, error)
            return _written(models, names, Path(elsewhere))
        try:
            _write(models, names, Path(beside))
            os.rename(beside, folder)
        except (OSError, RuntimeError) as error:
            if not folder.is_dir():  # else another process was faster
                _log.warning("the converted model cannot be kept in %s: %s", folder, error)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return _read(folder, names) or _written(models, names, Path(elsewhere))


def _written(models: Models, names: Sequence[str], folder: Path) -> Models:
    _write(models, names, folder)
    # The weights are mapped, not read: the file must not be in use when its folder is removed.
    return tuple(
        openvino.Core().read_model((folder / name).read_bytes(), (folder / name).with_suffix(".bin").read_bytes())
        for name in names
    )


def _write(models: Models, names: Sequence[str], folder: Path) -> None:
    for model, name in zip(models, names, strict=True):
        # Weights in fp16 would change the map, for no speed on a CPU.
        openvino.save_model(model, folder / name, compress_to_fp16=False)
