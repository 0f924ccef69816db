"""What is left wrong when the least sure cases go to a person first: risk-coverage curves, AUGRC, E-AURC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.measures.clusters import percentile_interval

Floats = NDArray[np.float64]

# More points than these make no better picture.
_POINTS = 101


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """A curve and its areas; cases are ordered by confidence, the surest first.

    Attributes
    ----------
    coverage, selective_risk, generalized_risk
        Share of the weight that is kept without a look; mean loss of what is kept; loss that is kept, as a share of
        the whole weight.
    aurc
        Area under the selective risk, taken at each case (Geifman & El-Yaniv 2017).
    e_aurc
        `aurc` less that of the best possible order of the same losses (Geifman et al. 2019).
    augrc
        Area under the generalized risk (Traub et al. 2024, arXiv:2407.01032): the mean loss that slips through at a
        coverage drawn at random. Unlike `aurc` it does not weigh the few surest cases most. With losses of 0 and 1 it
        is ½ e² + e (1 − e) (1 − AUROC), e the mean loss.
    augrc_random, augrc_best
        Of a random order (half of the mean loss) and of the best one.
    augrc_interval
        95 % from resampling slides; None with fewer than five.
    """

    cases: int
    groups: int
    mean_loss: float
    aurc: float
    e_aurc: float
    augrc: float
    augrc_random: float
    augrc_best: float
    augrc_interval: tuple[float, float] | None
    coverage: tuple[float, ...]
    selective_risk: tuple[float, ...]
    generalized_risk: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values, for metrics.json."""
        return {
            "cases": self.cases,
            "groups": self.groups,
            "mean_loss": self.mean_loss,
            "aurc": self.aurc,
            "e_aurc": self.e_aurc,
            "augrc": self.augrc,
            "augrc_ci95": None if self.augrc_interval is None else list(self.augrc_interval),
            "augrc_random": self.augrc_random,
            "augrc_best": self.augrc_best,
            "coverage": list(self.coverage),
            "selective_risk": list(self.selective_risk),
            "generalized_risk": list(self.generalized_risk),
        }


def risk_coverage(
    confidence: NDArray[np.floating[Any]],
    loss: NDArray[np.floating[Any]],
    groups: NDArray[Any],
    weight: NDArray[np.floating[Any]] | None = None,
) -> RiskCoverage:
    """The curve of n cases.

    Parameters
    ----------
    confidence
        (n,), higher is surer; cases of the same confidence count as being in random order.
    loss
        (n,), 0 for right; 1 for wrong, or anything between and above.
    groups
        Slide of each case.
    weight
        Say, the area of each case; all the same unless told.

    Raises
    ------
    ValueError
        Lengths differ, there is no case, a loss or weight is negative, or a confidence is missing.
    """
    sure, cost = np.asarray(confidence, np.float64), np.asarray(loss, np.float64)
    w = np.ones_like(cost) if weight is None else np.asarray(weight, np.float64)
    if not len(sure) == len(cost) == len(w) == len(groups) or not w.sum() > 0:
        raise ValueError("confidence, loss, weight and groups must be of one length, with some weight")
    if not (np.isfinite(sure).all() and (cost >= 0).all() and (w >= 0).all()):
        raise ValueError("confidences must be numbers, losses and weights not negative")
    curve, best = _Curve.of(sure, cost, w), _Curve.of(-cost, cost, w)
    mean = float(curve.kept[-1])
    shown = np.unique(np.round(np.linspace(0, len(curve.coverage) - 1, _POINTS)).astype(np.intp))
    return RiskCoverage(
        cases=len(sure),
        groups=len(np.unique(np.asarray(groups))),
        mean_loss=mean,
        aurc=curve.aurc,
        e_aurc=max(0.0, curve.aurc - best.aurc),
        augrc=curve.augrc,
        augrc_random=mean / 2,
        augrc_best=best.augrc,
        augrc_interval=_augrc_interval(sure, cost, w, groups),
        coverage=tuple(curve.coverage[shown].tolist()),
        selective_risk=tuple(curve.risk[shown].tolist()),
        generalized_risk=tuple(curve.kept[shown].tolist()),
    )


def _augrc_interval(sure: Floats, cost: Floats, w: Floats, groups: NDArray[Any]) -> tuple[float, float] | None:
    # Sorted once for all resamples.
    order = np.argsort(-sure, kind="stable")
    ends, loss, weight = _ends(sure[order]), cost[order], w[order]

    def augrc(taken: Floats) -> float | None:
        own = weight * taken
        coverage, kept = np.cumsum(own)[ends], np.cumsum(own * loss)[ends]
        whole = float(coverage[-1])
        return _under(kept / whole, coverage / whole) if whole > 0 else None

    return percentile_interval(augrc, np.asarray(groups)[order])


def _ends(ordered: Floats) -> NDArray[np.intp]:
    """The last index of each run of equal values."""
    return np.flatnonzero(np.append(np.diff(ordered) != 0, True))


def _under(kept: Floats, coverage: Floats) -> float:
    # In random order the loss within a block grows with its coverage, so that the trapezia are exact.
    return float(np.trapezoid(np.append(0.0, kept), np.append(0.0, coverage)))


@dataclass(frozen=True, slots=True)
class _Curve:
    """Coverage, and the loss kept at it, after each block of equal confidence."""

    coverage: Floats
    kept: Floats

    @classmethod
    def of(cls, sure: Floats, cost: Floats, w: Floats) -> _Curve:
        order = np.argsort(-sure, kind="stable")
        ends = _ends(sure[order])
        whole = w.sum()
        coverage, kept = np.cumsum(w[order])[ends] / whole, np.cumsum((w * cost)[order])[ends] / whole
        some = np.diff(coverage, prepend=0.0) > 0
        return cls(coverage[some], kept[some])

    @property
    def risk(self) -> Floats:
        result: Floats = self.kept / self.coverage
        return result

    @property
    def aurc(self) -> float:
        return float(self.risk @ np.diff(self.coverage, prepend=0.0))

    @property
    def augrc(self) -> float:
        return _under(self.kept, self.coverage)
