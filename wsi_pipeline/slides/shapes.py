"""Shapes of a mask: grow, close, open, drop pieces, fill holes. Booleans throughout, memory a few times the mask."""

from __future__ import annotations

import math

import numpy as np

from wsi_pipeline.slides.pieces import Mask, Pieces


def grown(mask: Mask, radius: int) -> Mask:
    """All pixels whose centre is within `radius` pixels of one of the mask's; nothing lies beyond the picture.

    A disc is a stack of rows: the mask is widened step by step, and each width is laid over the rows that the
    disc gives it. That takes about 4·radius passes over the booleans, where a distance transform takes many
    times the memory.
    """
    if radius <= 0 or not mask.any():
        return mask.copy()
    out = np.zeros_like(mask)
    wide = mask.copy()
    reach = 0
    for rows in range(radius, -1, -1):
        width = math.isqrt(radius * radius - rows * rows)
        for step in range(reach + 1, width + 1):
            wide[:, step:] |= mask[:, :-step]
            wide[:, :-step] |= mask[:, step:]
        reach = width
        if rows == 0:
            out |= wide
        else:
            out[rows:] |= wide[:-rows]
            out[:-rows] |= wide[rows:]
    return out


def closed(mask: Mask, radius: int) -> Mask:
    """The mask with gaps narrower than two radii closed; the picture's edge counts as a gap that stays open."""
    padded = np.pad(mask, radius + 1)
    shrunk = ~grown(~grown(padded, radius), radius)
    inner = slice(radius + 1, -radius - 1)
    return np.asarray(shrunk[inner, inner] | mask)


def opened(mask: Mask, radius: int) -> Mask:
    """The mask without what is narrower than two radii; beyond the picture it is taken to go on as at the edge."""
    padded = np.pad(mask, radius, mode="edge")
    kept = ~grown(~padded, radius)
    inner = slice(radius, -radius)
    return np.asarray(grown(kept, radius)[inner, inner])


def without_small(mask: Mask, pixels: float) -> Mask:
    """The mask without connected pieces (8 neighbours) of fewer than `pixels` pixels."""
    pieces = Pieces.of(mask, diagonal=True)
    return pieces.drawn(pieces.sizes >= pixels)


def small_holes(mask: Mask, pixels: float) -> Mask:
    """Holes of the mask with at most `pixels` pixels; what reaches the picture's edge is no hole."""
    gaps = Pieces.of(~mask, diagonal=False)
    return gaps.drawn((gaps.sizes <= pixels) & ~gaps.at_edge())


def near(mask: Mask, reach: int) -> Mask:
    """All pixels of the squares of 2 reach + 1 px around those of the mask."""
    out = mask
    for axis in (0, 1):
        wide = np.moveaxis(out.copy(order="K"), axis, 0)
        # In steps that double: what is there lies within `done` px already.
        done = 0
        while done < reach:
            step = min(done + 1, reach - done)
            before = wide.copy(order="K")
            wide[step:] |= before[:-step]
            wide[:-step] |= before[step:]
            done += step
        out = np.moveaxis(wide, 0, axis)
    return out
