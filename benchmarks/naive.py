"""The same work without the engine, as a script of a page does it: what `benchmarks.engine` is compared with.

    python -m benchmarks.naive SLIDE WEIGHTS|null [--channels-last] [--workers 2] [--output FILE.geojson]

Tissue by Otsu's threshold on the saturation of the smallest level; windows of 512 px at a stride of 448 px that touch
tissue, read by TiffSlide in a DataLoader; softmax, a Gaussian weight, sums on arrays of the slide's size; contours of
the map at 0.5; `geojson.dump`. WEIGHTS is a state dict of the bundled U-Net. One JSON line, as `benchmarks.engine`.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import geojson
import numpy as np
import shapely
import tiffslide
import torch
from contourpy import FillType, contour_generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.clock import cpu_now, peak_mb, report
from benchmarks.engine import compared, seconds_since_start
from benchmarks.nullnet import BIAS, SIDE, WEIGHTS
from wsi_pipeline.models.unet import read_unet

WINDOW, STRIDE, BATCH = 512, 448, 4
MIN_AREA = 1000.0


class NullNet(nn.Module):
    """`benchmarks.nullnet` in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 2, 1)
        tumour = torch.tensor(WEIGHTS)
        weight = torch.stack([-tumour, tumour]).view(2, 3, 1, 1)
        self.head.load_state_dict({"weight": weight, "bias": torch.tensor([-BIAS, BIAS])})

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 2, H, W)."""
        return functional.interpolate(self.head(functional.avg_pool2d(x, SIDE)), scale_factor=float(SIDE))


class Windows(Dataset[tuple[Tensor, int, int]]):
    """Windows of a slide as float32 (3, 512, 512), with their corners; each worker opens the slide itself."""

    def __init__(self, path: Path, corners: list[tuple[int, int]]) -> None:
        self.path, self.corners = path, corners
        self.slide: Any = None

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        if self.slide is None:
            self.slide = tiffslide.TiffSlide(self.path)
        x, y = self.corners[index]
        image = np.array(self.slide.read_region((x, y), 0, (WINDOW, WINDOW)).convert("RGB"))
        return torch.from_numpy(image).permute(2, 0, 1).float() / 255, x, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    parser.add_argument("--output", type=Path, default=Path("naive.geojson"))
    options = parser.parse_args()
    slide = options.slide.absolute()
    probability = predict(slide, options.weights, options.workers, channels_last=options.channels_last)
    polygons = outlines(probability)
    features = [
        geojson.Feature(
            geometry=polygon.__geo_interface__,
            properties={"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
        )
        for polygon in polygons
    ]
    with options.output.open("w") as file:
        geojson.dump(geojson.FeatureCollection(features), file)
    cpu_s, wall_s, peak = cpu_now(), seconds_since_start(), peak_mb()
    tissue_mpx, scores = compared(slide, polygons)
    report(
        run="naive" + ("-channels-last" if options.channels_last else ""),
        size=max(probability.shape),
        tissue_mpx=tissue_mpx,
        wall_s=wall_s,
        cpu_s=cpu_s,
        cpu_s_per_mpx=cpu_s / tissue_mpx if tissue_mpx else None,
        peak_mb=peak,
        polygons=len(polygons),
        vertices=int(shapely.get_num_coordinates(polygons).sum()),
        holes=int(shapely.get_num_interior_rings(polygons).sum()),
        **scores,
        model="null" if options.weights == "null" else "bench",
    )


def predict(path: Path, weights: str, workers: int, *, channels_last: bool) -> NDArray[np.float32]:
    """Probability of tumour, float32 of the slide's size."""
    with tiffslide.TiffSlide(path) as slide:
        width, height = slide.dimensions
        corners = tissue_windows(slide)
    net = NullNet().eval() if weights == "null" else read_unet(Path(weights))
    if channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    bell = np.exp(-0.5 * ((np.arange(WINDOW) - (WINDOW - 1) / 2) / (WINDOW / 4)) ** 2)
    weight = np.outer(bell, bell).astype(np.float32)
    total, count = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    with torch.inference_mode():
        for images, xs, ys in DataLoader(Windows(path, corners), batch_size=BATCH, num_workers=workers):
            batch = images.contiguous(memory_format=torch.channels_last) if channels_last else images
            tumour = torch.softmax(net(batch), 1)[:, 1].numpy()
            for values, x, y in zip(tumour, xs.tolist(), ys.tolist(), strict=True):
                total[y : y + WINDOW, x : x + WINDOW] += values * weight
                count[y : y + WINDOW, x : x + WINDOW] += weight
    return np.divide(total, np.maximum(count, 1e-6), dtype=np.float32)


def tissue_windows(slide: Any) -> list[tuple[int, int]]:
    """Corners of the windows that touch tissue; the last ones are moved inside."""
    level = slide.level_count - 1
    picture = slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB")
    saturation = np.asarray(picture.convert("HSV"))[..., 1]
    tissue = saturation > otsu(saturation)
    width, height = slide.dimensions
    scale = width / tissue.shape[1]
    corners = []
    for y in starts(height):
        for x in starts(width):
            top, left = int(y / scale), int(x / scale)
            low, right = int(np.ceil((y + WINDOW) / scale)), int(np.ceil((x + WINDOW) / scale))
            if tissue[top:low, left:right].any():
                corners.append((x, y))
    return corners


def starts(length: int) -> list[int]:
    """Where windows begin along a side."""
    count = max(0, -(-(length - WINDOW) // STRIDE)) + 1
    return [min(i * STRIDE, length - WINDOW) for i in range(count)]


def otsu(values: NDArray[np.uint8]) -> int:
    """Otsu's threshold of uint8 values, which keeps the classes' variances least."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below, sums = counts.cumsum(), (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * above)
    return int(np.nanargmax(between))


def outlines(probability: NDArray[np.float32]) -> list[shapely.Polygon]:
    """Polygons with holes where the probability is 0.5 or more, in level-0 px, above 1,000 px²."""
    padded = np.pad(probability, 1)
    filled: Any = contour_generator(z=padded, fill_type=FillType.OuterOffset).filled(0.5, 2.0)
    found = []
    for points, ends in zip(*filled, strict=True):
        rings = [points[a:b] - 0.5 for a, b in pairwise(ends)]
        polygon = shapely.make_valid(shapely.Polygon(rings[0], rings[1:]))
        for part in shapely.get_parts(shapely.get_parts(polygon)):
            if part.geom_type == "Polygon" and part.area >= MIN_AREA:
                found.append(part)
    return found


if __name__ == "__main__":
    main()
