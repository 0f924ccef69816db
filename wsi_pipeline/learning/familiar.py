"""What a model takes for familiar: statistics of the windows of its training tiles, for its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.learning.samples import Tile
from wsi_pipeline.models.appearance import WINDOW, Appearance, Floats, fit_appearance, windows_of
from wsi_pipeline.models.encoder import TorchEncoder
from wsi_pipeline.models.gauge import features_by
from wsi_pipeline.models.structure import FeatureStatistics, fit_structure
from wsi_pipeline.models.unet import UNet


@dataclass(frozen=True, slots=True)
class Familiar:
    """Statistics of colour and sharpness and of the network's features; None where there were too few windows.

    Attributes
    ----------
    figures
        How many windows of held-out patients there were, and which share of them counts as strange.
    """

    appearance: Appearance | None
    structure: FeatureStatistics | None
    figures: dict[str, float]


def familiar_of(
    tiles: Sequence[Tile], net: UNet, *, before: Appearance | None = None, held_out: Sequence[Tile] = ()
) -> Familiar:
    """Statistics of what `net` was trained on.

    Parameters
    ----------
    before
        What a parent of the model has seen: looks stay what they are, so it is joined with them. The parent's features
        are those of another network and say nothing here.
    held_out
        Tiles of patients that it was not trained on: for the figures alone.
    """
    encoder = TorchEncoder(net)
    windows, looks, slides = _windows(tiles)
    appearance = fit_appearance(looks, slides) if len(looks) else None
    if before is not None:
        appearance = before if appearance is None else before.with_others(appearance)
    # Of a smaller window the features vary more: its tile has none of the size that slides are looked at with.
    whole = np.array([window.shape[:2] == (WINDOW, WINDOW) for window in windows], bool)
    structure = None
    if whole.any():
        structure = fit_structure(features_by(encoder, _taken(windows, whole)), slides[whole])
    return Familiar(appearance, structure, _figures(appearance, structure, encoder, held_out))


def _windows(tiles: Sequence[Tile]) -> tuple[list[NDArray[np.uint8]], Floats, NDArray[np.str_]]:
    """Windows that hold tissue, features of their appearance (n, 7), slide of each (n,)."""
    found = [(*item, tile.slide_id) for tile in tiles for item in windows_of(tile.image)]
    return [w for w, _, _ in found], np.array([f for _, f, _ in found]), np.array([s for _, _, s in found], np.str_)


def _taken(windows: Sequence[NDArray[np.uint8]], which: NDArray[np.bool_]) -> list[NDArray[np.uint8]]:
    return [window for window, taken in zip(windows, which, strict=True) if taken]


def _figures(
    appearance: Appearance | None, structure: FeatureStatistics | None, encoder: TorchEncoder, held_out: Sequence[Tile]
) -> dict[str, float]:
    windows, looks, _ = _windows(held_out)
    whole = np.array([window.shape[:2] == (WINDOW, WINDOW) for window in windows], bool)
    if not whole.any():
        return {}
    found = {"held_out_windows": float(whole.sum())}
    if appearance is not None:
        found["held_out_strange_in_appearance"] = _share(appearance.strangeness(looks[whole]))
    if structure is not None:
        features = features_by(encoder, _taken(windows, whole))
        found["held_out_strange_in_structure"] = _share(structure.strangeness(features))
    return found


def _share(distances: Floats) -> float:
    return round(float((distances > 1).mean()), 4)
