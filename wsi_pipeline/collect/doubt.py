"""Did the model doubt where the reviewer changed something? Tiles of reviewed slides, and figures over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsi_pipeline.collect.changed import ChangedTile, area_in, changed_region
from wsi_pipeline.collect.matching import Pair
from wsi_pipeline.collect.rows import Occasion
from wsi_pipeline.collect.unlike import APPEARANCE, STRUCTURE, unlike_figures
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json
from wsi_pipeline.handout import HandedOutSlide
from wsi_pipeline.handout.plan import ASSISTED
from wsi_pipeline.measures import not_measured
from wsi_pipeline.measures.flags import Reference, audited_recall, is_changed, judge_flags
from wsi_pipeline.measures.risk import risk_coverage
from wsi_pipeline.regions import read_tiles
from wsi_pipeline.rundir import RunDir

CAVEAT = (
    "A change by the reviewer is no error, and what is left alone is not right: flags and suggestions steer where a "
    "person looks. Places of the random check were not flagged, and nobody could tell them from those that were."
)


def tiles_of_image(
    run: RunDir, slide: HandedOutSlide, occasion: Occasion, pairs: Sequence[Pair]
) -> tuple[ChangedTile, ...]:
    """What was changed in each review tile of a reviewed slide; nothing where there are no tiles of this handout.

    Nor of an image that showed no prediction, or one with an error planted into it: what a person did there says
    nothing of the model's own doubts.

    Raises
    ------
    StoreError
        The tiles are there and cannot be read.
    """
    folder = run.slide(slide.slide_id)
    if slide.arm != ASSISTED or slide.planted is not None:
        return ()
    if not occasion.reviewed or not folder.tiles.exists() or not is_of_this_handout(run, slide):
        return ()
    tiles = read_tiles(folder.tiles)
    um2 = slide.mpp * slide.mpp
    areas = area_in(changed_region(pairs), tiles) * um2
    return tuple(
        ChangedTile(
            slide_id=occasion.slide_id,
            patient=occasion.patient,
            batch=occasion.batch,
            rater=occasion.rater,
            source=occasion.source,
            x=t.x,
            y=t.y,
            width=t.width,
            height=t.height,
            tissue_um2=t.tissue_share * t.width * t.height * um2,
            changed_um2=float(area),
            score=t.score,
            rank=t.rank,
            flagged=t.flagged,
            audit=t.audit,
            audit_chance=t.audit_chance,
            mean_uncertainty=t.mean_uncertainty,
            margin=t.margin,
            confidence=t.confidence,
            out_of_distribution=t.out_of_distribution,
            structure_distance=t.structure_distance,
        )
        for t, area in zip(tiles, areas, strict=True)
    )


def is_of_this_handout(run: RunDir, slide: HandedOutSlide) -> bool:
    """Tiles that a later model made say nothing of flags that the reviewer never saw."""
    try:
        return bool(read_json(run.slide(slide.slide_id).summary)["run_id"] == slide.run_id)
    except (StoreError, KeyError, TypeError):
        return False


def doubt_figures(tiles: Sequence[ChangedTile]) -> dict[str, Any]:
    """The part `confidence` of metrics.json; definitions in docs/confidence.md."""
    if not tiles:
        return not_measured("no reviewed slide has the review tiles that were handed out with it")
    slides = np.array([t.slide_id for t in tiles])
    area, tissue = (np.array([getattr(t, name) for t in tiles]) for name in ("changed_um2", "tissue_um2"))
    score = np.array([t.score for t in tiles])
    flagged, audit = (np.array([getattr(t, name) for t in tiles], bool) for name in ("flagged", "audit"))
    changed = is_changed(area, tissue)
    quality = judge_flags(flagged=flagged, score=score, area=area, changed=changed, slides=slides)
    chance = np.array([t.audit_chance for t in tiles])
    audited = audited_recall(flagged=flagged, audited=audit, chance=chance, changed=changed)
    # Confidence of a tile is the share of it that is expected to stay; its loss is the share that did not.
    loss = np.minimum(1.0, area / tissue)
    risk = risk_coverage(-score / tissue, loss, slides, tissue)
    simulated = any(t.source == "simulated" for t in tiles)
    return {
        "source": "simulated" if simulated else "measured",
        "reference": str(Reference.CHANGED),
        "caveat": CAVEAT,
        "flags": quality.to_json(),
        "audit": not_measured("no tile was drawn for a random check") if audited is None else audited.to_json(),
        "risk_coverage": risk.to_json(),
        "strange": _strange(tiles, changed),
        "out_of_distribution": unlike_figures(
            {
                APPEARANCE: [t.out_of_distribution for t in tiles],
                STRUCTURE: [t.structure_distance for t in tiles],
            },
            area,
            tissue,
            slides,
            Reference.CHANGED,
        ),
    }


def _strange(tiles: Sequence[ChangedTile], changed: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """How often tiles that look unlike the training slides were changed, and the others."""
    pairs = [(t.out_of_distribution, bool(c)) for t, c in zip(tiles, changed, strict=True)]
    known = [(distance > 1, hit) for distance, hit in pairs if distance is not None]
    if not known:
        return not_measured("the model's card has no statistics of its training slides")
    shares = {}
    for name, wanted in (("strange", True), ("familiar", False)):
        hits = [hit for odd, hit in known if odd is wanted]
        shares[name] = {"tiles": len(hits), "changed": sum(hits), "share": sum(hits) / len(hits) if hits else None}
    return shares
