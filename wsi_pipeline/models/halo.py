"""How far a model looks beyond a window, measured on the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.segmenter import Segmenter

_LIMIT = 512


def measure_halo(segmenter: Segmenter, *, limit: int = _LIMIT, seed: int = 0) -> int:
    """Input pixels beyond a window that change its map, rounded up to the stride.

    Everything on one side of a line (at a multiple of the stride, where windows begin) is replaced, and the
    farthest pixel on the other side whose uint8 map changes gives the reach; over four sides, and over images
    from fine to coarse. What it finds is exact to 1/255 for these images: a card that states the architecture's
    own reach is better.

    Parameters
    ----------
    limit
        Longest halo to look for, in input pixels.

    Raises
    ------
    ModelError
        The reach is longer than `limit`: such a model has no exact halo (transformers, global pooling).
    """
    stride = segmenter.card.stride
    # Small images are enough for most models; long ones then make sure that nothing looks beyond them.
    near, far = _up(min(96, limit), stride), _up(2 * limit, stride)
    reach = _measure(segmenter, near, seed)
    if reach > near - near // 4 or _reach(segmenter, far, seed + 1, grains=(4,)) > reach:
        reach = max(reach, _measure(segmenter, far, seed))
    if reach > limit:
        raise ModelError(
            f"model {segmenter.card.name}: its map changes with pixels {reach} px away and perhaps farther, "
            f'more than the {limit} px that a halo may have; it looks at the whole window: write "blend": 0.5 into its '
            'card, or "fixed_window": true with a `halo` if it takes one size only'
        )
    return _up(reach, stride)


def _measure(segmenter: Segmenter, half: int, seed: int) -> int:
    return max(_reach(segmenter, half, seed + index, grains=(1, 4, 16)) for index in range(2))


def _up(length: int, stride: int) -> int:
    return -(-length // stride) * stride


def _reach(segmenter: Segmenter, half: int, seed: int, *, grains: Sequence[int]) -> int:
    """Farthest change across the middle line of strips of length `2 half`, in input pixels."""
    rng = np.random.default_rng(seed)
    side = 2 * half
    height = _up(64, segmenter.card.stride)
    longest = 0
    for grain, first_half in product(grains, (True, False)):
        images = np.stack([_texture(rng, height, side, grain) for _ in range(2)])
        same = slice(half, None) if first_half else slice(None, half)
        images[1, :, same] = images[0, :, same]
        for turned in (images, images.transpose(0, 2, 1, 3)):
            maps = segmenter.predict(np.ascontiguousarray(turned)).probability
            changed = (maps[0] != maps[1]).any(axis=0)
            along = changed.any(axis=1 if turned is not images else 0)
            longest = max(longest, _distance(along, first_half) * segmenter.card.output_downsample)
    return longest


def _distance(changed: NDArray[np.bool_], first_half: bool) -> int:
    """Map pixels from the middle to the farthest change on the side that was kept."""
    half = changed.size // 2
    kept = changed[half:] if first_half else changed[:half][::-1]
    found = np.flatnonzero(kept)
    return int(found[-1]) + 1 if found.size else 0


def _texture(rng: np.random.Generator, height: int, width: int, grain: int) -> NDArray[np.uint8]:
    coarse = rng.integers(0, 256, (-(-height // grain), -(-width // grain), 3), dtype=np.uint8)
    return coarse.repeat(grain, 0).repeat(grain, 1)[:height, :width]
