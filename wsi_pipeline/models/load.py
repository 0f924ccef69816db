"""From a path to a model that runs. Torch is loaded only by the models and the measurements that need it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from wsi_pipeline.errors import ModelError, StoreError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.models.card import CARD_NAME, ModelCard, read_card
from wsi_pipeline.models.entry_point import entry_card, is_entry_point, load_entry
from wsi_pipeline.models.halo import measure_halo
from wsi_pipeline.models.machine import available_cores, cache_dir
from wsi_pipeline.models.onnx_runtime import load_onnx, onnx_ways
from wsi_pipeline.models.runtime import RuntimeChoice, Way, choose, resolve_device, ways
from wsi_pipeline.models.segmenter import Segmenter
from wsi_pipeline.models.stain import StainDensity, parse_baseline
from wsi_pipeline.models.structure import read_structure
from wsi_pipeline.models.weights import PICKLED, check_file, files_beside, refuse_pickle, sha256_of
from wsi_pipeline.models.windows import check_windows, keep_difference, kept_difference, needs_trial
from wsi_pipeline.models.wsinfer import CONFIG_NAME, is_wsinfer, wsinfer_card

_log = logging.getLogger(__name__)

KNOWN = (
    f"a folder with {CARD_NAME} and the weights that it names (safetensors, TorchScript, torch.export, ONNX), "
    f"a model folder of WSInfer ({CONFIG_NAME}), a function `package.module:factory`, or `baseline:stain-density`"
)
_CONVERTED = {"torchscript", "exported"}
"""What OpenVINO can run, too."""
_WEIGHTS = {".safetensors", ".onnx", ".pt2", *PICKLED}


def is_named(path: str) -> bool:
    """Whether a model's path is a name (a baseline, a function), and so is the same from every folder."""
    return path.startswith("baseline:") or is_entry_point(path)


def load_card(path: str | Path) -> ModelCard:
    """The card of a model: of a folder, a `card.json`, weights beside one, a WSInfer folder, or a name (`is_named`).

    A halo that the card does not state is measured on the model, once: the result is kept per weights.

    Raises
    ------
    ModelError
        There is none, or it does not hold; one line for each problem.
    """
    if str(path).startswith("baseline:"):
        return parse_baseline(str(path))
    card = entry_card(str(path)) if is_entry_point(str(path)) else _card_at(Path(path))
    return card if card.blend is not None or card.stated_halo is not None else _with_measured_halo(card, str(path))


def _card_at(path: Path) -> ModelCard:
    folder = folder_of(path)
    if path.suffix in _WEIGHTS and not path.is_dir():
        return _card_beside(path)
    if path.suffix == ".json" and path.name != CONFIG_NAME:
        return read_card(path)
    if path.name != CONFIG_NAME and (folder / CARD_NAME).is_file():
        return read_card(folder)
    if is_wsinfer(folder):
        return wsinfer_card(folder)
    missing = "" if folder.is_dir() else ", nor such a folder"
    raise ModelError(f"model {path}: there is no {CARD_NAME}{missing}; a model is {KNOWN}")


def _card_beside(weights: Path) -> ModelCard:
    """The card of the weights that were named themselves."""
    if not weights.with_name(CARD_NAME).is_file():
        if weights.suffix in PICKLED and not is_wsinfer(weights.parent):
            refuse_pickle(weights)
        if is_wsinfer(weights.parent):
            return wsinfer_card(weights.parent)
        raise ModelError(f"{weights}: weights without a card; a model is {KNOWN}")
    card = read_card(weights.parent)
    if card.weights != weights.name:
        refuse_pickle(weights)
        raise ModelError(
            f"{weights}: the {CARD_NAME} beside it is of {card.weights or 'no file'}; give the right folder"
        )
    if card.architecture == "unet":
        refuse_pickle(weights)
    return card


def folder_of(path: Path) -> Path:
    """The folder of a model that is given as this, as a card in it, or as its weights."""
    is_file = path.suffix == ".json" or (path.suffix in _WEIGHTS and not path.is_dir())
    return path.parent if is_file else path


def _with_measured_halo(card: ModelCard, path: str) -> ModelCard:
    if card.architecture != "python":
        checked_weights(card, Path(path))
    kept = cache_dir() / "halo" / f"{card.sha256}.json"
    halo = _kept_halo(kept)
    if halo is None:
        halo = measure_halo(_open(card, path, _ways(card, "cpu")[0], available_cores()))
        _log.info("model %s: the card states no halo; measured %d px", card.name, halo)
        try:
            write_json(kept, {"halo": halo})
        except StoreError as error:
            _log.warning("the measured halo cannot be kept: %s", error)
    return ModelCard.model_validate({**card.dump(), "halo": halo})


def _try_windows(card: ModelCard, path: str) -> None:
    """Refuse a card whose halo or stride does not hold; tried once per model and machine."""
    if needs_trial(card) and kept_difference(card) is None:
        segmenter = _open(card, path, _ways(card, "cpu")[0], available_cores())  # as the others must agree with
        keep_difference(card, check_windows(segmenter))


def _kept_halo(path: Path) -> int | None:
    try:
        return int(read_json(path)["halo"]) if path.is_file() else None
    except (StoreError, KeyError, TypeError, ValueError):
        return None


