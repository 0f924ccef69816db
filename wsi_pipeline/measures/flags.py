"""Does the review queue lead to what is wrong? Precision, recall, early finds, and an audit of what is not flagged."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from wsi_pipeline.measures.clusters import LEVEL, percentile_interval, ratio_interval

EARLY: Final = 0.1
"""The first tenth of the queue, by number of tiles; the tile at its end counts in part."""
CHANGED_SHARE: Final = 0.01
"""A tile counts as changed when at least this share of its tissue is."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Reference(StrEnum):
    """What a tile is held against. The first is what a person did after seeing prediction and flags: no truth."""

    CHANGED = "changed by the reviewer"
    PLANTED = "planted errors"
    SECOND_READ = "blind second read"
    REPEAT = "the same reader's second reading"


@dataclass(frozen=True, slots=True)
class FlagQuality:
    """How flags and order of a queue compare with where something was; shares 0..1, None where not defined.

    Attributes
    ----------
    precision, recall
        Of flagged tiles those that count as changed, and of changed tiles those that are flagged.
    area_recall
        Share of the changed area that lies in flagged tiles.
    early, early_random, early_best
        Share of the changed area in the first tenth of the queue; of a random order (expected), and of the order that
        knew all areas.
    """

    reference: Reference
    tiles: int
    slides: int
    flagged: int
    changed: int
    changed_area: float
    precision: float | None
    recall: float | None
    area_recall: float | None
    early: float | None
    early_random: float
    early_best: float | None
    precision_interval: tuple[float, float] | None
    recall_interval: tuple[float, float] | None
    area_recall_interval: tuple[float, float] | None
    early_interval: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        """JSON values, for metrics.json; intervals as [low, high]."""

        def pair(interval: tuple[float, float] | None) -> list[float] | None:
            return None if interval is None else list(interval)

        return {
            "reference": str(self.reference),
            "tiles": self.tiles,
            "slides": self.slides,
            "flagged": self.flagged,
            "changed": self.changed,
            "changed_um2": self.changed_area,
            "precision": self.precision,
            "precision_ci95": pair(self.precision_interval),
            "recall": self.recall,
            "recall_ci95": pair(self.recall_interval),
            "area_recall": self.area_recall,
            "area_recall_ci95": pair(self.area_recall_interval),
            "early": self.early,
            "early_ci95": pair(self.early_interval),
            "early_share_of_queue": EARLY,
            "early_random": self.early_random,
            "early_best": self.early_best,
        }


def is_changed(area: NDArray[np.floating[Any]], tissue: NDArray[np.floating[Any]]) -> Bools:
    """Which tiles count as changed: `CHANGED_SHARE` of their tissue at least; both areas in one unit."""
    result: Bools = (np.asarray(area) > 0) & (np.asarray(area) >= CHANGED_SHARE * np.asarray(tissue))
    return result


def judge_flags(
    *,
    flagged: Bools,
    score: NDArray[np.floating[Any]],
    area: NDArray[np.floating[Any]],
    changed: Bools,
    slides: NDArray[Any],
    reference: Reference = Reference.CHANGED,
) -> FlagQuality:
    """Hold flags and order of a queue against where something was changed, planted or read otherwise.

    Parameters
    ----------
    flagged, score
        Of each tile (n,): whether it is flagged, and what the queue is ordered by, the highest first.
    area, changed
        Area of the tile that was changed (or is wrong) in µm², and whether the tile counts; see `is_changed`.
    slides
        Slide of each tile: intervals resample slides.

    Raises
    ------
    ValueError
        Lengths differ, or there is no tile.
    """
    where, size, order = np.asarray(flagged, bool), np.asarray(area, np.float64), np.asarray(score, np.float64)
    hit = np.asarray(changed, bool)
    if not len(where) == len(size) == len(order) == len(hit) == len(slides) or not len(where):
        raise ValueError("flags, scores, areas and slides must be of one length, and not empty")
    # Sorted once: each resample then finds it in order.
    sort = np.argsort(-order, kind="stable")
    where, size, order, hit, of = where[sort], size[sort], order[sort], hit[sort], np.asarray(slides)[sort]
    one, both = np.ones(len(size)), where & hit

    return FlagQuality(
        reference=reference,
        tiles=len(size),
        slides=len(np.unique(of)),
        flagged=int(where.sum()),
        changed=int(hit.sum()),
        changed_area=float(size.sum()),
        precision=_share(both, where),
        recall=_share(both, hit),
        area_recall=_share(size * where, size),
        early=found_early(order, size, one),
        early_random=EARLY,
        early_best=found_early(size, size, one),
        precision_interval=ratio_interval(both, where, of),
        recall_interval=ratio_interval(both, hit, of),
        area_recall_interval=ratio_interval(size * where, size, of),
        early_interval=percentile_interval(lambda taken: found_early(order, size, taken), of),
    )


