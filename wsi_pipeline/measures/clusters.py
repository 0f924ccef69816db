"""Intervals for figures whose cases come in clusters: tiles and pixels of one slide say much the same thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FEWEST: Final = 5
"""Below so many slides resampling them says nothing about other slides: no interval is given."""
RESAMPLES: Final = 1000
LEVEL: Final = 0.95
# Of very many cases the resamples are fewer, as each of them costs a pass over all.
_MOST_WORK: Final = 200_000_000
_FEWEST_RESAMPLES: Final = 200

Floats = NDArray[np.float64]


def numbered(groups: NDArray[Any]) -> tuple[NDArray[np.intp], int]:
    """The index of each case's cluster, and how many clusters there are."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return index.reshape(-1).astype(np.intp), len(names)


def resampled(clusters: int, *, times: int = RESAMPLES, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """How often each cluster is taken when as many are drawn with replacement; seeded, so that figures stay."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        yield np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)


def percentile_interval(
    figure: Callable[[Floats], float | None], groups: NDArray[Any], *, seed: int = 0
) -> tuple[float, float] | None:
    """95 % interval of a figure from resampling whole clusters (Efron & Tibshirani 1993, percentiles).

    Parameters
    ----------
    figure
        Takes a weight for each case (how often its cluster was drawn); None where it is not defined.
    groups
        The cluster of each case.

    Returns
    -------
    Low and high; None with fewer than `FEWEST` clusters, or where the figure is seldom defined.
    """
    index, count = numbered(groups)
    if count < FEWEST:
        return None
    times = min(RESAMPLES, max(_FEWEST_RESAMPLES, _MOST_WORK // len(index)))
    found = [figure(taken[index].astype(np.float64)) for taken in resampled(count, times=times, seed=seed)]
    return _middle(np.array([value for value in found if value is not None and np.isfinite(value)]), times)


def ratio_interval(
    part: NDArray[Any], whole: NDArray[Any], groups: NDArray[Any], *, seed: int = 0
) -> tuple[float, float] | None:
    """`percentile_interval` of Σ part / Σ whole over all cases, from the sums of each cluster alone."""
    index, count = numbered(groups)
    if count < FEWEST:
        return None
    sums = np.stack([np.bincount(index, weights=np.asarray(v, np.float64), minlength=count) for v in (part, whole)])
    totals = np.array([sums @ taken for taken in resampled(count, seed=seed)])
    some = totals[:, 1] > 0
    return _middle(totals[some, 0] / totals[some, 1], RESAMPLES)


def _middle(values: Floats, times: int) -> tuple[float, float] | None:
    if len(values) < 0.9 * times:
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
