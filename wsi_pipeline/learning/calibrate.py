"""Temperature scaling: one number that makes stated probabilities fit what was found (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.learning.samples import Tile
from wsi_pipeline.measures.calibration import Reliability, class_reliability
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.states import Source

RANGE: Final = (0.2, 10.0)
"""Temperatures outside of it would say that the model is broken, not that it is overconfident."""
BINS: Final = 15
CALIBRATION_NAME: Final = "calibration.json"
SCHEMA_VERSION: Final = 1
# Each patient is left out once, together with others where there are more of them.
_MOST_FOLDS: Final = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature, and what it changed on held-out pixels.

    Attributes
    ----------
    nll_before, nll_after
        Mean negative log-likelihood of the true class, in nats.
    ece_before, ece_after
        Expected calibration error of the likeliest class, 0..1.
    groups
        Patients or slides behind the pixels: neighbouring pixels say the same thing.
    cross_fitted
        Whether `ece_after` and `reliability` were measured on patients that were left out of the fit in turn. With a
        single patient they cannot be, and are optimistic.
    reliability
        Of each class against the rest, with the temperature.
    """

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    pixels: int
    groups: int
    cross_fitted: bool = False
    reliability: tuple[Reliability, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values, for calibration.json."""
        return {
            "temperature": self.temperature,
            "nll_before": self.nll_before,
            "nll_after": self.nll_after,
            "ece_before": self.ece_before,
            "ece_after": self.ece_after,
            "pixels": self.pixels,
            "groups": self.groups,
            "cross_fitted": self.cross_fitted,
            "classes": [found.to_json() for found in self.reliability],
        }


class Pixels(NamedTuple):
    """Known pixels of held-out tiles: logits float32 (n, K), labels uint8 (n,), patient or slide of each (n,)."""

    logits: NDArray[np.float32]
    labels: NDArray[np.uint8]
    groups: NDArray[np.str_]


def calibrate(pixels: Pixels, names: Sequence[str]) -> Calibration:
    """The temperature of all pixels, and how well it does on patients that it was not fitted on.

    Parameters
    ----------
    names
        Of the classes, in the order of the channels.
    """
    logits, labels, groups = pixels
    members, index = np.unique(groups, return_inverse=True)
    found = fit_temperature(logits, labels, groups=len(members))
    scaled = logits.astype(np.float64) / found.temperature
    if len(members) > 1:
        folds = min(_MOST_FOLDS, len(members))
        for fold in range(folds):
            out = index % folds == fold
            rest = fit_temperature(logits[~out], labels[~out], groups=len(members) - 1)
            scaled[out] = logits[out].astype(np.float64) / rest.temperature
    return replace(
        found,
        ece_after=expected_calibration_error(scaled, labels),
        cross_fitted=len(members) > 1,
        reliability=class_reliability(names, softmax(scaled, axis=1), labels, groups),
    )


def write_calibration(
    folder: Path, card: ModelCard, calibration: Calibration | None, held_out: Sequence[Tile] = ()
) -> None:
    """Keep the figures and diagrams beside the model's card; without any, those of an earlier model go.

    Parameters
    ----------
    held_out
        What they were measured on: figures over simulated annotations are simulated.
    """
    path = folder / CALIBRATION_NAME
    if calibration is None:
        path.unlink(missing_ok=True)
        return
    simulated = any(tile.source is Source.SIMULATED for tile in held_out)
    head = {
        "schema": SCHEMA_VERSION,
        "model": card.model_id,
        "source": str(Source.SIMULATED) if simulated else card.trained_on.source,
        "slides": len({tile.slide_id for tile in held_out}),
    }
    write_json(path, {**head, **calibration.to_json()})


def read_calibration(folder: Path, card: ModelCard) -> dict[str, Any] | None:
    """What `write_calibration` kept of this very model; None when there is nothing, or of other weights."""
    try:
        value = read_json(folder / CALIBRATION_NAME)
    except StoreError:
        return None
    if not isinstance(value, dict) or value.get("model") != card.model_id or value.get("schema") != SCHEMA_VERSION:
        return None
    return value


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
    logits: Sequence[NDArray[np.float32]],
    labels: Sequence[NDArray[np.uint8]],
    groups: Sequence[str],
    *,
    unknown: int,
    most: int = 200_000,
) -> Pixels:
    """Known pixels of tiles, evenly thinned to about `most`.

    Parameters
    ----------
    logits, labels, groups
        For each tile (K, h, w), (h, w), and its patient or slide.
    """
    flat_logits = np.concatenate([tile.reshape(tile.shape[0], -1).T for tile in logits])
    flat_labels = np.concatenate([tile.ravel() for tile in labels])
    known = np.flatnonzero(flat_labels != unknown)
    known = known[:: max(1, known.size // most)]
    flat_groups = np.repeat(np.array(groups), [tile.size for tile in labels])
    return Pixels(flat_logits[known], flat_labels[known], flat_groups[known])
