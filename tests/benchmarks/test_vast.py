"""The sparse slide of the memory benchmark: what it holds, where, and that glass costs no space."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile

from benchmarks import vast
from benchmarks.vast import GLASS, LEVELS, MPP, PIECE, spread, write_sparse
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.slides import open_slide
from wsi_pipeline.tiling import Bounds


def test_pieces_lie_apart_inside_the_slide_and_on_the_coarsest_grid() -> None:
    corners = spread(100_000, 16)
    assert len(set(corners)) == 16
    assert all(0 <= v <= 100_000 - PIECE and v % LEVELS[-1] == 0 for corner in corners for v in corner)
    steps = sorted({x for x, _ in corners})
    assert min(b - a for a, b in pairwise(steps)) >= PIECE
    assert spread(PIECE, 1) == [(0, 0)]


def test_a_sparse_slide_holds_the_pieces_in_every_level_and_else_glass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = 256
    monkeypatch.setattr(vast, "PIECE", side)
    ramp = np.linspace(60, 200, side).astype(np.uint8)
    picture = np.stack([np.broadcast_to(ramp, (side, side)), np.broadcast_to(ramp[:, None], (side, side))] * 2, 2)
    tifffile.imwrite(tmp_path / "pattern.tif", picture[..., :3], photometric="rgb")
    path = tmp_path / "vast.tif"
    write_sparse(path, 6000, tmp_path / "pattern.tif", [(448, 384), (4032, 5056)])
    assert path.stat().st_size < 1_000_000  # of 108 MB of pixels
    with open_slide(SlideRef("vast", str(path), path.name)) as slide:
        assert slide.size == (6000, 6000)
        assert slide.mpp == pytest.approx(MPP, rel=1e-3)
        for x, y in ((448, 384), (4032, 5056)):
            found = slide.read(Bounds(x, y, x + side, y + side), 1.0).astype(int)
            assert np.abs(found - picture[..., :3]).mean() < 4
        assert np.abs(slide.read(Bounds(1500, 1500, 3500, 1700), 1.0).astype(int) - GLASS).max() <= 1
    for level, downsample in enumerate(LEVELS):
        image = tifffile.imread(path, level=level)
        assert image.shape == (6000 // downsample, 6000 // downsample, 3)
        dark = np.argwhere(image[..., 0].astype(int) < GLASS - 20)
        corner = np.array([384, 448]) / downsample
        assert (dark.min(axis=0) >= np.floor(corner) - 1).all()
        assert (dark.max(axis=0) <= np.array([5056 + side, 4032 + side]) / downsample + 1).all()