def _share(part: NDArray[Any], whole: NDArray[Any]) -> float | None:
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else None


def found_early(score: Floats, area: Floats, weight: Floats, share: float = EARLY) -> float | None:
    """Share of the area in the first `share` of the weight, the highest score first; None when there is no area.

    Tiles of the same score count as being in random order.
    """
    order = np.argsort(-score, kind="stable")
    w, a = weight[order], (weight * area)[order]
    if not a.sum() > 0:
        return None
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    seen, found = np.append(0.0, np.cumsum(w)[ends]), np.append(0.0, np.cumsum(a)[ends])
    return float(np.interp(share * seen[-1], seen, found) / found[-1])


@dataclass(frozen=True, slots=True)
class AuditedRecall:
    """Recall of the flags, with what they miss estimated from tiles drawn at random among those not flagged.

    Attributes
    ----------
    audited, audited_changed
        Unflagged tiles that were drawn, and those of them that count as changed.
    missed
        Estimated number of changed tiles among all that are not flagged: each found one stands for 1/π others, π its
        chance to be drawn (Hájek's ratio of Horvitz & Thompson's estimates).
    recall
        flagged and changed / (flagged and changed + missed); None when nothing is changed anywhere.
    interval
        95 %: Clopper & Pearson's for the share of changed tiles, at the effective sample size of unequal chances
        (Korn & Graubard 1998). It is defined when the audit found nothing, too.
    """

    flagged_changed: int
    unflagged: int
    audited: int
    audited_changed: int
    missed: float
    recall: float | None
    interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """JSON values, for metrics.json."""
        return {
            "flagged_changed": self.flagged_changed,
            "unflagged": self.unflagged,
            "audited": self.audited,
            "audited_changed": self.audited_changed,
            "missed": self.missed,
            "recall": self.recall,
            "recall_ci95": list(self.interval),
        }


def audited_recall(
    *, flagged: Bools, audited: Bools, chance: NDArray[np.floating[Any]], changed: Bools
) -> AuditedRecall | None:
    """Recall of the flags from a random audit; None without an audited tile.

    Parameters
    ----------
    flagged, audited
        Of each tile (n,); a tile is never both.
    chance
        Of an unflagged tile to be drawn into the audit, above 0 for audited ones.
    changed
        Whether the tile counts; only what is flagged or audited is looked at.

    Raises
    ------
    ValueError
        A tile is flagged and audited, or an audited one had no chance.
    """
    if (flagged & audited).any():
        raise ValueError("a tile is flagged and in the random audit of those that are not")
    pi = np.asarray(chance, np.float64)[audited]
    if not audited.any():
        return None
    if not ((pi > 0) & (pi <= 1)).all():
        raise ValueError("an audited tile states no chance of having been drawn")
    w, hit = 1 / pi, changed[audited]
    share = float((w * hit).sum() / w.sum())
    unflagged, found = int((~flagged).sum()), int((flagged & changed).sum())
    low, high = exact_interval(share, float(w.sum() ** 2 / (w**2).sum()))
    missed = share * unflagged
    return AuditedRecall(
        flagged_changed=found,
        unflagged=unflagged,
        audited=int(audited.sum()),
        audited_changed=int(hit.sum()),
        missed=missed,
        recall=found / (found + missed) if found + missed > 0 else None,
        interval=(_recall(found, high * unflagged, 0.0), _recall(found, low * unflagged, 1.0)),
    )


def _recall(found: float, missed: float, otherwise: float) -> float:
    return found / (found + missed) if found + missed > 0 else otherwise


def exact_interval(share: float, cases: float) -> tuple[float, float]:
    """Clopper & Pearson's 95 % interval of a share; `cases` may be an effective, broken number."""
    hits, rest, tail = share * cases, (1 - share) * cases, (1 - LEVEL) / 2
    low = float(beta.ppf(tail, hits, rest + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, rest)) if rest > 0 else 1.0
    return low, high
