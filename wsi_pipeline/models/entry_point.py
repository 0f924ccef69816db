"""A model made by a function of the user's: `package.module:factory?key=value`. It is trusted by being named."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.segmenter import Maps, check_images

_ENTRY: Final = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<factory>[A-Za-z_]\w*)(\?(?P<query>.*))?")


def is_entry_point(path: str) -> bool:
    """Whether this names a function, not a file."""
    return _ENTRY.fullmatch(path) is not None


class EntryPointSegmenter:
    """What a factory made, its maps checked: uint8, one for each class, of the size that the card says."""

    runtime = "python"
    precision = "own"

    def __init__(self, card: ModelCard, made: Any, device: str) -> None:
        self.card = card
        self.device = str(getattr(made, "device", device))
        self._predict: Callable[[NDArray[np.uint8]], Any] = made.predict

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        """See `Segmenter.predict`."""
        check_images(images, self.card)
        try:
            # A copy: what it changes must not change what others see.
            probability, uncertainty = self._predict(images.copy())
        except (Exception, SystemExit) as error:  # it may raise anything; one block fails, and says why
            height, width = images.shape[1:3]
            raise ModelError(
                f"model {self.card.name}: its `predict` fails, or gives no pair of maps, for {len(images)} images of "
                f"{width} x {height} px ({_line(error)})"
            ) from error
        maps = Maps(probability, uncertainty)
        count, height, width = images.shape[:3]
        side = self.card.output_downsample
        size = (count, height // side, width // side)
        self._check("probability", maps.probability, (size[0], len(self.card.foreground), *size[1:]))
        self._check("uncertainty", maps.uncertainty, size)
        return maps

    def _check(self, what: str, found: Any, wanted: tuple[int, ...]) -> None:
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != wanted:
            is_array = isinstance(found, np.ndarray)
            given = f"{found.dtype} {found.shape}" if is_array else type(found).__name__
            raise ModelError(f"model {self.card.name}: its {what} must be uint8 {wanted}, not {given}")


def entry_card(path: str) -> ModelCard:
    """The card of what the factory makes; made once per process, and asked with `device="cpu"` if it takes a device.

    Raises
    ------
    ModelError
        The module cannot be imported, the factory fails, or what it makes has no card with a version.
    """
    return _card_of(path)


@cache
def _card_of(path: str) -> ModelCard:
    return _card(path, _make(path, "cpu", None))


def load_entry(path: str, card: ModelCard, device: str = "cpu", threads: int | None = None) -> EntryPointSegmenter:
    """What the factory makes, as a `Segmenter` with the card that `entry_card` gave; raises as that."""
    made = _make(path, device, threads)
    if _card(path, made).sha256 != card.sha256:
        raise ModelError(
            f"model {path}: the factory gave another card than before; it must give the same one each time"
        )
    return EntryPointSegmenter(card, made, device)


def _make(path: str, device: str, threads: int | None) -> Any:
    match = _ENTRY.fullmatch(path)
    if match is None:
        raise ModelError(f"model {path}: this is no `package.module:factory`")
    module, name = match["module"], match["factory"]
    try:
        factory = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ModelError(
            f"model {path}: {module} cannot be imported ({error}); install it where every worker runs, or put it on "
            "PYTHONPATH"
        ) from error
    except AttributeError:
        raise ModelError(f"model {path}: there is no {name} in {module}") from None
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise ModelError(f"model {path}: {module} fails on import ({_line(error)})") from error
    args: dict[str, Any] = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    try:
        taken = inspect.signature(factory).parameters
        args |= {k: v for k, v in {"device": device, "threads": threads}.items() if k in taken and k not in args}
        return factory(**args)
    except (Exception, SystemExit) as error:  # nor is there a limit to what a factory may raise
        raise ModelError(f"model {path}: {name} fails ({_line(error)})") from error


def _card(path: str, made: Any) -> ModelCard:
    try:
        card, predict = getattr(made, "card", None), getattr(made, "predict", None)
    except Exception as error:  # they may be computed
        raise ModelError(f"model {path}: its `card` or `predict` cannot be had ({_line(error)})") from error
    if isinstance(made, type) or not isinstance(card, ModelCard) or not callable(predict):
        what = f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__
        raise ModelError(
            f"model {path}: the factory gave {what}; it must give an object with a `card` (a ModelCard) and `predict`"
        )
    version = card.architecture_args.get("version")
    if card.architecture != "python" or not version:
        raise ModelError(
            f"model {path}: its card must say `architecture: python`, and name a `version` in `architecture_args`: "
            "what is computed must change with it, and with nothing else"
        )
    key = json.dumps([path, card.dump() | {"sha256": None}], sort_keys=True)
    # The version stands for weights that nobody can see from here.
    return card.model_copy(update={"sha256": card.sha256 or hashlib.sha256(key.encode()).hexdigest()})


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
