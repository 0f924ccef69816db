"""What is really in a made slide: polygons in level-0 px, and the same as a mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import RGB, Kind, PathObject, object_uuid
from wsi_pipeline.qupath.geojson import write_geojson
from wsi_pipeline.qupath.geojson_reading import read_geojson
from wsi_pipeline.raster import fill
from wsi_pipeline.tiling import Bounds, working_size

TUMOUR_CLASS = "Tumor"
TISSUE_CLASS = "Tissue"
COLORS: dict[str, RGB] = {TUMOUR_CLASS: (200, 0, 0), TISSUE_CLASS: (90, 160, 90)}


@dataclass(frozen=True, slots=True)
class Truth:
    """Tissue and tumour of a slide that was made, not scanned.

    Attributes
    ----------
    size
        Width and height in level-0 px.
    mpp
        µm per level-0 px.
    tissue, tumour
        Polygons and multipolygons, valid, possibly empty; the tumour lies in the tissue.
    """

    size: tuple[int, int]
    mpp: float
    tissue: BaseGeometry
    tumour: BaseGeometry

    def objects(self, class_name: str = TUMOUR_CLASS, *, slide_id: str = "synthetic") -> list[PathObject]:
        """One annotation per tumour polygon, largest first."""
        return _annotations(self.tumour, class_name, slide_id)

    def mask(self, what: Literal["tissue", "tumour"], downsample: float = 16.0) -> NDArray[np.bool_]:
        """bool (rows, columns): the pixels of a low-resolution picture whose centre lies inside."""
        width, height = working_size(self.size, downsample)
        return fill(self.tissue if what == "tissue" else self.tumour, Bounds(0, 0, width, height), downsample)

    def save(self, path: Path, *, slide_id: str) -> None:
        """Write both as a GeoJSON that QuPath opens (classes `Tissue` and `Tumor`)."""
        tissue = _annotations(self.tissue, TISSUE_CLASS, slide_id)
        write_geojson(path, tissue + self.objects(slide_id=slide_id), COLORS)


def read_truth(path: Path, *, size: tuple[int, int], mpp: float) -> Truth:
    """Read what `Truth.save` wrote."""
    regions: dict[str, list[BaseGeometry]] = {TISSUE_CLASS: [], TUMOUR_CLASS: []}
    for item in read_geojson(path):
        if item.path_class in regions and item.geometry is not None:
            regions[item.path_class].append(item.geometry)
    tissue, tumour = (shapely.union_all(regions[name]) for name in (TISSUE_CLASS, TUMOUR_CLASS))
    return Truth(size, mpp, tissue, tumour)


def _annotations(region: BaseGeometry, class_name: str, slide_id: str) -> list[PathObject]:
    polygons = [part for part in shapely.get_parts(region) if part.area > 0]
    polygons.sort(key=lambda part: (-part.area, part.bounds))
    return [
        PathObject(object_uuid("truth", slide_id, class_name, part), Kind.ANNOTATION, part, class_name)
        for part in polygons
    ]
