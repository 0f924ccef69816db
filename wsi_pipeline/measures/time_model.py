"""A guess at the time of images that left no log, from what was changed in them.

The logarithm of the seconds is linear in log(1 + edits) and log(1 + changed area in µm²), with an effect of each rater
and one of each arm but the first, fitted by least squares on measured images only. It fills gaps and nothing else: what
it says is `model`, never measured, and takes no part in savings. Source of the interval: the prediction interval of
ordinary least squares, Student's t with n - p degrees of freedom, on the scale of the logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from wsi_pipeline.errors import WsiError

VERSION = 1
# Fewer images, or fewer of them beyond the coefficients, give an interval that says nothing.
MIN_MEASURED = 20
MIN_FREE = 10

Floats = npt.NDArray[np.float64]


class TooFewMeasuredError(WsiError, ValueError):
    """Too few images have a measured time."""


@dataclass(frozen=True, slots=True)
class Work:
    """What was done in one image: objects added, changed or deleted, area changed (µm²), by whom, in which arm."""

    rater: str
    arm: str
    edits: int
    area_um2: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds by the model: the median, and the interval in which a single image lies."""

    seconds: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TimeModel:
    """A fitted model; `coefficients` by name, `sd` is the residual standard deviation of log seconds."""

    coefficients: dict[str, float]
    sd: float
    n: int
    free: int
    raters: tuple[str, ...]
    arms: tuple[str, ...]
    level: float
    _beta: Floats
    _inverse: Floats
    _space: Floats

    def __str__(self) -> str:
        return (
            f"model, version {VERSION}: log seconds by log(1 + edits), log(1 + changed area), arm and rater, fitted on "
            f"{self.n} measured images; median with {100 * self.level:g} % prediction interval"
        )

    def estimate(self, work: Work) -> Estimate | None:
        """The time of one image; None for a rater or an arm of whom nothing was measured."""
        if work.rater not in self.raters or work.arm not in self.arms:
            return None
        x = _row(work, self.raters, self.arms)
        # What the measured images cannot tell apart (an arm that one rater alone had) cannot be predicted elsewhere.
        if not np.allclose(self._space @ x, x, atol=1e-6 * max(1.0, float(np.abs(x).max()))):
            return None
        centre = float(x @ self._beta)
        error = self.sd * math.sqrt(1.0 + float(x @ self._inverse @ x))
        half = float(stats.t.ppf(0.5 + self.level / 2, self.free)) * error
        return Estimate(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


def fit_time_model(measured: Sequence[tuple[Work, float]], *, level: float = 0.95) -> TimeModel:
    """Fit the model.

    Parameters
    ----------
    measured
        Images with their measured seconds; a time of zero has no logarithm and is left out.

    Raises
    ------
    TooFewMeasuredError
        Fewer than `MIN_MEASURED` images with a time, or fewer than `MIN_FREE` beyond the coefficients.
    """
    used = [(work, seconds) for work, seconds in measured if seconds > 0]
    if len(used) < MIN_MEASURED:
        raise TooFewMeasuredError(f"{len(used)} images have a measured time; a model needs {MIN_MEASURED}")
    raters = tuple(sorted({work.rater for work, _ in used}))
    arms = tuple(sorted({work.arm for work, _ in used}))
    x = np.array([_row(work, raters, arms) for work, _ in used])
    y = np.log([seconds for _, seconds in used])
    # Scaled to columns of length 1, so that areas of 10^6 µm² and effects of raters weigh alike in the rank.
    scale = np.linalg.norm(x, axis=0)
    scale[scale == 0] = 1.0
    _, singular, rows = np.linalg.svd(x / scale, full_matrices=False)
    rank = int((singular > 1e-8 * singular[0]).sum())
    free = len(used) - rank
    if free < MIN_FREE:
        raise TooFewMeasuredError(
            f"{len(used)} measured images for {rank} coefficients; a model needs {rank + MIN_FREE}"
        )
    inverse = (rows[:rank].T / singular[:rank] ** 2) @ rows[:rank] / np.outer(scale, scale)
    beta = inverse @ (x.T @ y)
    residual = y - x @ beta
    names = [*raters, *arms[1:], "log_edits", "log_area"]
    # The row space: x of it are those that some mixture of measured images has.
    space = (rows[:rank].T @ rows[:rank]) * np.outer(scale, 1 / scale)
    return TimeModel(
        coefficients=dict(zip(names, beta.tolist(), strict=True)),
        sd=math.sqrt(float(residual @ residual) / free),
        n=len(used),
        free=free,
        raters=raters,
        arms=arms,
        level=level,
        _beta=beta,
        _inverse=inverse,
        _space=space,
    )


def _row(work: Work, raters: Sequence[str], arms: Sequence[str]) -> Floats:
    effects = [float(work.rater == rater) for rater in raters] + [float(work.arm == arm) for arm in arms[1:]]
    return np.array([*effects, math.log1p(work.edits), math.log1p(work.area_um2)])