def _ways(card: ModelCard, device: str, runtime: str = "auto", precision: str = "auto") -> Sequence[Way]:
    """What can be tried for a model on a resolved device; the first one is what the others must agree with."""
    if card.architecture == "unet":
        return ways(device, runtime, precision)
    if card.architecture == "onnx":
        return onnx_ways(device, runtime, precision)
    if card.architecture == "python":
        return (Way("python", device, "own"),)
    if card.architecture in _CONVERTED and card.preprocessing == "none" and runtime != "torch":
        if runtime not in ("auto", "openvino"):
            raise ModelError(f"model {card.name}: {card.architecture} runs with torch or openvino, not with {runtime}")
        return [way for way in ways(device, runtime, precision) if way.runtime != "torch.compile"]
    if runtime not in ("auto", "torch"):
        raise ModelError(f"model {card.name}: {card.architecture} runs with torch only, not with {runtime}")
    if card.preprocessing != "none":
        return (Way("torch", device, "fp32"),)
    return ways(device, "torch", precision)


def choose_runtime(
    path: str | Path,
    *,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    refresh: bool = False,
) -> RuntimeChoice:
    """How the model at `path` runs fastest here.

    Where there is more than one way, each is measured for about a second and must agree with torch in fp32
    within 0.02; the result is kept per processor, cores, threads, model and versions. Before, the halo and stride of
    the card are tried out, once; see `windows.check_windows`.

    Parameters
    ----------
    device
        "auto", "cpu", "cuda" or "cuda:N".
    runtime, precision
        "auto" or a wish; see `runtime.RUNTIMES` and `runtime.PRECISIONS`.
    threads
        None: all cores that the process may use.
    refresh
        Measure even if there is a kept result.

    Raises
    ------
    ModelError
        The model cannot be loaded, the wish cannot be met, or the map depends on where a window begins.
    """
    card = load_card(path)
    if card.architecture == "stain-density":
        return RuntimeChoice("numpy", "cpu", "integer", 1, f"{card.name}: computed by numpy")
    if card.architecture == "python":
        way = _ways(card, resolve_device(device))[0]
        _try_windows(card, str(path))
        cores = threads or available_cores()
        return RuntimeChoice(
            way.runtime, way.device, way.precision, cores, f"{card.name}: computed by its own function"
        )
    checked_weights(card, Path(path))
    _try_windows(card, str(path))

    def open_way(way: Way, threads: int) -> Segmenter:
        return _open(card, str(path), way, threads)

    return choose(
        card,
        open_way,
        device=device,
        runtime=runtime,
        precision=precision,
        threads=threads,
        refresh=refresh,
        find_ways=partial(_ways, card),
    )


def load_segmenter(
    path: str | Path,
    *,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Segmenter:
    """The model at `path`, checked (SHA-256, architecture, classes) and ready; parameters as `choose_runtime`.

    Give what `choose_runtime` has answered to have the same way in every worker.
    """
    card = load_card(path)
    if card.architecture == "stain-density":
        return StainDensity(card)
    choice = choose_runtime(path, device=device, runtime=runtime, precision=precision, threads=threads)
    way = Way(choice.runtime, choice.device, choice.precision)
    return _open(card, str(path), way, choice.threads)


def _open(card: ModelCard, path: str, way: Way, threads: int) -> Segmenter:
    cpu_threads = threads if way.device == "cpu" else None
    if card.architecture == "python":
        return load_entry(path, card, way.device, cpu_threads)
    weights = checked_weights(card, Path(path))
    if card.architecture == "onnx":
        return load_onnx(card, weights, way, threads)
    if way.runtime == "openvino" and card.architecture != "unet":
        from wsi_pipeline.models.openvino_nets import load_openvino_net

        return load_openvino_net(card, weights, precision=way.precision, threads=threads)
    if way.runtime == "openvino":
        from wsi_pipeline.models.openvino_runtime import load_openvino

        return load_openvino(card, weights, precision=way.precision, threads=threads)
    if card.architecture == "unet":
        from wsi_pipeline.models.torch_runtime import load_torch

        compile_net = way.runtime == "torch.compile"
        return load_torch(
            card, weights, device=way.device, precision=way.precision, threads=cpu_threads, compile_net=compile_net
        )
    from wsi_pipeline.models.torch_nets import open_net

    return open_net(card, weights, device=way.device, precision=way.precision, threads=cpu_threads)


def checked_weights(card: ModelCard, path: Path) -> Path:
    """The weights file that belongs to the card at `path`, after its hash and its format were checked.

    Raises
    ------
    ModelError
        No file, another SHA-256, another format or network, a pickle, or another number of classes; or the
        statistics of features beside it cannot be used.
    """
    if card.weights is None:
        raise ModelError(f"model {path}: the card names no `weights` with their `sha256`")
    weights = folder_of(path) / card.weights
    if card.architecture == "unet":
        refuse_pickle(weights)
    if not weights.is_file():
        raise ModelError(f"model {path}: there is no {weights.name} beside the card; copy the whole folder")
    found = sha256_of(weights, files_beside(card, weights))
    if card.sha256 is None:
        raise ModelError(
            f'model {path}: the card names no `weights` with their `sha256`; if you trust it, add "sha256": "{found}"'
        )
    if found != card.sha256:
        raise ModelError(
            f"model {path}: {weights.name} has the SHA-256 {found[:12]}…, the card says {card.sha256[:12]}…; "
            "the file is damaged or of another model: copy both anew"
        )
    check_file(card, weights)
    if card.structure is not None:
        read_structure(card.structure, weights.parent)
    return weights
