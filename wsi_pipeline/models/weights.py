"""Files of weights, looked at before anything loads them: that they are what the card says, and run nothing.

A pickle can run any code while it is read. Only formats that are read without one are let through: safetensors, a
TorchScript archive (its pickles are read by torch's own reader, which knows tensors and scripted classes only), an
exported program whose tensors are stored raw, and ONNX.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Final

from safetensors import SafetensorError, safe_open

from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import sha256_file
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.exported_files import check_exported
from wsi_pipeline.models.onnx_files import external_files

PICKLED: Final = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}
_TAIL: Final = 98
"""Bytes at the end of a zip that say where its directory is, those for large files included."""
_SCRIPTED: Final = re.compile(rb"\b(save|from_file|rpc_\w+)\s*\(")
"""Calls of TorchScript by which a network writes or maps files, or talks to other machines."""
_BETWEEN: Final = re.compile(rb"#[^\n]*|\\\r?\n")
_NAMESPACES: Final = re.compile(
    rb"\bops\.(?!(?:aten|prim|torchvision|quantized|mkldnn|mkldnn_prepacked)\b)\w+\.\w+\s*\("
)


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
        check_exported(weights, _archive(weights, "torch.export"))
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
    archive = _archive(weights, "TorchScript")
    names = {name: PurePosixPath(name).parts[1:] for name in archive.namelist()}
    if not {"constants.pkl", "data.pkl", "code"} <= {"/".join(parts[:1]) for parts in names.values()}:
        raise ModelError(
            f"{weights}: this is a pickle, not a TorchScript archive; pickles are not loaded, since reading them can "
            "run code: write the model with `torch.jit.save(torch.jit.trace(model, example), path)`"
        )
    for name in (name for name, parts in names.items() if parts[:1] == ("code",) and name.endswith(".py")):
        source = archive.read(name)
        # As it is, and without what may stand between a name and its parenthesis.
        bare = _BETWEEN.sub(b" ", source)
        found = next(
            (hit for rule in (_SCRIPTED, _NAMESPACES) for text in (source, bare) if (hit := rule.search(text))), None
        )
        if found is not None:
            what = found[0].decode(errors="replace").rstrip("( \n")
            raise ModelError(
                f"{weights}: its code calls {what}, which may write files or do what nobody knows here; trace the "
                "network without it"
            )


def _archive(weights: Path, what: str) -> zipfile.ZipFile:
    """The archive, if torch's reader is sure to find in it what Python's does."""
    try:
        archive = zipfile.ZipFile(weights)
        plain = _one_directory(weights)
    except (zipfile.BadZipFile, OSError, struct.error):
        raise ModelError(
            f"{weights}: this is no {what} archive (a pickle, or damaged); pickles are not loaded, since reading them "
            "can run code"
        ) from None
    if not plain:
        raise ModelError(f"{weights}: there is something before or behind the archive; it was tampered with")
    # torch looks records up without regard to case.
    counts = Counter(name.lower() for name in archive.namelist())
    for name, count in counts.items():
        if count > 1:
            raise ModelError(f"{weights}: {name} is in the archive twice; it was tampered with")
    return archive


def _one_directory(weights: Path) -> bool:
    """Whether the zip's directory is where it says, right before its end: else readers may take different ones.

    BadZipFile where the file does not end as a zip does.
    """
    size = weights.stat().st_size
    with weights.open("rb") as file:
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    mark, *_, length, offset, _ = struct.unpack("<4s4H2LH", tail[-22:])
    if mark != b"PK\5\6":
        raise zipfile.BadZipFile
    end = size - 22
    if tail[-42:-38] == b"PK\6\7":
        end = size - _TAIL
        length, offset = struct.unpack("<2Q", tail[-58:-42])
        if tail[:4] != b"PK\6\6" or tail[-34:-26] != struct.pack("<Q", end):
            return False
    return bool(offset + length == end)
