"""Does a place look like the slides that a model was trained on? Colour and sharpness, in one distance.

Seven features of a window at the model's resolution, over its tissue: mean and standard deviation of the optical
density of each colour, and the logarithm of the variance of the Laplacian, which falls with blur. Their Mahalanobis
distance to the training windows (Lee et al. 2018 do so with a network's features) is divided by the distance that
99 % of these have, so that above 1 is strange. It says nothing about shapes that the training slides did not hold;
`wsi_pipeline.models.structure` does.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

Floats = NDArray[np.float64]

WINDOW: Final = 128
"""Side of a window in pixels at the model's mpp."""
QUANTILE: Final = 0.99
# Fewer windows cannot give a covariance of seven features.
FEWEST_WINDOWS: Final = 30
# With so many slides each can be held against the others, which shows how much slides differ.
FEWEST_SLIDES: Final = 3
# Glass, and windows that are mostly glass, say nothing.
_TISSUE_DENSITY: Final = 0.06
_ENOUGH_TISSUE: Final = 0.25
# Share of the plain variances in the covariance: features that always went together may part a little.
_SHRINKAGE: Final = 0.1
_SMALLEST: Final = 1e-6

_DENSITY: Final[Floats] = -np.log10((np.arange(256, dtype=np.float64) + 1) / 256)
"""Optical density of a channel's value."""
_WORDS: Final = ("colour",) * 3 + ("contrast",) * 3 + ("sharpness",)


class Appearance(BaseModel):
    """What windows of the training slides look like; part of a model's card.

    Attributes
    ----------
    mean, covariance
        Of the seven features.
    threshold
        Mahalanobis distance that 99 % of the training windows have at most.
    left_out
        Whether for that each slide was held against the others; else the threshold is a little tight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    windows: int = Field(ge=1)
    slides: int = Field(ge=1)
    mean: tuple[float, ...] = Field(min_length=7, max_length=7)
    covariance: tuple[tuple[float, ...], ...] = Field(min_length=7, max_length=7)
    threshold: float = Field(gt=0)
    left_out: bool

    @field_validator("covariance")
    @classmethod
    def _is_a_covariance(cls, value: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        if any(len(row) != len(value) for row in value):
            raise ValueError("must be 7 rows of 7 numbers")
        matrix = np.array(value)
        if not np.allclose(matrix, matrix.T) or np.linalg.eigvalsh(matrix)[0] <= 0:
            raise ValueError("must be symmetric and positive definite, as every covariance is")
        return value

    def strangeness(self, features: Floats) -> Floats:
        """Distance of features (n, 7) over the threshold, (n,): above 1 is unlike the training slides."""
        result: Floats = _distance(features, np.array(self.mean), np.array(self.covariance)) / self.threshold
        return result

    def words(self, features: Floats) -> list[str]:
        """In what each of the features (n, 7) differs most: colour, contrast or sharpness."""
        z = np.abs(features - np.array(self.mean)) / np.sqrt(np.diag(np.array(self.covariance)))
        return [_WORDS[i] for i in z.argmax(axis=1)]

    def with_others(self, other: Appearance) -> Appearance:
        """Of the windows of both: moments pooled, the wider threshold; for a model that learned from both."""
        n, m = self.windows, other.windows
        a, b = np.array(self.mean), np.array(other.mean)
        share = m / (n + m)
        apart = np.outer(b - a, b - a)
        covariance = (1 - share) * np.array(self.covariance) + share * np.array(other.covariance)
        return Appearance(
            windows=n + m,
            slides=self.slides + other.slides,
            mean=_numbers(a + share * (b - a)),
            covariance=_rows(covariance + share * (1 - share) * apart),
            threshold=max(self.threshold, other.threshold),
            left_out=self.left_out and other.left_out,
        )


def tissue_of(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels of uint8 (..., 3) are no glass: mean optical density above 0.06."""
    result: NDArray[np.bool_] = _mean_of_colours(_DENSITY[images]) > _TISSUE_DENSITY
    return result


def _mean_of_colours(values: Floats) -> Floats:
    """As `mean(axis=-1)` of (..., 3), which takes four times as long over so short an axis."""
    result: Floats = (values[..., 0] + values[..., 1] + values[..., 2]) / 3
    return result


def features_of(image: NDArray[np.uint8]) -> Floats | None:
    """The seven features of uint8 (h, w, 3); None where less than a quarter is tissue."""
    density = _DENSITY[image]
    mean = _mean_of_colours(density)
    tissue = mean > _TISSUE_DENSITY
    if tissue.mean() < _ENOUGH_TISSUE:
        return None
    stained = density[tissue]
    edges = _laplacian(mean)[tissue]
    return np.array([*stained.mean(axis=0), *stained.std(axis=0), np.log10(edges.var() + 1e-8)])


def _laplacian(values: Floats) -> Floats:
    """Second differences down and across; at the edge the picture goes on as its mirror image.

    Written out: the card of every model needs this module, and to load scipy.ndimage takes half a second.
    """
    wide = np.pad(values, 1, mode="symmetric")
    result: Floats = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - 4 * values
    return result


def windows_of(image: NDArray[np.uint8]) -> list[tuple[NDArray[np.uint8], Floats]]:
    """The windows of a training tile that hold tissue, with their features; a smaller tile is one window."""
    height, width = image.shape[:2]
    side = min(WINDOW, height, width)
    corners = [(y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    windows = [image[y : y + side, x : x + side] for y, x in corners]
    found = [(window, features_of(window)) for window in windows]
    return [(window, features) for window, features in found if features is not None]


def fit_appearance(features: Floats, slides: NDArray[Any]) -> Appearance | None:
    """Statistics of windows (n, 7) with the slide of each (n,); None with fewer than 30."""
    if len(features) < FEWEST_WINDOWS:
        return None
    names = np.unique(slides)
    mean, covariance = _moments(features)
    left_out = len(names) >= FEWEST_SLIDES
    distances = _distance(features, mean, covariance)
    if left_out:
        for name in names:
            own = slides == name
            if (~own).sum() >= FEWEST_WINDOWS:
                distances[own] = _distance(features[own], *_moments(features[~own]))
    return Appearance(
        windows=len(features),
        slides=len(names),
        mean=_numbers(mean),
        covariance=_rows(covariance),
        threshold=float(np.quantile(distances, QUANTILE)),
        left_out=left_out,
    )


def _moments(features: Floats) -> tuple[Floats, Floats]:
    covariance = np.cov(features, rowvar=False)
    variances = np.diag(np.diag(covariance) + _SMALLEST)
    return features.mean(axis=0), (1 - _SHRINKAGE) * covariance + _SHRINKAGE * variances + _SMALLEST * np.eye(7)


def _distance(features: Floats, mean: Floats, covariance: Floats) -> Floats:
    away = features - mean
    result: Floats = np.sqrt(np.maximum(0.0, (away * np.linalg.solve(covariance, away.T).T).sum(axis=1)))
    return result


def _numbers(values: Floats) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _rows(values: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(_numbers(row) for row in values)
