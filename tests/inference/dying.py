"""A dask plugin that kills its worker process when a certain part of a slide is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

from wsi_pipeline.slides import Slide
from wsi_pipeline.tiling import Bounds


class Poison(WorkerPlugin):
    """Reading a rectangle that holds the pixel (x, y) ends the process, as a crash in a codec would.

    Parameters
    ----------
    most
        How often at most; each death leaves a file in `folder`.
    """

    name = "poison"

    def __init__(self, x: int, y: int, folder: Path, most: int) -> None:
        self.x, self.y, self.folder, self.most = x, y, folder, most

    def setup(self, worker: Any) -> None:
        read = Slide.read

        def deadly(slide: Slide, bounds: Bounds, downsample: float) -> Any:
            holds = bounds.x <= self.x < bounds.right and bounds.y <= self.y < bounds.bottom
            if holds and len(list(self.folder.iterdir())) < self.most:
                (self.folder / str(os.getpid())).touch()
                os._exit(1)
            return read(slide, bounds, downsample)

        Slide.read = deadly  # type: ignore[method-assign, assignment]
