"""From a path to a model that runs. Torch is loaded only by the models and the measurements that need it."""

from __future__ import annotations

import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open

from wsi_pipeline.errors import ModelError, StoreError
from wsi_pipeline.files import read_json, sha256_file, write_json
from wsi_pipeline.models.card import WEIGHTS_NAME, ModelCard, card_path, read_card
from wsi_pipeline.models.halo import measure_halo
from wsi_pipeline.models.machine import available_cores, cache_dir
from wsi_pipeline.models.runtime import RuntimeChoice, Way, choose
from wsi_pipeline.models.segmenter import Segmenter
from wsi_pipeline.models.stain import StainDensity, parse_baseline

_log = logging.getLogger(__name__)


def load_card(path: str | Path) -> ModelCard:
    """The card of a model folder, of a `card.json`, or of `baseline:stain-density`.

    A halo that the card does not state is measured on the model, once: the result is kept per weights.

    Raises
    ------
    ModelError
        There is none, or it does not hold; one line for each problem.
    """
    if str(path).startswith("baseline:"):
        return parse_baseline(str(path))
    file = Path(path)
    _refuse_bare_weights(file)
    card = read_card(file)
    return card if card.blend is not None or card.stated_halo is not None else _with_measured_halo(card, file)


def _with_measured_halo(card: ModelCard, path: Path) -> ModelCard:
    weights = checked_weights(card, path)
    kept = cache_dir() / "halo" / f"{card.sha256}.json"
    halo = _kept_halo(kept)
    if halo is None:
        halo = measure_halo(_open(card, weights, Way("torch", "cpu", "fp32"), available_cores()))
        _log.info("model %s: the card states no halo; measured %d px", card.name, halo)
        try:
            write_json(kept, {"halo": halo})
        except StoreError as error:
            _log.warning("the measured halo cannot be kept: %s", error)
    return ModelCard.model_validate({**card.dump(), "halo": halo})


def _kept_halo(path: Path) -> int | None:
    try:
        return int(read_json(path)["halo"]) if path.is_file() else None
    except (StoreError, KeyError, TypeError, ValueError):
        return None


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
    within 0.02; the result is kept per processor, cores, threads, model and versions.

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
        The model cannot be loaded, or the wish cannot be met.
    """
    card = load_card(path)
    if card.architecture == "stain-density":
        return RuntimeChoice("numpy", "cpu", "integer", 1, f"{card.name}: computed by numpy")
    weights = checked_weights(card, Path(path))

    def open_way(way: Way, threads: int) -> Segmenter:
        return _open(card, weights, way, threads)

    return choose(card, open_way, device=device, runtime=runtime, precision=precision, threads=threads, refresh=refresh)


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
    weights = checked_weights(card, Path(path))
    way = Way(choice.runtime, choice.device, choice.precision)
    return _open(card, weights, way, choice.threads)


def _open(card: ModelCard, weights: Path, way: Way, threads: int) -> Segmenter:
    if way.runtime == "openvino":
        from wsi_pipeline.models.openvino_runtime import load_openvino

        return load_openvino(card, weights, precision=way.precision, threads=threads)
    from wsi_pipeline.models.torch_runtime import load_torch

    cpu_threads = threads if way.device == "cpu" else None
    return load_torch(card, weights, device=way.device, precision=way.precision, threads=cpu_threads)


def checked_weights(card: ModelCard, path: Path) -> Path:
    """The weights file that belongs to the card at `path`, after its hash and its shapes were checked.

    Raises
    ------
    ModelError
        No file, not safetensors, another SHA-256, another network, or another number of classes.
    """
    if card.weights is None or card.sha256 is None:
        raise ModelError(f"model {path}: the card names no `weights` with their `sha256`")
    weights = card_path(path).with_name(card.weights)
    _refuse_bare_weights(weights)
    if not weights.is_file():
        raise ModelError(f"model {path}: there is no {weights.name} beside the card; copy the whole folder")
    found = sha256_file(weights)
    if found != card.sha256:
        raise ModelError(
            f"model {path}: {weights.name} has the SHA-256 {found[:12]}…, the card says {card.sha256[:12]}…; "
            "the file is damaged or of another model: copy both anew"
        )
    _check_head(card, weights)
    return weights


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


def _refuse_bare_weights(path: Path) -> None:
    if path.suffix in {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}:
        raise ModelError(
            f"{path}: pickled weights are not loaded, since reading them can run code; read them with "
            f"`wsi_pipeline.models.unet.read_unet` (tensors only) and write a folder with `save_model`"
        )
    if path.suffix == ".safetensors" and path.name != WEIGHTS_NAME and not path.with_name("card.json").is_file():
        raise ModelError(f"{path}: weights without a card; give a folder with card.json and {WEIGHTS_NAME}")
