"""Stains of one slide after Macenko: what haematoxylin and eosin look like there, and how much of each a pixel holds.

The stains are estimated once per slide, on pixels of its tissue at low resolution, and handed to every window: the
map does not depend on how the slide is cut.

M. Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError

Floats = NDArray[np.float32]
Vector = tuple[float, float, float]

CHANNELS: Final = ("haematoxylin", "eosin", "density")
"""What a model can be given: the two stains, and the mean optical density of the colours."""

DIGITS: Final = 6
"""Decimals that are kept, so that a store, a job and run.json hold the same stains."""
_LEAST_DENSITY: Final = 0.15
"""Optical density (base e) of the faintest pixel that counts, as in the paper."""
_ANGLE: Final = 1.0
"""Percentile of angles at which the stains are taken, as in the paper."""
_LEAST_PIXELS: Final = 64
_LEAST_ANGLE: Final = 0.02
"""Radians between the stains; below it there is one stain only."""


@dataclass(frozen=True, slots=True)
class Stains:
    """The stains of one slide, in optical density (base e) of R, G and B.

    Attributes
    ----------
    glass
        Light of the empty slide, 0..255, per colour.
    haematoxylin, eosin
        Unit vectors.
    low, high
        What becomes 0 and 1, for each of `CHANNELS`.
    """

    glass: Vector
    haematoxylin: Vector
    eosin: Vector
    low: Vector
    high: Vector

    def to_json(self) -> dict[str, list[float]]:
        """JSON values; `from_json` reads them."""
        return {key: [float(v) for v in value] for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Stains:
        """Inverse of `to_json`; KeyError, TypeError or ValueError where `raw` is something else."""
        return cls(**{name: _vector(raw[name]) for name in cls.__slots__})


def _vector(values: Any) -> Vector:
    first, second, third = (round(float(value), DIGITS) for value in values)
    return first, second, third


REFERENCE: Final = Stains(
    glass=(240.0, 240.0, 240.0),
    haematoxylin=(0.65, 0.704, 0.286),
    eosin=(0.268, 0.57, 0.776),
    low=(0.0, 0.0, 0.0),
    high=(1.9705, 1.0308, 1.5),
)
"""The reference of the paper's authors: for measuring a model where there is no slide."""


def estimate_stains(pixels: NDArray[np.uint8], glass: Vector = (255.0, 255.0, 255.0)) -> Stains:
    """The stains of a slide.

    Parameters
    ----------
    pixels
        uint8 (n, 3), RGB of its tissue.
    glass
        Light of the empty slide, 0..255.

    Returns
    -------
    The plane of the two largest singular values of the densities, in it the outermost directions (1st and 99th
    percentile of the angle); haematoxylin is the one that takes more red light. The scale runs from the 1st to the
    99th percentile. With too little stained tissue, the vectors of `REFERENCE`.
    """
    light = np.asarray(glass, np.float64)
    density = _density(pixels.reshape(-1, 3), light)
    stained = density[(density > _LEAST_DENSITY).all(axis=1)]
    haematoxylin, eosin = _outermost(stained) or (REFERENCE.haematoxylin, REFERENCE.eosin)
    if not len(density):
        return Stains(_vector(glass), haematoxylin, eosin, REFERENCE.low, REFERENCE.high)
    amounts = density @ _unmixing(haematoxylin, eosin)
    low, high = np.percentile(amounts, 1, axis=0), np.percentile(amounts, 99, axis=0)
    high = np.maximum(high, low + 1e-3)
    return Stains(_vector(glass), haematoxylin, eosin, _vector(low), _vector(high))


def _outermost(density: NDArray[np.float64]) -> tuple[Vector, Vector] | None:
    if len(density) < _LEAST_PIXELS:
        return None
    # The right singular vectors of the densities are the eigenvectors of this 3 x 3 matrix.
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, [2, 1]]
    # Signs of eigenvectors are arbitrary: densities lie on the positive side.
    plane *= np.where(density.mean(axis=0) @ plane < 0, -1, 1)
    on_plane = density @ plane
    angle = np.arctan2(on_plane[:, 1], on_plane[:, 0])
    first, last = np.percentile(angle, [_ANGLE, 100 - _ANGLE])
    if last - first < _LEAST_ANGLE:
        return None
    found = [plane @ np.array([np.cos(a), np.sin(a)]) for a in (first, last)]
    if min(vector.min() for vector in found) < -0.3:
        return None  # a colour that gives light is no stain: ink, or no H&E at all
    one, other = (np.maximum(vector, 0) / np.linalg.norm(np.maximum(vector, 0)) for vector in found)
    haematoxylin, eosin = (one, other) if one[0] > other[0] else (other, one)
    return _vector(haematoxylin), _vector(eosin)


def _density(pixels: NDArray[np.uint8], glass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Optical density, base e; what is brighter than glass has none."""
    density: NDArray[np.float64] = np.maximum(np.log(glass / np.maximum(pixels, 1)), 0)
    return density


def _unmixing(haematoxylin: Vector, eosin: Vector) -> NDArray[np.float64]:
    """float64 (3, 3): density of R, G, B to the amounts of `CHANNELS`."""
    stains = np.linalg.pinv(np.array([haematoxylin, eosin]))
    return np.column_stack([stains, np.full(3, 1 / 3)])


class Unmixer:
    """Colours to the channels of a model, each 0..1, by three tables: density is additive.

    Parameters
    ----------
    channels
        Names of `CHANNELS`, in the model's order.
    inverted
        1 for glass and 0 for the darkest, as in a picture.

    Raises
    ------
    ModelError
        An unknown channel, or not three.
    """

    def __init__(self, stains: Stains, channels: tuple[str, ...] = CHANNELS, *, inverted: bool = False) -> None:
        check_channels(channels)
        order = [CHANNELS.index(name) for name in channels]
        low, high = np.array(stains.low)[order], np.array(stains.high)[order]
        scale = 1 / (high - low)
        levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
        density = _density(levels, np.asarray(stains.glass, np.float64))
        share = _unmixing(stains.haematoxylin, stains.eosin)[:, order] * scale
        # (colour, value, channel): what a value of a colour adds to a channel.
        tables = density.T[:, :, None] * share[:, None, :]
        tables[0] -= low * scale
        if inverted:
            tables = -tables
            tables[0] += 1
        self._tables = np.ascontiguousarray(tables.transpose(2, 0, 1), np.float32)

    def __call__(self, images: NDArray[np.uint8]) -> Floats:
        """float32 (N, 3, H, W) in 0..1 of uint8 (N, H, W, 3)."""
        out = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
        for channel, (red, green, blue) in enumerate(self._tables):
            plane = red[images[..., 0]]
            plane += green[images[..., 1]]
            plane += blue[images[..., 2]]
            np.clip(plane, 0, 1, out=out[:, channel])
        return out


def check_channels(channels: tuple[str, ...]) -> None:
    """Raise `ModelError` unless these are three of `CHANNELS`."""
    wrong = [name for name in channels if name not in CHANNELS]
    if wrong or len(channels) != 3:
        raise ModelError(
            f"macenko: channels must be three of {', '.join(CHANNELS)}, not {', '.join(map(str, channels))}"
        )
