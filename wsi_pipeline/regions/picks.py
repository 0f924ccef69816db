"""Which tiles of a slide a person is asked to look at, and in which order.

First the tiles where most is expected to change, each at least a tile apart from the next one: who looks at a place
sees its neighbours. A quarter of the places is kept for tiles that are unlike the training slides, where the model's
own doubt is worth little. Among them stand a few of the others, drawn at random: they tell how much the flags miss,
as long as nobody can see which they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

# A tile where less than this share of the tissue is expected to change is not worth a pathologist's time.
WORTH_A_LOOK: Final = 0.04
# Share of the places that goes to strange tiles, where there are such.
FOR_STRANGE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tile of the grid: `score` in µm² is what it is ranked by, `share` the part of its tissue that may change,
    `strange` above 1 where it is unlike the training slides, None where nobody knows."""

    column: int
    row: int
    score: float
    share: float
    strange: float | None = None


@dataclass(frozen=True, slots=True)
class Pick:
    """Place of a tile in the order: `index` into the candidates, `chance` of an unflagged one to be audited."""

    index: int
    flagged: bool
    audit: bool
    chance: float


def pick(candidates: Sequence[Candidate], *, most: int, audits: int, key: str) -> list[Pick]:
    """All tiles in the order of their review: flagged, with audited ones anywhere between them, then the rest.

    Parameters
    ----------
    most
        Flagged tiles at most.
    audits
        Of the others to be drawn.
    key
        Seeds the draw (the slide's id): the same tiles give the same audit.
    """
    by_score = sorted(range(len(candidates)), key=lambda i: _place(candidates[i]))
    strange = [i for i in range(len(candidates)) if (candidates[i].strange or 0.0) > 1]
    strange.sort(key=lambda i: (-(candidates[i].strange or 0.0), _place(candidates[i])))
    worth = [i for i in by_score if candidates[i].share >= WORTH_A_LOOK]
    taken: list[int] = []
    cells: set[tuple[int, int]] = set()
    # A place at least, as soon as there are any.
    kept_free = min(len(strange), max(1, round(FOR_STRANGE * most))) if most else 0
    _take(worth, candidates, most - kept_free, taken, cells)
    _take(strange, candidates, most, taken, cells)
    # Strange tiles may be neighbours of each other or flagged already: what they leave goes to the others.
    _take(worth, candidates, most, taken, cells)
    flagged = sorted(taken, key=by_score.index)
    rest = [i for i in by_score if i not in set(taken)]
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    drawn = _drawn(rest, audits, rng)
    chance = min(1.0, audits / len(rest)) if rest else 0.0
    ordered = [Pick(i, True, False, 0.0) for i in flagged]
    for i in drawn:
        # One that always came last would give itself away.
        ordered.insert(int(rng.integers(len(ordered) + 1)), Pick(i, False, True, chance))
    return ordered + [Pick(i, False, False, chance) for i in rest if i not in drawn]


def _place(candidate: Candidate) -> tuple[float, int, int]:
    return -candidate.score, candidate.row, candidate.column


def _take(
    order: Sequence[int], candidates: Sequence[Candidate], most: int, taken: list[int], cells: set[tuple[int, int]]
) -> None:
    """Go on taking tiles in this order that touch none that is taken, until there are `most`."""
    for i in order:
        if len(taken) >= most:
            return
        column, row = candidates[i].column, candidates[i].row
        if not any((column + dx, row + dy) in cells for dx in (-1, 0, 1) for dy in (-1, 0, 1)):
            taken.append(i)
            cells.add((column, row))


def _drawn(rest: Sequence[int], audits: int, rng: np.random.Generator) -> list[int]:
    # Drawn by place in the grid's order, not by score: the draw must not know what the model thinks.
    places = sorted(rest)
    return [places[j] for j in rng.permutation(len(places))[:audits]]
