"""Temperature scaling: one number that makes stated probabilities fit what was found (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

RANGE: Final = (0.2, 10.0)
"""Temperatures outside of it would say that the model is broken, not that it is overconfident."""
BINS: Final = 15


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature, and what it changed on the very pixels that it was fitted on.

    Attributes
    ----------
    nll_before, nll_after
        Mean negative log-likelihood of the true class, in nats.
    ece_before, ece_after
        Expected calibration error, 0..1; after is optimistic, being measured where it was fitted.
    groups
        Patients or slides behind the pixels: neighbouring pixels say the same thing.
    """

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    pixels: int
    groups: int


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.uint8], *, groups: int) -> Calibration:
    """The temperature that minimises the negative log-likelihood.

    Parameters
    ----------
    logits
        float32 (pixels, K).
    labels
        uint8 (pixels,), all known.
    """
    values = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return nll(values / np.exp(log_temperature), labels)

    low, high = (float(np.log(edge)) for edge in RANGE)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-3})
    # Never leave the model worse than it came: on a flat loss the search may stop beside 1.
    temperature = float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0
    return Calibration(
        temperature=round(temperature, 4),
        nll_before=loss(0.0),
        nll_after=nll(values / temperature, labels),
        ece_before=expected_calibration_error(values, labels),
        ece_after=expected_calibration_error(values / temperature, labels),
        pixels=len(labels),
        groups=groups,
    )


def nll(logits: NDArray[np.float64], labels: NDArray[np.uint8]) -> float:
    """Mean negative log-likelihood in nats of (pixels, K) logits."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def expected_calibration_error(logits: NDArray[np.float64], labels: NDArray[np.uint8], bins: int = BINS) -> float:
    """Mean distance between stated confidence and found accuracy over equal-width bins (Naeini et al. 2015)."""
    p = np.exp(log_softmax(logits, axis=1))
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(np.intp), bins - 1)
    stated = np.bincount(which, weights=confidence, minlength=bins)
    found = np.bincount(which, weights=right.astype(np.float64), minlength=bins)
    return float(np.abs(stated - found).sum() / len(labels))


def gather(
    logits: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.uint8]], *, unknown: int, most: int = 200_000
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Known pixels of tiles, evenly thinned to about `most`: logits (pixels, K), labels (pixels,).

    Parameters
    ----------
    logits, labels
        For each tile (K, h, w) and (h, w).
    """
    flat_logits = np.concatenate([tile.reshape(tile.shape[0], -1).T for tile in logits])
    flat_labels = np.concatenate([tile.ravel() for tile in labels])
    known = np.flatnonzero(flat_labels != unknown)
    known = known[:: max(1, known.size // most)]
    return flat_logits[known], flat_labels[known]
