"""Peak memory beside a slide's size: the engine on a slide, and on one of 100,000² px that holds as much tissue.

    python -m benchmarks.vast [--size 100000] [--tissue 16384] [--weights null] [--folder build/bench]

The large slide is glass but for copies of a slide of 4,096 px. Nothing of its size is ever in memory: glass is one
encoded tile, written again and again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from benchmarks.clock import report
from benchmarks.comparison import draw, outcome
from wsi_pipeline.files import atomic
from wsi_pipeline.synthetic.pyramid import CENTIMETER_IN_UM, Encoding

PIECE = 4096
LEVELS = (1, 4, 16, 64)
GLASS = 243
MPP = 0.5

Corners = list[tuple[int, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--tissue", type=int, default=16_384, help="side of the smaller slide")
    parser.add_argument("--weights", default="null")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    pattern = options.folder / f"slide-{PIECE}.tif"
    if not pattern.exists():
        draw(pattern, PIECE)
    peaks = []
    for size in (options.tissue, options.size):
        slide = options.folder / f"vast-{size}.tif"
        if not slide.exists():
            write_sparse(slide, size, pattern, spread(size, (options.tissue // PIECE) ** 2))
        peaks.append(outcome("benchmarks.engine", str(slide), options.weights, "--mpp", str(MPP))["peak_mb"])
    report(run="memory", sizes=[options.tissue, options.size], peak_mb=peaks, ratio=peaks[1] / peaks[0])


def spread(size: int, count: int) -> Corners:
    """(x, y) of the pieces, evenly over the slide, on the grid of the coarsest level."""
    side = max(1, round(count**0.5))
    coarsest = LEVELS[-1]
    steps = [int(i * (size - PIECE) / max(1, side - 1)) // coarsest * coarsest for i in range(side)]
    return [(x, y) for y in steps for x in steps]


def write_sparse(path: Path, size: int, pattern: Path, corners: Corners) -> None:
    """A pyramidal JPEG TIFF of glass with copies of a slide at `corners`, in level-0 px."""
    image = Image.fromarray(tifffile.imread(pattern, level=0))
    with atomic(path) as file, tifffile.TiffWriter(file, bigtiff=True) as writer:
        for downsample in LEVELS:
            side = max(1, size // downsample)
            piece = np.asarray(image.reduce(downsample))
            placed = [(x // downsample, y // downsample) for x, y in corners]
            writer.write(
                _tiles(side, piece, placed, Encoding()),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(Encoding().tile,) * 2,
                photometric="rgb",
                compression="jpeg",
                subsampling=(2, 2),
                subfiletype=0 if downsample == 1 else 1,
                metadata=None,
                resolution=(CENTIMETER_IN_UM / MPP / downsample,) * 2,
                resolutionunit="CENTIMETER",
            )


def _tiles(side: int, piece: NDArray[np.uint8], corners: Corners, encoding: Encoding) -> Iterator[bytes]:
    """The encoded tiles of one level, row by row; what holds no part of a piece is the same glass."""
    tile = encoding.tile
    blank = np.full((tile, tile, 3), GLASS, np.uint8)
    glass = encoding.encode(blank)
    height, width = piece.shape[:2]
    for top in range(0, side, tile):
        for left in range(0, side, tile):
            pixels = None
            for x, y in corners:
                x0, x1, y0, y1 = max(x, left), min(x + width, left + tile), max(y, top), min(y + height, top + tile)
                if x0 < x1 and y0 < y1:
                    pixels = blank.copy() if pixels is None else pixels
                    pixels[y0 - top : y1 - top, x0 - left : x1 - left] = piece[y0 - y : y1 - y, x0 - x : x1 - x]
            yield glass if pixels is None else encoding.encode(pixels)


if __name__ == "__main__":
    main()
