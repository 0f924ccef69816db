"""How sure the map is in each tile: expected change, margin, soft Dice confidence; sums over rows of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Counts = NDArray[np.int64]

VALUES: Final = np.arange(256)
MARGIN: Final = np.abs(2 * VALUES - 255)
"""255 · |2p − 1| by 255 · p, int64 (256,)."""


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

    together = _joint(per_class, level, exclusive=exclusive and len(per_class) > 1)
    tiles = []
    for start, end in zip(starts, [*starts[1:], on_tissue.shape[1]], strict=True):
        where = on_tissue[:, start:end]
        # Pillow counts bytes in one pass, in a fraction of the time that sums of products over the pixels take.
        mask = None if where.all() else Image.fromarray(where.view(np.uint8))
        of_class, of_all = (
            [_histogram(values[:, start:end], mask) for values in maps] for maps in (per_class, together)
        )
        tile = _tile(of_class, of_all or of_class, _histogram(entropy[:, start:end], mask), level)
        if disagreement is not None and tile.pixels:
            counts = _histogram(disagreement[:, start:end], mask)
            tile = replace(tile, mutual_information=int(counts @ VALUES) / (tile.pixels * 255.0))
        tiles.append(tile)
    return tiles


def _histogram(values: NDArray[np.uint8], mask: Image.Image | None) -> Counts:
    """How many pixels have each value, int64 (256,); of a mask those where it is not 0."""
    return np.array(Image.fromarray(np.ascontiguousarray(values)).histogram(mask), np.int64)


def _tile(per_class: Sequence[Counts], together: Sequence[Counts], entropy: Counts, level: float) -> TileSums:
    """What the histograms of a tile say.

    Parameters
    ----------
    together
        Of the maps of `_joint`; of a single class its own, from which they follow.
    """
    pixels = int(entropy.sum())
    n = max(1, pixels) * 255.0
    marked = level < VALUES
    if len(together) == 1:
        (of_class,) = together
        predicted = int(of_class[marked].sum())
        wrong, margin = int(of_class @ _wrong(level)), int(of_class @ MARGIN)
    else:
        highest, of_wrong, of_margin = together
        predicted = int(highest[marked].sum())
        wrong, margin = int(of_wrong @ VALUES), int(of_margin @ VALUES)
    probability = [int(counts @ VALUES) for counts in per_class]
    inside = sum(int(counts[marked] @ VALUES[marked]) for counts in per_class)
    area = sum(int(counts[marked].sum()) for counts in per_class)
    return TileSums(
        pixels=pixels,
        predicted_share=predicted / max(1, pixels),
        probability=tuple(p / n for p in probability),
        entropy=int(entropy @ VALUES) / n,
        expected=wrong / n,
        margin=margin / n if pixels else None,
        confidence=2 * inside / (sum(probability) + 255.0 * area) if area else None,
    )


def _wrong(level: float) -> NDArray[np.int64]:
    """255 · (1 − p) where one class by itself is marked, and 255 · p elsewhere: int64 (256,) by 255 · p."""
    return np.where(level < VALUES, 255 - VALUES, VALUES)


def _joint(per_class: Sequence[NDArray[np.uint8]], level: float, *, exclusive: bool) -> tuple[NDArray[np.uint8], ...]:
    """The maps that only all classes together give: highest probability, `_wrong` and margin; of one class none."""
    if len(per_class) == 1:
        return ()
    return _exclusive(per_class, level) if exclusive else _independent(per_class, level)


def _exclusive(per_class: Sequence[NDArray[np.uint8]], level: float) -> tuple[NDArray[np.uint8], ...]:
    """The highest 255 · p; 255 · (1 − p of the label); and 255 · (p₁ − p₂), of two classes or more.

    The label is the likeliest class where one is marked, else background.
    """
    total = np.zeros(per_class[0].shape, np.uint16)
    first, second = (np.zeros(per_class[0].shape, np.uint8) for _ in range(2))
    for p in per_class:
        total += p
        np.maximum(second, np.minimum(first, p), out=second)
        np.maximum(first, p, out=first)
    # Rounded one by one, the classes may add up to a little more than 255.
    background = (255 - np.minimum(total, 255)).astype(np.uint8)
    wrong = 255 - np.where(first > level, first, background)
    np.maximum(second, np.minimum(first, background), out=second)
    return first, wrong, np.maximum(first, background) - second


def _independent(per_class: Sequence[NDArray[np.uint8]], level: float) -> tuple[NDArray[np.uint8], ...]:
    """The highest 255 · p; and of the class that is least sure: 255 · (1 − p of its label), 255 · |2p − 1|."""
    tables = _wrong(level).astype(np.uint8), MARGIN.astype(np.uint8)
    first, wrong, margin = per_class[0], tables[0][per_class[0]], tables[1][per_class[0]]
    for p in per_class[1:]:
        first = np.maximum(first, p)
        np.maximum(wrong, tables[0][p], out=wrong)
        np.minimum(margin, tables[1][p], out=margin)
    return first, wrong, margin
