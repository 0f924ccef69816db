"""Reading a whole slide for a model: blocks of tiles against windows by TiffSlide.

    python -m benchmarks.reading [SLIDE] [--size 8192]

`blocks` reads aligned blocks of 2048 px with a halo of 48 px, as the engine does; `windows` reads 512-px windows at a
stride of 448 px, as most scripts do, on one TiffSlide. The limit of both is decoding each JPEG tile once (`decode`).
`resampled` reads the same blocks at a resolution that no level has, `tissue` is the mask of the whole slide, from its
coarse levels.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import tifffile
import tiffslide

from benchmarks.clock import clock, report
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import Tissue
from wsi_pipeline.slides import find_tissue, open_slide
from wsi_pipeline.synthetic import make_slide
from wsi_pipeline.tiling import BlockGrid, working_size

# Level-0 pixels to a pixel, between two levels.
BETWEEN = 1.37


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=8192)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide or Path(folder) / "slide.tif"
        if options.slide is None:
            make_slide(path, width=options.size, height=options.size, tissue_share=0.9)
        measure(path)


def measure(path: Path) -> None:
    with tifffile.TiffFile(path) as tiff, clock() as limit:
        page = tiff.pages.first
        for data, index in tiff.filehandle.read_segments(page.dataoffsets, page.databytecounts):
            page.decode(data, index, jpegtables=page.jpegtables)
    with open_slide(SlideRef("s", str(path), path.name, mpp=0.5)) as slide, clock() as blocks:
        width, height = slide.size
        grid = BlockGrid(width, height, 2048)
        for row, column in grid:
            slide.read(grid.bounds(row, column).grown(48), 1.0)
    with open_slide(SlideRef("s", str(path), path.name, mpp=0.5)) as slide, clock() as resampled:
        grid = BlockGrid(*working_size(slide.size, BETWEEN), 2048)
        for row, column in grid:
            slide.read(grid.bounds(row, column).grown(48), BETWEEN)
    with open_slide(SlideRef("s", str(path), path.name, mpp=0.5)) as slide, clock() as tissue:
        find_tissue(slide, Tissue())
    with tiffslide.TiffSlide(path) as slide, clock() as windows:
        for y in range(0, height, 448):
            for x in range(0, width, 448):
                slide.read_region((x, y), 0, (512, 512), as_array=True)
    mpx = width * height / 1e6
    runs = {"decode": limit, "blocks": blocks, "windows": windows, "resampled": resampled, "tissue": tissue}
    for name, took in runs.items():
        report(
            run=f"reading-{name}",
            mpx=mpx,
            cpu_s=took.cpu_s,
            wall_s=took.wall_s,
            mpx_per_cpu_s=mpx / took.cpu_s,
            ratio_to_windows=windows.cpu_s / took.cpu_s,
        )


if __name__ == "__main__":
    main()
