"""Is something wrong where a place is unlike the training slides? Each of the two distances as a flag of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.measures import not_measured
from wsi_pipeline.measures.flags import Reference, is_changed, judge_flags

APPEARANCE: Final = "appearance"
STRUCTURE: Final = "structure"
_MISSING: Final = {
    APPEARANCE: "no tile has a distance in colour: the model's card has no statistics of its training slides",
    STRUCTURE: "no tile has a distance of features: the model's card has no statistics of them",
}


def unlike_figures(
    distances: Mapping[str, Sequence[float | None]],
    area: NDArray[np.floating[Any]],
    tissue: NDArray[np.floating[Any]],
    slides: NDArray[Any],
    reference: Reference,
) -> dict[str, Any]:
    """By kind of distance: tiles that are strange in it held against a reference, or why that is not known.

    Parameters
    ----------
    distances
        Of `APPEARANCE` and `STRUCTURE`: of each tile (n,) over the threshold, None where nobody knows.
    area, tissue
        Of each tile (n,): area where something is wrong by the reference, and area of its tissue, in one unit.
    slides
        Slide of each tile.

    Returns
    -------
    The figures of `FlagQuality` over the tiles whose distance is known: `flagged` are those above 1, the order is that
    of the distance; and `familiar_changed`, the share of the other ones that count as changed.
    """
    return {
        kind: _figures(kind, np.array(distances[kind], np.float64), area, tissue, slides, reference)
        for kind in _MISSING
    }


def _figures(
    kind: str,
    distance: NDArray[np.float64],
    area: NDArray[np.floating[Any]],
    tissue: NDArray[np.floating[Any]],
    slides: NDArray[Any],
    reference: Reference,
) -> dict[str, Any]:
    known = ~np.isnan(distance)
    if not known.any():
        return not_measured(_MISSING[kind])
    strange, changed = distance[known] > 1, is_changed(area[known], tissue[known])
    quality = judge_flags(
        flagged=strange,
        score=distance[known],
        area=area[known],
        changed=changed,
        slides=slides[known],
        reference=reference,
    )
    familiar = float(changed[~strange].mean()) if not strange.all() else None
    return {**quality.to_json(), "familiar_changed": familiar}
