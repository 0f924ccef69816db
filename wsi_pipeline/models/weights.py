"""Files of weights, looked at before anything loads them: that they are what the card says, and run nothing.

A pickle can run any code while it is read. Only formats that are read without one are let through: safetensors, a
TorchScript archive (its pickles are read by torch's own reader, which knows tensors and scripted classes only), an
exported program whose tensors are stored raw, and ONNX.
"""

from __future__ import annotations

import hashlib
import json
import pickletools
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Final

from safetensors import SafetensorError, safe_open

from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import sha256_file
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.onnx_files import external_files

PICKLED: Final = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}
_PLAIN_GLOBALS: Final = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"}
"""What the example inputs of an exported program may name, beside classes `torch FloatStorage` and the like."""
_MOST_JSON: Final = 64 * 2**20


def sha256_of(weights: Path, files: tuple[str, ...] = ()) -> str:
    """SHA-256 of the weights; of the lines that `sha256sum` prints for all of them where there are several files.

    Parameters
    ----------
    files
        Names beside `weights` that belong to it, as ONNX keeps large tensors.
    """
    if not files:
        return sha256_file(weights)
    lines = [f"{sha256_file(weights.with_name(name))}  {name}\n" for name in (weights.name, *sorted(files))]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_file(card: ModelCard, weights: Path) -> None:
    """Refuse a file of another format than the card's architecture has, and one that would run code when loaded.

    Raises
    ------
    ModelError
        Says what it is instead.
    """
    if card.architecture == "unet":
        refuse_pickle(weights)
        _check_head(card, weights)
    elif card.architecture in ("torchscript", "wsinfer"):
        _check_torchscript(weights)
    elif card.architecture == "exported":
        _check_exported(weights)
    elif card.architecture == "onnx" and weights.suffix != ".onnx":
        raise ModelError(f"{weights}: the card says `architecture: onnx`, and such a file ends in .onnx")


def files_beside(card: ModelCard, weights: Path) -> tuple[str, ...]:
    """Names of further files that the weights consist of.

    Raises
    ------
    ModelError
        An ONNX file is damaged, names a file elsewhere, or one that is not there.
    """
    return external_files(weights) if card.architecture == "onnx" else ()


def refuse_pickle(path: Path) -> None:
    """Raise `ModelError` for a file whose name says that it is a pickle."""
    if path.suffix in PICKLED:
        raise ModelError(
            f"{path}: pickled weights are not loaded, since reading them can run code; read them with "
            f"`wsi_pipeline.models.unet.read_unet` (tensors only) and write a folder with `save_model`"
        )


def _check_head(card: ModelCard, weights: Path) -> None:
    try:
        with safe_open(weights, framework="np") as file:
            shape = file.get_slice("head.weight").get_shape()
    except SafetensorError as error:
        raise ModelError(f"{weights}: these are not the weights of the bundled U-Net ({error})") from None
    if shape[0] != len(card.classes):
        names = ", ".join(spec.name for spec in card.classes)
        raise ModelError(
            f"{weights}: the network has {shape[0]} outputs, the card {len(card.classes)} classes ({names})"
        )
    channels = card.architecture_args.get("channels", shape[1])
    if channels != shape[1]:
        raise ModelError(f"{weights}: the network is {shape[1]} channels wide, the card says {channels}")


def _check_torchscript(weights: Path) -> None:
    names = [PurePosixPath(name) for name in _archive(weights, "TorchScript").namelist()]
    inner = {"/".join(name.parts[1:2]) for name in names}
    if not {"constants.pkl", "data.pkl", "code"} <= inner:
        raise ModelError(
            f"{weights}: this is a pickle, not a TorchScript archive; pickles are not loaded, since reading them can "
            "run code: write the model with `torch.jit.save(torch.jit.trace(model, example), path)`"
        )


def _check_exported(weights: Path) -> None:
    archive = _archive(weights, "torch.export")
    names = _records(archive)
    if "models/model.json" not in names or "archive_format" not in names:
        raise ModelError(
            f"{weights}: this is no program of `torch.export.save`, or one of before torch 2.8, which holds pickles "
            "that can run code; export it again"
        )
    for kind in ("weights", "constants"):
        _check_payload(weights, archive, names, kind)
    inputs = names.get("data/sample_inputs/model.pt")
    for name in _globals(archive.read(inputs)) if inputs else ():
        if name not in _PLAIN_GLOBALS and not _is_storage(name):
            raise ModelError(f"{weights}: its example inputs are a pickle that can run code ({name}); export it again")


def _check_payload(weights: Path, archive: zipfile.ZipFile, names: dict[str, str], kind: str) -> None:
    """Refuse weights or constants that `torch.export.load` would unpickle."""
    if f"data/{kind}/model.pt" in names:
        raise ModelError(f"{weights}: its {kind} are pickled, which can run code; export it again with a newer torch")
    config = names.get(f"data/{kind}/model_{kind}_config.json")
    if config is None:
        raise ModelError(f"{weights}: the exported program lists no {kind}; it is damaged: export it again")
    if archive.getinfo(config).file_size > _MOST_JSON:
        raise ModelError(f"{weights}: the list of its {kind} is too long to be true")
    try:
        entries = json.loads(archive.read(config))["config"]
        for key, entry in entries.items():
            raw = str(entry["path_name"]).startswith(("weight_", "tensor_"))
            if entry["use_pickle"] is not False or not raw:
                raise ModelError(f"{weights}: {key} is stored as a pickle, which can run code; export it without")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{weights}: the list of its {kind} is damaged ({error}); export it again") from None


def _archive(weights: Path, what: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(weights)
    except (zipfile.BadZipFile, OSError):
        raise ModelError(
            f"{weights}: this is no {what} archive (a pickle, or damaged); pickles are not loaded, since reading them "
            "can run code"
        ) from None


def _records(archive: zipfile.ZipFile) -> dict[str, str]:
    """Names without the folder that torch puts around everything, to the names in the archive."""
    found: dict[str, str] = {}
    for name in archive.namelist():
        inner = "/".join(PurePosixPath(name).parts[1:])
        if inner in found:
            raise ModelError(f"{archive.filename}: {inner} is in the archive twice; it was tampered with")
        found[inner] = name
    return found


def _globals(data: bytes) -> Iterator[str]:
    """`module name` of everything that the pickle of a `torch.save` file would look up; nothing is run."""
    try:
        archive = zipfile.ZipFile(BytesIO(data))
        pickles = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    except zipfile.BadZipFile:
        pickles = []
    if not pickles:
        yield "unknown format"
    for pickled in pickles:
        try:
            for opcode, argument, _ in pickletools.genops(pickled):
                if opcode.name in ("GLOBAL", "INST"):
                    yield str(argument)
                elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                    yield opcode.name
        except ValueError as error:
            yield f"damaged: {error}"


def _is_storage(name: str) -> bool:
    module, _, kind = name.partition(" ")
    return module in ("torch", "torch.storage") and kind.endswith("Storage") and kind.isidentifier()
