"""Contrasts of values that share raters and slides, with intervals that know it: crossed random effects.

Model: values = X b + sum of Z_k u_k + rest, with independent u_k of variance v_k. The variances are estimated by REML
(Patterson & Thompson 1971; for crossed effects Searle, Casella & McCulloch, Variance Components, 1992, chapter 6):
Fisher scoring from unbiased quadratic estimates, never below zero. With complete cells and no negative estimate they
are those of the analysis of variance.

The contrast is the one of least squares, w'y with weights that do not depend on the variances, so that an interval has
in its middle what is printed (of a mean: the plain mean). Its variance is the sum of v_k |Z_k'w|² + v |w|². Degrees of
freedom are Satterthwaite's: 2 var² / (g' C g), with C the inverse of the expected information of the variances.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

MIN_RATERS = 5

Floats = NDArray[np.float64]

_STEPS = 60
_TOLERANCE = 1e-8
_RANK = 1e-10
_BARELY = 1e-6


@dataclass(frozen=True)
class Design:
    """Who read what how, as matrices; one design serves many vectors of values.

    Parameters
    ----------
    fixed
        Columns of fixed effects, shape (n, p); they may depend on each other.
    contrast
        Which combination of them is asked for, shape (p,).
    random
        For each variance the columns that share it, each of shape (n, q_k).
    min_df
        Degrees of freedom are never fewer.
    nuisance
        More fixed columns, shape (n, r), that are kept out of the variances but not out of the contrast: effects of
        the raters at hand, for whom alone the contrast then speaks.
    known_at_zero
        The random effect (place in `random`) whose variance has no uncertainty where it is estimated as zero.
    """

    fixed: Floats
    contrast: Floats
    random: tuple[Floats, ...]
    min_df: float = 1.0
    nuisance: Floats | None = None
    known_at_zero: int | None = None

    @cached_property
    def _all_fixed(self) -> Floats:
        return self.fixed if self.nuisance is None else np.hstack([self.fixed, self.nuisance])

    @cached_property
    def _inverse(self) -> tuple[Floats, int]:
        return _pseudo_inverse(self._all_fixed)

    @cached_property
    def weights(self) -> Floats:
        """Weights of the contrast: it is `weights @ values`, shape (n,)."""
        found: Floats = self.fixed @ (_pseudo_inverse(self.fixed)[0] @ self.contrast)
        return found

    @property
    def estimable(self) -> bool:
        """Whether the data can tell the contrast from the other fixed effects."""
        return bool(np.allclose(self.fixed.T @ self.weights, self.contrast, atol=1e-6))

    @property
    def spare(self) -> int:
        """Values beyond the fixed effects, from which the variances are learnt."""
        return len(self.fixed) - self._inverse[1]

    @cached_property
    def columns(self) -> Floats:
        """All random columns side by side, shape (n, q)."""
        return np.hstack(self.random) if self.random else np.zeros((len(self.fixed), 0))

    @cached_property
    def owner(self) -> NDArray[np.intp]:
        """The variance that each random column belongs to, shape (q,)."""
        return np.repeat(np.arange(len(self.random)), [z.shape[1] for z in self.random]).astype(np.intp)

    def residuals(self, values: Floats) -> Floats:
        """Values without their fixed effects; the last axis has length n."""
        found: Floats = values - (values @ self._all_fixed) @ self._inverse[0] @ self._all_fixed.T
        return found

    @cached_property
    def gram(self) -> Floats:
        """Z'MZ with M the projection off the fixed effects, shape (q, q)."""
        found: Floats = self.columns.T @ self.residuals(self.columns.T).T
        return found

    @cached_property
    def leverage(self) -> Floats:
        """By how much each variance, the rest's last, counts in the variance of the contrast, shape (k + 1,)."""
        parts = [float(np.sum((z.T @ self.weights) ** 2)) for z in self.random]
        return np.array([*parts, float(self.weights @ self.weights)])


def _pseudo_inverse(x: Floats) -> tuple[Floats, int]:
    """Pseudo-inverse of X'X, and its rank."""
    values, vectors = np.linalg.eigh(x.T @ x)
    kept = values > _RANK * max(float(values[-1]), np.finfo(float).tiny)
    return (vectors[:, kept] / values[kept]) @ vectors[:, kept].T, int(kept.sum())


@dataclass(frozen=True, slots=True)
class Fit:
    """Contrast, standard error, degrees of freedom, each of shape (b,); variances (b, k + 1), the rest's last."""

    estimate: Floats
    se: Floats
    df: Floats
    variances: Floats

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Low and high ends, by Student's t."""
        reach = student.ppf(0.5 + level / 2, self.df) * self.se
        return self.estimate - reach, self.estimate + reach


