"""The stain-density baseline: smoothed density of haematoxylin, by colour deconvolution. It has no weights.

It marks places with many dark nuclei. That is no tumour model: lymphoid follicles and inflammation are as
dense as carcinoma. It is there so that a pipeline can be tried before a model exists, and is called by its
name everywhere.

Everything is computed in integers, so that the map is the same, bit for bit, however the slide is cut.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ClassSpec, ModelCard
from wsi_pipeline.models.segmenter import Maps, binary_uncertainty, check_images
from wsi_pipeline.objects import RGB

BASELINE: Final = "baseline:stain-density"
NAME: Final = "stain-density baseline"
CLASS: Final = "Haematoxylin-dense"
COLOR: Final[RGB] = (120, 60, 160)

# Ruifrok and Johnston 2001, optical densities of haematoxylin, eosin and what is left, in R, G and B.
STAINS: Final = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])

_UNIT: Final = 1000
"""Integer steps to a density of 1."""
_HIGHEST: Final = 4 * _UNIT
_LONGEST: Final = 200
"""Pixels of radius: sums over its squares stay below 2^31."""
_VERSION: Final = 1


def stain_density_card(
    *,
    class_name: str = CLASS,
    color: RGB = COLOR,
    mpp: float = 1.0,
    threshold: float = 0.20,
    slope: float = 0.03,
    radius_um: float = 12.0,
) -> ModelCard:
    """The card of the baseline.

    Parameters
    ----------
    class_name, color
        What its regions are called in QuPath. The default says what is measured.
    threshold
        Density of haematoxylin at which p = 0.5.
    slope
        Density to go from there to p = 0.73.
    radius_um
        The density is averaged twice over a square of twice this side.
    """
    radius = max(1, round(radius_um / mpp))
    if not (slope > 0 and math.isfinite(threshold + slope) and radius <= _LONGEST):
        raise ValueError(f"slope must be above 0, all finite, and the radius {_LONGEST} px at most")
    args: dict[str, Any] = {"threshold": threshold, "slope": slope, "radius": radius}
    key = json.dumps([_VERSION, args, mpp], sort_keys=True)
    return ModelCard(
        name=NAME,
        architecture="stain-density",
        architecture_args=args,
        mpp=mpp,
        window=1024,
        halo=2 * radius,
        activation="sigmoid",
        classes=(ClassSpec(name=class_name, color=color),),
        sha256=hashlib.sha256(key.encode()).hexdigest(),
        notes="Smoothed density of haematoxylin (Ruifrok and Johnston 2001). Not a tumour model.",
    )


def parse_baseline(path: str) -> ModelCard:
    """The card that `baseline:stain-density?class=Tumor&mpp=1&threshold=0.3` asks for; all keys may be left out.

    Raises
    ------
    ModelError
        Another baseline, an unknown key, or a value that is no number.
    """
    name, _, query = path.partition("?")
    if name != BASELINE:
        raise ModelError(f"there is no model {name!r}; the only baseline is `{BASELINE}`")
    known = {"class": "class_name", "mpp": "mpp", "threshold": "threshold", "slope": "slope", "radius_um": "radius_um"}
    settings: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            raise ModelError(f"{path}: unknown key `{key}`; known here: {', '.join(known)}")
        try:
            settings[known[key]] = value if key == "class" else float(value)
        except ValueError:
            raise ModelError(f"{path}: {key} must be a number, not {value!r}") from None
    try:
        return stain_density_card(**settings)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ModelError(f"{path}: a value is out of range ({str(error).splitlines()[-1].strip()})") from None


class StainDensity:
    """The baseline as a `Segmenter`. Stateless, so that any number of threads may call it."""

    runtime = "numpy"
    device = "cpu"
    precision = "integer"

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self._radius = int(card.architecture_args["radius"])

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        """See `Segmenter.predict`. Beyond the image there is glass, as there is beyond a slide."""
        check_images(images, self.card)
        halo = 2 * self._radius
        density = np.pad(haematoxylin(images), ((0, 0), (halo, halo), (halo, halo)))
        density = _box_mean(_box_mean(density, self._radius), self._radius)
        probability = self._table[density][:, None]
        return Maps(probability, binary_uncertainty(probability))

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        """uint8 (levels,): round(255 p) for each density."""
        args = self.card.architecture_args
        ahead = (np.arange(_HIGHEST + 1) / _UNIT - args["threshold"]) / args["slope"]
        table: NDArray[np.uint8] = np.rint(255 / (1 + np.exp(-np.clip(ahead, -30, 30)))).astype(np.uint8)
        return table


def _density_tables() -> NDArray[np.int32]:
    """int32 (3, 256): what a value of R, G and B adds to the density of haematoxylin, in `_UNIT`s."""
    stains = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    share = np.linalg.inv(stains)[:, 0]
    optical = -np.log10((np.arange(256) + 1) / 256)
    tables: NDArray[np.int32] = np.rint(_UNIT * share[:, None] * optical[None]).astype(np.int32)
    return tables


_TABLES: Final = _density_tables()


def haematoxylin(images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Density of haematoxylin, int32 (N, H, W) in thousandths, of uint8 (N, H, W, 3); white has none."""
    density: NDArray[np.int32] = _TABLES[0][images[..., 0]]
    density += _TABLES[1][images[..., 1]]
    density += _TABLES[2][images[..., 2]]
    np.clip(density, 0, _HIGHEST, out=density)
    return density


def _box_mean(values: NDArray[np.int32], radius: int) -> NDArray[np.int32]:
    """Mean over the squares of side 2 radius + 1 that lie in (N, H, W), rounded down: H and W less 2 radius."""
    side = 2 * radius + 1
    for axis in (1, 2):
        values = _running_sum(values, side, axis)
    return values // side**2


def _running_sum(values: NDArray[np.int32], side: int, axis: int) -> NDArray[np.int32]:
    padding = [(0, 0)] * values.ndim
    padding[axis] = (1, 0)
    # int32 may wrap around on the way: the differences are right all the same, being below 2^31 themselves.
    summed = np.cumsum(np.pad(values, padding), axis=axis, dtype=np.int32)
    ends, starts = [slice(None)] * values.ndim, [slice(None)] * values.ndim
    ends[axis], starts[axis] = slice(side, None), slice(None, -side)
    total: NDArray[np.int32] = summed[tuple(ends)] - summed[tuple(starts)]
    return total
