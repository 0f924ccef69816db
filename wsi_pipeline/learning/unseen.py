"""Which held-out tiles a model has really not seen: not in this training, and not in those of its parents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wsi_pipeline.learning.samples import Tile
from wsi_pipeline.models.card import ModelCard


class HeldOut(NamedTuple):
    """Held-out tiles that count, and the ids of slides that do not, since the model or a parent learned from them."""

    tiles: tuple[Tile, ...]
    seen: tuple[str, ...]


def unseen_tiles(held_out: Sequence[Tile], trained_on: Sequence[Tile], parent: ModelCard | None) -> HeldOut:
    """The tiles of slides and patients that neither `trained_on` nor the parent's card holds.

    A temperature and its diagram that were fitted where the network had learned would promise too much: a patient who
    is held out today may have taught the parent yesterday.
    """
    known = {tile.slide_id for tile in trained_on} | {tile.group for tile in trained_on}
    if parent is not None:
        known |= {*parent.trained_on.slides, *parent.trained_on.patients}
    kept = tuple(tile for tile in held_out if tile.slide_id not in known and tile.group not in known)
    counted = {tile.slide_id for tile in kept}
    return HeldOut(kept, tuple(sorted({tile.slide_id for tile in held_out} - counted)))