def fit(design: Design, values: ArrayLike) -> Fit:
    """Fit many vectors of values over one design at once.

    Parameters
    ----------
    values
        Shape (n,) or (b, n), finite.

    Raises
    ------
    ValueError
        A value is not finite, the contrast cannot be told from other effects, or too few values are left for the
        variances.
    """
    y = np.atleast_2d(np.asarray(values, dtype=float))
    if y.shape[1] != len(design.fixed) or not y.size or not np.isfinite(y).all():
        raise ValueError(f"{y.shape[1]} values for {len(design.fixed)} places, or one that is not finite")
    if not design.estimable:
        raise ValueError("the contrast cannot be told from the other fixed effects")
    if design.spare < 1:
        raise ValueError("no value is left to learn the variances from")
    spans = np.ptp(y, axis=1, keepdims=True)
    scale = np.where(spans > 0, spans, 1.0)
    variances, information = _reml(design, y / scale)
    g = design.leverage
    variance = variances @ g
    # A rater variance at zero is taken as known, else intervals are too wide where slides vary (docs/savings.md).
    free = np.ones_like(variances, dtype=bool)
    if design.known_at_zero is not None:
        free[:, design.known_at_zero] = variances[:, design.known_at_zero] > 0
    spread = np.einsum("i,bij,j->b", g, _inverted(np.where(free[:, :, None] & free[:, None, :], information, 0.0)), g)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(spread > 0, 2 * variance**2 / spread, design.spare)
    df = np.clip(df, design.min_df, max(design.spare, design.min_df))
    return Fit(y @ design.weights, np.sqrt(variance) * scale[:, 0], df, variances * scale**2)


@dataclass(frozen=True, slots=True)
class _State:
    """-2 log REML up to a constant, its score (b, k + 1) and the expected information (b, k + 1, k + 1)."""

    loss: Floats
    score: Floats
    information: Floats


def _evaluate(design: Design, u: Floats, squares: Floats, variances: Floats) -> _State:
    """The criterion by Woodbury's identity: nothing larger than the number of random columns is inverted.

    `u` is Z'My, shape (b, q), and `squares` y'My, shape (b,).
    """
    gram, owner, parts = design.gram, design.owner, len(design.random)
    rest = variances[:, -1]
    root = np.sqrt(variances[:, :-1] / rest[:, None])[:, owner]
    core = np.eye(len(owner)) + root[:, :, None] * gram * root[:, None, :]
    tg = root[:, :, None] * np.linalg.solve(core, root[:, :, None] * gram)  # T G
    tu = root * np.linalg.solve(core, (root * u)[:, :, None])[:, :, 0]
    seen = gram - gram @ tg  # rest Z'PZ
    twice = seen - seen @ tg  # rest² Z'PPZ
    h = (u - tu @ gram) / rest[:, None]
    indicator = np.eye(parts)[owner]
    trace = np.einsum("bii->b", tg)
    own = np.einsum("bii->bi", seen) @ indicator / rest[:, None]
    score = np.empty_like(variances)
    score[:, :-1] = (h**2 @ indicator - own) / 2
    length = (squares - 2 * np.sum(u * tu, axis=1) + np.einsum("bi,ij,bj->b", tu, gram, tu)) / rest**2
    score[:, -1] = (length - (design.spare - trace) / rest) / 2
    information = np.empty((len(u), parts + 1, parts + 1))
    information[:, :-1, :-1] = indicator.T @ seen**2 @ indicator / (2 * rest**2)[:, None, None]
    cross = np.einsum("bii->bi", twice) @ indicator / (2 * rest**2)[:, None]
    information[:, :-1, -1] = information[:, -1, :-1] = cross
    # tr(PP) rest² = m − 2 tr(TG) + tr(TGTG)
    both = design.spare - 2 * trace + np.einsum("bij,bji->b", tg, tg)
    information[:, -1, -1] = both / (2 * rest**2)
    loss = design.spare * np.log(rest) + np.linalg.slogdet(core)[1] + (squares - np.sum(u * tu, axis=1)) / rest
    return _State(loss, score, information)


def _inverted(information: Floats) -> Floats:
    """Pseudo-inverse; variances may differ by many orders of magnitude, so the diagonal is scaled to one first."""
    scale = np.sqrt(np.einsum("bii->bi", information))
    scale = np.where(scale > 0, scale, 1.0)
    both = scale[:, :, None] * scale[:, None, :]
    found: Floats = np.linalg.pinv(information / both, hermitian=True) / both
    return found


