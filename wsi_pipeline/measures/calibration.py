"""Do stated probabilities come true? Reliability diagrams and expected calibration errors, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.measures.clusters import FEWEST, LEVEL, numbered, resampled

BINS: Final = 15
"""Bins of equal width over 0..1; a probability on an edge belongs to the bin above it, 1 to the last."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram: cases whose stated probability lies in low..high.

    `stated` is their mean probability, `found` the share of them that are of the class; None in an empty bin.
    """

    low: float
    high: float
    count: int
    stated: float | None
    found: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """How one class's probabilities, against the rest, compare with what was found.

    Attributes
    ----------
    ece
        Σ over bins of (cases in bin / cases) · \\|stated − found\\|, 0..1 (Naeini et al. 2015, here class by class:
        Kull et al. 2019).
    ece_debiased
        `ece` less what resampling slides adds to it (chance alone makes the plain one too large); not below 0.
        None with fewer than five groups.
    ece_interval
        95 %, from resampling whole groups, around the debiased value; None with fewer than five groups.
    groups
        Slides or patients behind the cases.
    """

    name: str
    cases: int
    groups: int
    ece: float
    ece_debiased: float | None
    ece_interval: tuple[float, float] | None
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values, for metrics.json and calibration.json."""
        return {
            "name": self.name,
            "cases": self.cases,
            "groups": self.groups,
            "ece": self.ece,
            "ece_debiased": self.ece_debiased,
            "ece_ci95": None if self.ece_interval is None else list(self.ece_interval),
            "bins": [
                {"low": b.low, "high": b.high, "count": b.count, "stated": b.stated, "found": b.found}
                for b in self.bins
            ],
        }


def reliability(
    name: str,
    stated: NDArray[np.floating[Any]],
    found: NDArray[np.bool_],
    groups: NDArray[Any],
    *,
    bins: int = BINS,
    seed: int = 0,
) -> Reliability:
    """Reliability of one class.

    Parameters
    ----------
    stated
        Probability of the class for each case (pixels, tiles or regions), (n,), 0..1.
    found
        Whether the case is of the class, (n,).
    groups
        Slide or patient of each case, (n,).

    Raises
    ------
    ValueError
        Lengths differ, there is no case, or a probability is none.
    """
    p = np.asarray(stated, np.float64)
    if not len(p) == len(found) == len(groups) or not len(p):
        raise ValueError(f"{name}: probabilities, classes and groups must be of one length, and not empty")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"{name}: a probability lies outside of 0..1")
    index, count = numbered(groups)
    sums = _sums(p, np.asarray(found, np.float64), index, count, bins)
    total = sums.sum(axis=0)
    ece = _ece(total)
    debiased, interval = _corrected(sums, ece, seed) if count >= FEWEST else (None, None)
    return Reliability(name, len(p), count, ece, debiased, interval, _bars(total))


def class_reliability(
    names: Sequence[str], stated: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], groups: NDArray[Any]
) -> tuple[Reliability, ...]:
    """`reliability` of every class of probabilities (n, K) with labels (n,), each against the rest."""
    return tuple(reliability(name, stated[:, k], labels == k, groups) for k, name in enumerate(names))


def _sums(p: Floats, y: Floats, index: NDArray[np.intp], groups: int, bins: int) -> Floats:
    """Cases, Σp and Σy of each group and bin, (groups, bins, 3)."""
    flat = index * bins + np.minimum((p * bins).astype(np.intp), bins - 1)
    size = groups * bins
    parts = [np.bincount(flat, weights=w, minlength=size) for w in (np.ones_like(p), p, y)]
    return np.stack(parts, axis=1).astype(np.float64).reshape(groups, bins, 3)


def _ece(total: Floats) -> float:
    cases = total[:, 0].sum()
    return float(np.abs(total[:, 1] - total[:, 2]).sum() / cases) if cases else 0.0


def _corrected(sums: Floats, ece: float, seed: int) -> tuple[float, tuple[float, float]]:
    """Resampling groups adds to the error about what sampling them once has added: so it is taken off again."""
    groups, bins, _ = sums.shape
    flat = sums.reshape(groups, -1)
    again = np.array([_ece((taken @ flat).reshape(bins, 3)) for taken in resampled(groups, seed=seed)])
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    bias = float(again.mean()) - ece
    return max(0.0, ece - bias), (max(0.0, 2 * ece - float(high)), min(1.0, max(0.0, 2 * ece - float(low))))


def _bars(total: Floats) -> tuple[Bin, ...]:
    bins = len(total)
    bars = []
    for b, (count, stated, found) in enumerate(total.tolist()):
        shares = (stated / count, found / count) if count else (None, None)
        bars.append(Bin(b / bins, (b + 1) / bins, int(count), *shares))
    return tuple(bars)
