"""The mean of values that share raters and slides, with an interval that knows it: crossed random effects.

Model: value = mean + rater + slide + rest, the three independent, with mean zero and variances of their own that are
estimated by REML (Patterson & Thompson 1971; for crossed effects e.g. Searle, Casella & McCulloch, Variance
Components, 1992, chapter 6). Cells may be missing, and a rater may have several values on a slide. With complete cells
and no negative estimate the variances are those of the analysis of variance.

The mean is the plain one, so that the interval has in its middle what is printed. Its variance is
(vr Σ nr² + vs Σ ns² + ve n) / n² with n values, nr of each rater and ns of each slide; the quantile is Student's t
with raters − 1 degrees of freedom, since there are hardly ever as many raters as slides.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.stats import t as student

MIN_RATERS = 5
# Where logarithms of variance ratios are looked for; what is below counts as nothing.
_LOG_RANGE = (-18.0, 18.0)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CrossedMean:
    """A mean with its interval, in the unit of the values.

    `low` and `high` bound the interval and are nan where it cannot be had (`note` says why); `se` is the standard
    error, `df` the degrees of freedom. The variances are those of raters, slides and the rest; `rater_variance` is
    nan where raters are fixed effects.
    """

    mean: float
    low: float
    high: float
    se: float
    df: int
    rater_variance: float
    slide_variance: float
    rest_variance: float
    values: int
    raters: int
    slides: int
    note: str


def crossed_mean(
    values: ArrayLike, raters: Sequence[Hashable], slides: Sequence[Hashable], level: float = 0.95
) -> CrossedMean:
    """Mean of `values` with an interval from crossed random effects of rater and slide.

    With fewer than five raters these are fixed effects: the interval is then for these raters only, has slides − 1
    degrees of freedom, and `note` says so.

    Parameters
    ----------
    values
        Finite numbers, shape (n,); for a ratio of times its logarithm.
    raters, slides
        Whose value it is and on what, n names each.
    level
        The interval's coverage.

    Raises
    ------
    ValueError
        If lengths differ, there is no value, or one is not finite.
    """
    y = np.asarray(values, dtype=float)
    if y.ndim != 1 or not len(y) == len(raters) == len(slides):
        raise ValueError(f"{y.shape} values, {len(raters)} raters and {len(slides)} slides: one of each is needed")
    if not len(y) or not np.isfinite(y).all():
        raise ValueError("there is no value, or one that is not finite: leave such pairs out and count them")
    cells = _Cells.of(y, _numbers(raters), _numbers(slides))
    fixed = cells.raters < MIN_RATERS
    df = (cells.slides if fixed else cells.raters) - 1
    # Without two slides nothing tells how slides differ, without a spare value nothing tells how values do.
    known = cells.slides > 1 and len(y) > (cells.raters if fixed else 1)
    rater, slide, rest = _reml(cells, fixed=fixed) if known else (np.nan, np.nan, np.nan)
    n = float(len(y))
    total = slide * np.sum(cells.per_slide**2) + rest * n + (0.0 if fixed else rater * np.sum(cells.per_rater**2))
    se = float(np.sqrt(total)) / n
    reach = float(student.ppf(0.5 + level / 2, df)) * se if known else np.nan
    mean = float(y.mean())
    note = f"raters and slides as crossed random effects, t with {df} degrees of freedom"
    if not known:
        note = "no interval: it needs at least two slides, and more values than raters"
    elif fixed:
        note = f"for these {cells.raters} raters only: fewer than five, so they are fixed effects; t with {df} degrees"
    return CrossedMean(
        mean, mean - reach, mean + reach, se, df, rater, slide, rest, len(y), cells.raters, cells.slides, note
    )


def _numbers(names: Sequence[Hashable]) -> NDArray[np.intp]:
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.intp)


@dataclass(frozen=True, slots=True)
class _Cells:
    """Values and the counts by which they hang together: per rater, per slide, and raters × slides."""

    y: Floats
    rater: NDArray[np.intp]
    slide: NDArray[np.intp]
    per_rater: Floats
    per_slide: Floats
    both: Floats

    @classmethod
    def of(cls, y: Floats, rater: NDArray[np.intp], slide: NDArray[np.intp]) -> _Cells:
        both = np.zeros((rater.max() + 1, slide.max() + 1))
        np.add.at(both, (rater, slide), 1.0)
        return cls(y, rater, slide, both.sum(axis=1), both.sum(axis=0), both)

    @property
    def raters(self) -> int:
        return len(self.per_rater)

    @property
    def slides(self) -> int:
        return len(self.per_slide)


class _Criterion:
    """-2 log REML of a crossed model, up to a constant, as a function of both variances over the rest's.

    V / ve = I + r Zr Zr' + s Zs Zs' is never formed: Zs'Zs is diagonal, so slides are taken out by Woodbury's identity,
    and what remains has the size of the raters.
    """

    def __init__(self, cells: _Cells, *, fixed: bool) -> None:
        n = len(cells.y)
        self.cells = cells
        design = np.eye(cells.raters)[cells.rater] if fixed else np.ones((n, 1))
        # The constant goes into the fixed effects anyway, and small numbers cancel less.
        self.columns = np.column_stack([design, cells.y - cells.y.mean()])
        width = self.columns.shape[1]
        self.by_rater, self.by_slide = np.zeros((cells.raters, width)), np.zeros((cells.slides, width))
        np.add.at(self.by_rater, cells.rater, self.columns)
        np.add.at(self.by_slide, cells.slide, self.columns)
        self.gram = self.columns.T @ self.columns
        self.df = n - design.shape[1]

    def rest(self, r: float, s: float) -> tuple[float, float]:
        """The criterion, and the variance of the rest that goes with it."""
        cells = self.cells
        weight = s / (1.0 + s * cells.per_slide)
        gram = self.gram - (self.by_slide.T * weight) @ self.by_slide
        log_det = float(np.log1p(s * cells.per_slide).sum())
        if r > 0:
            weighted = cells.both * weight
            core = np.eye(cells.raters) + r * (np.diag(cells.per_rater) - weighted @ cells.both.T)
            seen = self.by_rater - weighted @ self.by_slide
            gram = gram - r * seen.T @ np.linalg.solve(core, seen)
            log_det += float(np.linalg.slogdet(core)[1])
        fixed, cross = gram[:-1, :-1], gram[:-1, -1]
        squares = max(float(gram[-1, -1] - cross @ np.linalg.solve(fixed, cross)), np.finfo(float).tiny)
        log_fixed = float(np.linalg.slogdet(fixed)[1])
        return log_det + log_fixed + self.df * float(np.log(squares)), squares / self.df


def _reml(cells: _Cells, *, fixed: bool) -> tuple[float, float, float]:
    """Variances of raters, slides and the rest."""
    scale = float(np.ptp(cells.y))
    if scale == 0:
        return (np.nan if fixed else 0.0), 0.0, 0.0
    criterion = _Criterion(_Cells.of(cells.y / scale, cells.rater, cells.slide), fixed=fixed)

    def ratios(logs: Floats) -> tuple[float, float]:
        found = np.exp(np.clip(logs, *_LOG_RANGE))
        return 0.0 if fixed else float(found[0]), float(found[-1])

    def value(logs: Floats) -> float:
        return criterion.rest(*ratios(logs))[0]

    # Nelder-Mead, since two unknowns need no gradient, and the threads of a linear algebra library cost more than they
    # are worth here. Logarithms, since at a bound its simplex would collapse and never come back.
    fits = []
    for start in ((-1.0,), (3.0,)) if fixed else ((-2.0, 1.0), (1.0, -2.0)):
        begin = np.array(start, dtype=float)
        simplex = begin + np.vstack([np.zeros(len(begin)), 1.5 * np.eye(len(begin))])
        options: Any = {"initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-9}
        fits.append(minimize(value, begin, method="Nelder-Mead", bounds=None, tol=None, options=options))
    r, s = ratios(min(fits, key=lambda fit: float(fit.fun)).x)
    rest = criterion.rest(r, s)[1] * scale**2
    return (np.nan if fixed else r * rest), s * rest, rest