def _reml(design: Design, y: Floats) -> tuple[Floats, Floats]:
    """Variances, shape (b, k + 1), and their expected information there."""
    residuals = design.residuals(y)
    u, squares = residuals @ design.columns, np.sum(residuals**2, axis=1)
    # Equal values leave rounding only; with a floor the criterion stays finite, and the variances are taken as 0.
    flat = squares < 1e-20 * y.shape[1]
    squares = np.where(flat, 1.0, squares)
    u = np.where(flat[:, None], 0.0, u)
    floor = 1e-9 * squares / design.spare
    variances = np.zeros((len(y), len(design.random) + 1))
    variances[:, -1] = squares / design.spare
    state = _evaluate(design, u, squares, variances)
    left = np.arange(len(y))
    for _ in range(_STEPS):
        if not len(left):
            break
        now = _State(state.loss[left], state.score[left], state.information[left])
        moved, new = _step(design, u[left], squares[left], variances[left], now, floor[left])
        gain = now.loss - new.loss
        better = gain > 0
        chosen = left[better]
        variances[chosen] = moved[better]
        for name in ("loss", "score", "information"):
            getattr(state, name)[chosen] = getattr(new, name)[better]
        left = left[gain > _TOLERANCE]
    return np.where(flat[:, None], 0.0, variances), state.information


def _direction(variances: Floats, now: _State) -> Floats:
    """The scoring step that keeps variances at or above zero: one that would cross is set there, the rest follow."""
    held = (variances <= 0) & (now.score <= 0)
    drop = np.zeros_like(variances)
    direction = drop
    for _ in range(variances.shape[1]):
        free = ~held
        masked = np.where(free[:, :, None] & free[:, None, :], now.information, 0.0)
        score = np.where(free, now.score - np.einsum("bij,bj->bi", now.information, drop), 0.0)
        direction = drop + np.einsum("bij,bj->bi", _inverted(masked), score)
        crossing = free & (variances + direction < 0)
        crossing[:, -1] = False
        if not crossing.any():
            break
        held |= crossing
        drop = np.where(held, -variances, 0.0)
    return direction


def _step(
    design: Design, u: Floats, squares: Floats, variances: Floats, now: _State, floor: Floats
) -> tuple[Floats, _State]:
    """One step of Fisher scoring among variances that are not held at zero, halved where it would not help."""
    direction = _direction(variances, now)
    size = np.ones(len(u))
    moved, new = variances, now
    for _ in range(12):
        moved = np.maximum(variances + size[:, None] * direction, 0.0)
        moved[:, -1] = np.maximum(moved[:, -1], floor)
        new = _evaluate(design, u, squares, moved)
        worse = new.loss > now.loss + 1e-10
        if not worse.any():
            break
        size = np.where(worse, size / 2, size)
    return moved, new


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
    df: float
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
    """Mean of `values` with an interval from crossed random effects of rater and slide, t with raters − 1 df.

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
    rater, slide = indicator(raters), indicator(slides)
    fixed = rater.shape[1] < MIN_RATERS
    one = np.ones((len(y), 1))
    random, nuisance = ((slide,), rater) if fixed else ((rater, slide), None)
    design = Design(one, np.ones(1), random, nuisance=nuisance)
    df = (slide.shape[1] if fixed else rater.shape[1]) - 1
    mean = float(y.mean())
    counts = (len(y), rater.shape[1], slide.shape[1])
    # Without two slides nothing tells how slides differ, without a spare value nothing tells how values do.
    if slide.shape[1] < 2 or design.spare < 1:
        note = "no interval: it needs at least two slides, and more values than raters"
        return CrossedMean(mean, np.nan, np.nan, np.nan, df, np.nan, np.nan, np.nan, *counts, note)
    found = fit(design, y)
    se = float(found.se[0])
    reach = float(student.ppf(0.5 + level / 2, df)) * se
    variances = [float(v) for v in found.variances[0]]
    rater_variance = np.nan if fixed else variances[0]
    note = f"raters and slides as crossed random effects, t with {df} degrees of freedom"
    if fixed:
        note = f"for these {counts[1]} raters only: fewer than five, so they are fixed effects; t with {df} degrees"
    slide_variance, rest = variances[-2:]
    return CrossedMean(mean, mean - reach, mean + reach, se, df, rater_variance, slide_variance, rest, *counts, note)


def indicator(names: Sequence[Hashable]) -> Floats:
    """One column of zeros and ones for each name, in the order of first appearance, shape (n, names)."""
    known: dict[Hashable, int] = {}
    places = [known.setdefault(name, len(known)) for name in names]
    found: Floats = np.eye(len(known))[places]
    return found


def spare_rank(columns: Floats, fixed: Floats) -> int:
    """How many independent differences of `columns` (n, q) are left once the `fixed` effects (n, p) are taken off."""
    inverse, _ = _pseudo_inverse(fixed)
    left = columns - fixed @ (inverse @ (fixed.T @ columns))
    size = np.linalg.svd(left, compute_uv=False)
    # Of a difference that missing cells alone tell from a fixed effect, next to nothing is known.
    return int((size > _BARELY * max(float(np.linalg.norm(columns, axis=0).max()), np.finfo(float).tiny)).sum())
