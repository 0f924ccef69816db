"""Crops of the places that the reviewers changed most: the largest pieces added or removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.facts import Run, Slide
from wsi_pipeline.report.gallery import Crop, Shapes, by_change, crops_of
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.thrift import Thrift
from wsi_pipeline.rundir import RunDir

# So many places of one slide at most: one bad slide must not fill the section.
PER_SLIDE = 2
# A piece is shown whole up to so many review tiles wide; of a larger one its middle.
WIDEST_TILES = 4.0
DEFAULT_TILE_UM = 256.0


def changed_tiles(run: Run, folder: RunDir, shapes: Shapes, thrift: Thrift) -> list[Crop]:
    """The largest connected pieces of change, largest first, up to `thrift.crops`."""
    tile_um = known(run.setting("review", "tile_um")) or DEFAULT_TILE_UM
    pieces: list[tuple[float, Slide, str, BaseGeometry]] = []
    # Half as many slides would do if each had two pieces; the others make up for slides with one.
    for slide in by_change(run.reviewed)[: thrift.crops]:
        found = sorted(_pieces(slide, shapes), key=lambda piece: -piece[0])[:PER_SLIDE]
        pieces += [(area, slide, kind, shape) for area, kind, shape in found]
    pieces = sorted(pieces, key=lambda piece: -piece[0])[: thrift.crops]
    rows: dict[str, list[Mapping[str, object]]] = {}
    for rank, (area, slide, kind, shape) in enumerate(pieces, start=1):
        rows.setdefault(slide.slide_id, []).append(_row(slide, rank, kind, area, shape, tile_um))
    slides = {slide.slide_id: slide for slide in run.slides}
    made = [
        crop for slide_id, own in rows.items() for crop in crops_of(run, folder, shapes, slides[slide_id], own, thrift)
    ]
    return sorted(made, key=lambda crop: crop.rank)


def _pieces(slide: Slide, shapes: Shapes) -> Iterator[tuple[float, str, BaseGeometry]]:
    """Connected pieces of what was removed and added, with their area in µm²."""
    changes = shapes.difference(slide)
    if changes is None or slide.mpp is None:
        return
    _, removed, added = changes
    for kind, shape in (("removed", removed), ("added", added)):
        for part in shapely.get_parts(shape):
            if part.area > 0:
                yield part.area * slide.mpp**2, kind, part


def _row(slide: Slide, rank: int, kind: str, area: float, shape: BaseGeometry, tile_um: float) -> dict[str, object]:
    tile = tile_um / (slide.mpp or 1.0)
    left, top, right, bottom = shape.bounds
    side = min(max(right - left, bottom - top, tile), WIDEST_TILES * tile)
    middle = shape.centroid if max(right - left, bottom - top) <= side else shape.representative_point()
    x, y = max(0, round(middle.x - side / 2)), max(0, round(middle.y - side / 2))
    size = round(side)
    return {"x": x, "y": y, "width": size, "height": size, "rank": rank, "reason": f"{fmt.area(area)} {kind}"}
