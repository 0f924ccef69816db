"""Small pyramidal slides, written with tifffile alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with detail, so that JPEG keeps them and neighbouring pixels differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 230, (height // 16 + 2, width // 16 + 2, 3))
    fine = np.kron(coarse, np.ones((16, 16, 1)))[:height, :width] + rng.normal(0, 12, (height, width, 3))
    return np.clip(fine, 0, 255).astype(np.uint8)


def write_slide(
    path: Path,
    image: NDArray[np.uint8],
    *,
    mpp: float | tuple[float, float] | None = 0.5,
    tile: int = 256,
    levels: int = 3,
    compression: str = "jpeg",
    **more: Any,
) -> Path:
    """A tiled pyramid whose levels are every second pixel of the one before."""
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(levels):
            size: dict[str, Any] = {}
            if mpp is not None:
                x, y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
                size = {"resolution": (1e4 / x / 2**level, 1e4 / y / 2**level), "resolutionunit": "CENTIMETER"}
            tiff.write(
                image[:: 2**level, :: 2**level],
                tile=(tile, tile),
                photometric="rgb",
                compression=compression,
                subfiletype=1 if level else 0,
                metadata=None,
                **size,
                **more,
            )
    return path
