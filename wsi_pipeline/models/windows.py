"""Whether a model's map is the same however a slide is cut into windows: the halo and stride of its card, tried out.

What a card says wrongly here shows nowhere else: the map only looks a little worse, at seams that nobody knows of.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError, StoreError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.halo import measure_halo
from wsi_pipeline.models.machine import cache_dir
from wsi_pipeline.models.segmenter import Segmenter, inside
from wsi_pipeline.tiling import cell_side

_log = logging.getLogger(__name__)

VERSION: Final = 1
"""Counted up when the trial changes, so that no older result counts."""
ROUNDING: Final = 1
"""Steps of 1/255 by which a map may differ: sums in another order round in another way."""
TOLERABLE: Final = 5
"""Up to so many (0.02) the model runs, with a warning."""
FACTORS: Final = (2, 3, 4, 6, 8, 16, 32, 64)
"""Of the card's stride, which are tried when it is found to be wrong."""
LONGEST_STRIDE: Final = 64
WHOLE: Final = (
    'no `stride` nor `halo` that was tried makes it the same: it looks at the whole window. Write "blend": 0.5 instead '
    "of the halo into its card"
)
ONE_SIZE: Final = 'if it was saved for one size, write "window" with this size and "fixed_window": true into its card'
UNET: Final = (48, 8)
"""Halo and stride of the bundled U-Net, which need no trial: `unet.HALO` and `unet.STRIDE`, without loading torch."""


def needs_trial(card: ModelCard) -> bool:
    """Whether halo and stride of a card claim something that could be wrong."""
    if card.fixed_window or card.blend is not None or card.architecture in ("stain-density", "wsinfer"):
        return False
    halo, stride = UNET
    return card.architecture != "unet" or card.halo < halo or card.stride % stride != 0


def kept_difference(card: ModelCard) -> int | None:
    """What `keep_difference` kept of this model and card; None: nothing yet."""
    path = cache_dir() / "windows" / f"{_key(card)}.json"
    try:
        return int(read_json(path)["steps"]) if path.is_file() else None
    except (StoreError, KeyError, TypeError, ValueError):
        return None


def keep_difference(card: ModelCard, steps: int) -> None:
    """Keep the result of a trial on this machine, if its cache can be written."""
    try:
        write_json(cache_dir() / "windows" / f"{_key(card)}.json", {"steps": steps, "model": card.name})
    except StoreError as error:
        _log.warning("the trial of the windows cannot be kept: %s", error)


def _key(card: ModelCard) -> str:
    said = card.dump()
    for name in ("name", "notes", "licence", "trained_on", "appearance", "structure", "window", "mpp"):
        said.pop(name, None)
    return hashlib.sha256(json.dumps([VERSION, said], sort_keys=True).encode()).hexdigest()[:32]


def check_windows(segmenter: Segmenter) -> int:
    """Largest difference, in steps of 1/255, of maps of the same place in different windows.

    Raises
    ------
    ModelError
        It is above 0.02, or the model fails on windows that the card allows. Says what the card should say instead.
    """
    card = segmenter.card
    failure: ModelError | None = None
    steps = 0
    try:
        steps = difference(segmenter, card.stride, card.halo)
    except ModelError as error:
        failure = error
    if failure is None and steps <= TOLERABLE:
        if steps > ROUNDING:
            _log.warning(
                "model %s: the map of a place differs by up to %.3f with the window that it lies in; a larger `halo`, "
                "or none in the card, would make it the same",
                card.name,
                steps / 255,
            )
        return steps
    remedy = _remedy(segmenter, any_size=failure is None)
    if failure is None:
        told = f"model {card.name}: its map of a place differs by {steps / 255:.2f} from window to window"
        raise ModelError(f"{told}; {remedy or WHOLE}")
    if remedy is None and card.architecture == "python":
        raise failure
    raise ModelError(f"{failure}; {remedy or ONE_SIZE}") from failure


def difference(segmenter: Segmenter, stride: int, halo: int) -> int:
    """The largest difference for windows that begin at multiples of `stride` and lose `halo` px on each side."""
    factor = segmenter.card.output_downsample
    halo = -(-halo // stride) * stride
    core = cell_side(stride)
    # The windows reach beyond the glass that a part of the image is, so that a mean over all of it shows.
    side = 3 * core + 2 * halo + 6 * stride
    worst = 0
    for image in _images(side):
        whole = segmenter.predict(image[None]).probability[0].astype(np.int16)
        for y, x, height, width in _windows(stride, halo, core, side):
            maps = segmenter.predict(np.ascontiguousarray(image[None, y : y + height, x : x + width]))
            found = inside(maps, halo // factor).probability[0]
            top, left = (y + halo) // factor, (x + halo) // factor
            wanted = whole[:, top : top + found.shape[1], left : left + found.shape[2]]
            if wanted.shape != found.shape:
                raise ModelError(f"model {segmenter.card.name}: the map of {width} x {height} px has another size")
            worst = max(worst, int(np.abs(wanted - found).max()))
    return worst


def _windows(stride: int, halo: int, core: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    """Top, left, height, width; neither begins nor ends at multiples of anything but the stride."""
    small = core + 2 * halo
    yield stride, 3 * stride, small + stride, small
    yield side - small - 3 * stride, side - small - stride, small, small + 3 * stride
    yield 3 * stride, stride, small, side - 3 * stride


def _images(side: int) -> Iterator[NDArray[np.uint8]]:
    """Tissue beside glass, uint8 (side, side, 3): once in its colours, once in any."""
    rng = np.random.default_rng(0)
    for colours in (1, 3):
        amount = np.zeros((side, side, colours))
        for grain in (64, 16, 4, 1):
            cells = rng.random((-(-side // grain), -(-side // grain), colours))
            amount += cells.repeat(grain, 0).repeat(grain, 1)[:side, :side] / 4
        amount = np.clip((amount - 0.25) * 2, 0, 1)
        if colours == 1:
            amount = np.array([240.0, 215, 230]) * (1 - amount) + np.array([80.0, 40, 130]) * amount
        else:
            amount = amount * 255
        amount[: side // 3, :, :] = 245
        yield np.rint(amount).astype(np.uint8)


def _remedy(segmenter: Segmenter, *, any_size: bool) -> str | None:
    """What the card should say, as far as it can be found out; `any_size`: it took all windows."""
    card = segmenter.card
    strides = [card.stride * factor for factor in FACTORS if card.stride * factor <= LONGEST_STRIDE]
    try:
        halo = measure_halo(segmenter)
        if halo > card.halo and difference(segmenter, card.stride, halo) <= ROUNDING:
            return f'write "halo": {halo} into its card, or leave it out to have it measured'
    except ModelError:
        if any_size:
            strides = []  # it looks farther than any halo
    for stride in strides:
        try:
            if difference(segmenter, stride, card.halo) <= ROUNDING:
                halo = -(-card.halo // stride) * stride
                return f'write "stride": {stride} and "halo": {halo} into its card'
        except ModelError:
            continue
    return None
