"""How sure the map is in each tile: expected change, margin, soft Dice confidence; sums over rows of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TileSums:
    """Values of one tile over its tissue, 0..1; all 0 and None in a tile without.

    Attributes
    ----------
    pixels
        Map pixels that are tissue.
    expected
        Expected share of the tissue whose label is wrong, were the probabilities true: the mean of 1 − p(label).
    margin
        Mean distance of the most likely label to the next one: p₁ − p₂; of a sigmoid the least of all
        classes' \\|2p − 1\\|.
    confidence
        Soft Dice Σ over classes 2 Σpy / Σ over classes (Σp + Σy) (Borges et al. 2024, over a whole image and one class
        there), y the marked pixels; None where none is marked.
    mutual_information
        Mean disagreement of several predictions, places with one only counted as 0; None where there is one everywhere.
    """

    pixels: int
    predicted_share: float
    probability: tuple[float, ...]
    entropy: float
    expected: float
    margin: float | None
    confidence: float | None
    mutual_information: float | None = None


def stripe_sums(
    per_class: Sequence[NDArray[np.uint8]],
    entropy: NDArray[np.uint8],
    on_tissue: NDArray[np.bool_],
    starts: NDArray[np.intp],
    *,
    level: float,
    exclusive: bool,
    disagreement: NDArray[np.uint8] | None = None,
) -> list[TileSums]:
    """Values of the tiles of one row.

    Parameters
    ----------
    per_class
        Probability of each class, uint8 (rows, columns).
    starts
        First column of each tile.
    level
        A pixel is of a class where its probability lies above, in steps of 1/255; see `level_of`.
    exclusive
        Softmax (what the classes leave of 1 is background), or each class by itself.
    disagreement
        Mutual information, uint8 (rows, columns), where there are several predictions.
    """

    def sums(values: NDArray[np.generic]) -> Floats:
        # A column of a stripe holds a few thousand pixels of 255 at most: 32 bits are enough, and quick.
        result: Floats = np.add.reduceat(values.sum(axis=0, dtype=np.int32).astype(np.float64), starts)
        return result

    marked = [p > level for p in per_class]
    wrong, margin = (_exclusive if exclusive and len(per_class) > 1 else _independent)(per_class, marked)
    count = sums(on_tissue)
    n = np.maximum(count, 1) * 255.0
    probability = [sums(p * on_tissue) for p in per_class]
    predicted = sums(np.logical_or.reduce(marked) & on_tissue) / np.maximum(count, 1)
    inside = sum((sums(p * (y & on_tissue)) for p, y in zip(per_class, marked, strict=True)), np.zeros(len(starts)))
    area = sum((sums(y & on_tissue) for y in marked), np.zeros(len(starts)))
    whole = sum(probability, np.zeros(len(starts))) + 255.0 * area
    expected, apart, unsure = (sums(values * on_tissue) / n for values in (wrong, margin, entropy))
    information = None if disagreement is None else sums(disagreement * on_tissue) / n
    return [
        TileSums(
            pixels=int(count[i]),
            predicted_share=min(1.0, float(predicted[i])),
            probability=tuple(float(p[i] / n[i]) for p in probability),
            entropy=float(unsure[i]),
            expected=float(expected[i]),
            margin=float(apart[i]) if count[i] else None,
            confidence=float(2 * inside[i] / whole[i]) if area[i] else None,
            mutual_information=None if information is None or not count[i] else float(information[i]),
        )
        for i in range(len(starts))
    ]


def _exclusive(
    per_class: Sequence[NDArray[np.uint8]], marked: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """255 · (1 − p of the label) and 255 · (p₁ − p₂), of two classes or more.

    The label is the likeliest class where one is marked, else background.
    """
    total, first, second = (np.zeros(per_class[0].shape, np.int16) for _ in range(3))
    for of_class in per_class:
        p = of_class.astype(np.int16)
        total += p
        np.maximum(second, np.minimum(first, p), out=second)
        np.maximum(first, p, out=first)
    # Rounded one by one, the classes may add up to a little more than 255.
    background = np.maximum(0, 255 - total)
    wrong = 255 - np.where(np.logical_or.reduce(marked), first, background)
    np.maximum(second, np.minimum(first, background), out=second)
    return wrong.astype(np.int16), (np.maximum(first, background) - second).astype(np.int16)


def _independent(
    per_class: Sequence[NDArray[np.uint8]], marked: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Of the class that is least sure: 255 · (1 − p) where it is marked and 255 · p elsewhere; 255 · |2p − 1|."""
    p, y = np.stack(per_class).astype(np.int16), np.stack(marked)
    return np.where(y, 255 - p, p).max(axis=0), np.abs(2 * p - 255).min(axis=0)
