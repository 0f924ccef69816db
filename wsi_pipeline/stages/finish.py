"""What happens to one slide after the model: polygons, tiles, picture, summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import shapely
import shapely.errors
from numpy.typing import NDArray

from wsi_pipeline.config import Config
from wsi_pipeline.errors import StoreError, WsiError
from wsi_pipeline.files import write_json
from wsi_pipeline.inference import BlockState, PredictionStore
from wsi_pipeline.models import ModelCard
from wsi_pipeline.models.gauge import Gauge
from wsi_pipeline.objects import PathObject
from wsi_pipeline.qupath.geojson import write_geojson
from wsi_pipeline.raster import fill
from wsi_pipeline.regions import ReviewTile, extract_regions, review_tiles, write_tiles
from wsi_pipeline.regions.strange import with_strangeness
from wsi_pipeline.regions.tracing import Tracer
from wsi_pipeline.rundir import SlideDir
from wsi_pipeline.slides import TissueMask, open_slide
from wsi_pipeline.slides.overview import write_overview
from wsi_pipeline.stages.slide import PreparedSlide, tiles_key
from wsi_pipeline.stages.strange import strange_tiles
from wsi_pipeline.tiling import Bounds

SUMMARY_SCHEMA = 1

# Shares beyond these are seldom the truth; such a slide is handed out with a flag.
MOSTLY_PREDICTED = 0.95
ON_GLASS = 0.05
LITTLE_TISSUE_MM2 = 0.05


def finish_slide(
    prepared: PreparedSlide,
    store: PredictionStore,
    tracer: Tracer,
    config: Config,
    card: ModelCard,
    run_id: str,
    folder: SlideDir,
    gauge: Gauge | None = None,
) -> dict[str, Any]:
    """Polygons, review tiles, overview and summary of a slide whose map is there; returns the summary.

    `tracer` is of `regions.tracer_of`: what it has not traced yet is traced now. `gauge` is of the model, where its
    card has statistics of features.

    Raises
    ------
    SlideError, StoreError
        The slide, its map or its folder cannot be used, or its polygons defeat the geometry library.
    """
    with _one_error(prepared.ref.slide_id):
        slide_id = prepared.ref.slide_id
        names = [spec.name for spec in card.foreground]
        regions = extract_regions(
            store,
            names,
            config.regions,
            mpp=prepared.mpp,
            run_id=run_id,
            slide_id=slide_id,
            model_id=card.model_id,
            tracer=tracer,
        )
        strangeness = None
        if card.appearance is not None or gauge is not None:
            with open_slide(prepared.ref, content=prepared.content) as slide:
                strangeness = strange_tiles(
                    slide,
                    prepared.tissue,
                    card,
                    gauge,
                    config.review,
                    downsample=prepared.downsample,
                    map_downsample=store.downsample,
                )
        tiles = review_tiles(
            store,
            prepared.tissue,
            names,
            config.review,
            threshold=config.regions.threshold,
            mpp=prepared.mpp,
            slide_id=slide_id,
            exclusive=card.activation == "softmax",
            strangeness=strangeness,
        )
        regions = with_strangeness(regions, tiles)
        write_geojson(folder.regions, regions, card.colors)
        write_tiles(folder.tiles, tiles)
        with open_slide(prepared.ref, content=prepared.content) as slide:
            write_overview(folder.overview, slide, prepared.tissue, regions, card.colors)
        summary = summarise(prepared, store.blocks, regions, tiles, names, run_id)
        summary["tiles_key"] = tiles_key(config)
        write_json(folder.summary, summary)
        return summary


@contextmanager
def _one_error(slide_id: str) -> Iterator[None]:
    try:
        yield
    except (shapely.errors.ShapelyError, ArithmeticError, MemoryError, ValueError, OSError) as error:
        if isinstance(error, WsiError):
            raise
        raise StoreError(f"{slide_id}: its regions cannot be made: {error}") from error


def summarise(
    prepared: PreparedSlide,
    blocks: NDArray[np.uint8],
    regions: Sequence[PathObject],
    tiles: Sequence[ReviewTile],
    classes: Sequence[str],
    run_id: str,
) -> dict[str, Any]:
    """The slide in figures: areas in mm², counts, and flags in plain words."""
    tissue_mm2 = prepared.tissue.area_um2(prepared.mpp) / 1e6
    area = dict.fromkeys(classes, 0.0)
    for region in regions:
        area[region.path_class or ""] += region.measurements["Area µm^2"] / 1e6
    counts = Counter(int(v) for v in blocks.ravel())
    failed = counts[BlockState.FAILED]
    return {
        "schema": SUMMARY_SCHEMA,
        "run_id": run_id,
        "key": prepared.key,
        "slide_id": prepared.ref.slide_id,
        "width": prepared.size[0],
        "height": prepared.size[1],
        "file_bytes": prepared.file_bytes,
        "mpp": prepared.mpp,
        "downsample": prepared.downsample,
        "tissue_mm2": round(tissue_mm2, 4),
        "regions": len(regions),
        "vertices": int(sum(shapely.get_num_coordinates(r.geometry) for r in regions)),
        "area_mm2": {name: round(area[name], 4) for name in classes},
        "blocks": {
            "done": counts[BlockState.DONE],
            "background": counts[BlockState.BACKGROUND],
            "failed": failed,
        },
        "tiles_flagged": sum(tile.flagged for tile in tiles),
        "flags": flags(prepared, regions, area, tissue_mm2, failed, int(blocks.size)),
    }


def flags(
    prepared: PreparedSlide,
    regions: Sequence[PathObject],
    area_mm2: Mapping[str, float],
    tissue_mm2: float,
    failed: int,
    blocks: int,
) -> list[str]:
    """What a person should know before trusting this slide's predictions."""
    found = []
    if failed:
        found.append(f"{failed} of {blocks} blocks could not be read or computed: no prediction there")
    if tissue_mm2 < LITTLE_TISSUE_MM2:
        found.append(f"hardly any tissue found ({tissue_mm2:.3f} mm²)")
        return found
    # A region may reach onto glass: what lies there is no share of the tissue.
    within = {
        name: on_tissue(prepared.tissue, [r for r in regions if r.path_class == name]) * prepared.mpp**2 / 1e6
        for name in area_mm2
    }
    for name, area in within.items():
        if area > MOSTLY_PREDICTED * tissue_mm2:
            found.append(f"{area / tissue_mm2:.0%} of the tissue predicted {name}".replace("%", " %"))
    total = sum(area_mm2.values())
    if total > 0:
        off = 1 - sum(within.values()) / total
        if off > ON_GLASS:
            found.append(f"{off:.0%} of the predicted area lies outside of the tissue".replace("%", " %"))
    return found


def on_tissue(tissue: TissueMask, regions: Sequence[PathObject]) -> float:
    """Area (level-0 px²) of the regions that lies on tissue, counted on the tissue mask's grid."""
    height, width = tissue.mask.shape
    whole = Bounds(0, 0, width, height)
    pixels = 0
    for region in regions:
        if region.geometry is None:
            continue
        x, y, right, bottom = region.geometry.bounds
        d = tissue.downsample
        box = Bounds(int(x / d), int(y / d), int(right / d) + 1, int(bottom / d) + 1).within(whole)
        pixels += int((fill(region.geometry, box, d) & tissue.mask[box.y : box.bottom, box.x : box.right]).sum())
    return pixels * tissue.downsample**2
