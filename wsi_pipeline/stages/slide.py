"""What happens to one slide before and after the model: tissue and thumbnail; polygons, tiles, picture, summary."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.errors
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import Config
from wsi_pipeline.errors import StoreError, WsiError
from wsi_pipeline.files import read_json, remove, write_bytes, write_json
from wsi_pipeline.inference import BlockState, PredictionStore, SlideJob
from wsi_pipeline.inference.access import remove_store, store_exists
from wsi_pipeline.inference.slide_work import map_info
from wsi_pipeline.models import ModelCard
from wsi_pipeline.models.ensemble import Passes
from wsi_pipeline.models.gauge import Gauge
from wsi_pipeline.models.macenko import Stains
from wsi_pipeline.objects import PathObject
from wsi_pipeline.qupath.geojson import write_geojson
from wsi_pipeline.raster import fill
from wsi_pipeline.regions import ReviewTile, extract_regions, review_tiles, write_tiles
from wsi_pipeline.regions.strange import with_strangeness
from wsi_pipeline.regions.tiles import RECIPE as TILES_RECIPE
from wsi_pipeline.regions.tracing import Tracer
from wsi_pipeline.rundir import SlideDir
from wsi_pipeline.slides import TissueMask, find_tissue, open_slide, working_downsample
from wsi_pipeline.slides.overview import write_overview
from wsi_pipeline.stages.stains import stains_of
from wsi_pipeline.stages.state import digest
from wsi_pipeline.stages.strange import strange_tiles
from wsi_pipeline.tiling import Bounds

logger = logging.getLogger(__name__)

SUMMARY_SCHEMA = 1

# QuPath shows thumbnails of about this size in its project pane; the report draws on them.
THUMBNAIL_PX = 1024

# Shares beyond these are seldom the truth; such a slide is handed out with a flag.
MOSTLY_PREDICTED = 0.95
ON_GLASS = 0.05
LITTLE_TISSUE_MM2 = 0.05


@dataclass(frozen=True, slots=True)
class PreparedSlide:
    """A slide that was opened and looked at once, at low resolution.

    `downsample` is level-0 px to a pixel of the working level, `content` is `Slide.fingerprint`, `file_bytes` the
    length of a local file.
    """

    ref: SlideRef
    size: tuple[int, int]
    mpp: float
    mpp_source: str
    reader: str
    downsample: float
    tissue: TissueMask
    key: str
    stains: Stains | None = None
    content: str | None = None
    file_bytes: int | None = None

    def job(self, store: Path | str) -> SlideJob:
        """What the engine is asked for; `store` is where its maps lie."""
        return SlideJob(
            ref=self.ref,
            store=store,
            size=self.size,
            mpp=self.mpp,
            downsample=self.downsample,
            tissue=self.tissue,
            stains=self.stains,
            content=self.content,
        )


def prepare_slide(ref: SlideRef, config: Config, card: ModelCard, run_id: str, folder: SlideDir) -> PreparedSlide:
    """Open the slide, find its tissue, and leave tissue mask and thumbnail in its folder.

    Raises
    ------
    SlideError
        It cannot be opened, states no plausible mpp, or is too coarse for the model.
    StoreError
        The folder cannot be written.
    """
    mpp = config.inference.mpp or card.mpp
    with open_slide(ref, needed_mpp=mpp) as slide:
        content = slide.fingerprint()
        tissue = find_tissue(slide, config.tissue)
        thumbnail = slide.thumbnail(THUMBNAIL_PX)
        prepared = PreparedSlide(
            ref=ref,
            size=slide.size,
            mpp=slide.mpp,
            mpp_source=slide.mpp_source,
            reader=slide.reader,
            downsample=working_downsample(slide, mpp),
            tissue=tissue,
            key=slide_key(run_id, ref.slide_id, slide.size, slide.mpp),
            stains=stains_of(slide, tissue) if card.preprocessing == "macenko" else None,
            content=content,
            file_bytes=_file_bytes(ref),
        )
        slide.check_unchanged()
    tissue.save(folder.tissue)
    _write_jpeg(folder, thumbnail)
    return prepared


def slide_key(run_id: str, slide_id: str, size: tuple[int, int], mpp: float) -> str:
    """What a slide's results depend on, as 16 hex digits: recipe, id, size and resolution."""
    return digest({"run": run_id, "slide": slide_id, "size": list(size), "mpp": mpp})


def tiles_key(config: Config) -> str:
    """What the review tiles depend on beside the recipe; they may change without a new run id."""
    names = ("tile_um", "max_tiles", "audit_tiles")
    return digest({"recipe": TILES_RECIPE, **{name: getattr(config.review, name) for name in names}})


def is_done(folder: SlideDir, ref: SlideRef, config: Config, run_id: str) -> bool:
    """Whether the slide's results are there, whole, made by this recipe at the mpp that is stated now, of this file.

    That a file is another one is seen by its length, and on local paths only: it costs nothing there.
    """
    files = (folder.summary, folder.regions, folder.tiles, folder.overview, folder.thumbnail, folder.tissue)
    if not all(file.exists() for file in files):
        return False
    try:
        summary = read_json(folder.summary)
        same = summary["run_id"] == run_id and ref.mpp in (None, summary["mpp"])
        same = same and summary["tiles_key"] == tiles_key(config)
        # Not in summaries from before; and a slide that is gone stays done.
        before, now = summary.get("file_bytes"), _file_bytes(ref)
        same = same and (before is None or now is None or before == now)
        return bool(same and not summary["blocks"]["failed"])
    except (StoreError, KeyError, TypeError):
        return False


def _file_bytes(ref: SlideRef) -> int | None:
    try:
        return Path(ref.uri).stat().st_size if ref.is_local else None
    except OSError:
        return None


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
    try:
        return _finish(prepared, store, tracer, config, card, run_id, folder, gauge)
    except (shapely.errors.ShapelyError, ArithmeticError, MemoryError, ValueError, OSError) as error:
        if isinstance(error, WsiError):
            raise
        raise StoreError(f"{prepared.ref.slide_id}: its regions cannot be made: {error}") from error


def _finish(
    prepared: PreparedSlide,
    store: PredictionStore,
    tracer: Tracer,
    config: Config,
    card: ModelCard,
    run_id: str,
    folder: SlideDir,
    gauge: Gauge | None,
) -> dict[str, Any]:
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
    for name, area in area_mm2.items():
        if area > MOSTLY_PREDICTED * tissue_mm2:
            found.append(f"{area / tissue_mm2:.0%} of the tissue predicted {name}".replace("%", " %"))
    total = sum(area_mm2.values())
    if total > 0:
        off = 1 - on_tissue(prepared.tissue, regions) / (total * 1e6 / prepared.mpp**2)
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


def forget_summary(folder: SlideDir) -> None:
    """From here on the slide counts as not done, until `finish_slide` has written everything anew."""
    remove(folder.summary)


def forget_other_maps(
    place: Path | str, prepared: PreparedSlide, card: ModelCard, passes: Passes | None = None
) -> None:
    """Remove the maps that another file, model, resolution or tissue mask left; they cannot be gone on with."""
    if not store_exists(place):
        return
    try:
        info = PredictionStore.open(place).info
        cells = prepared.tissue.cells(card.cell, prepared.downsample, prepared.size)
        wanted = map_info(prepared.job(place), card, info.block * card.output_downsample, cells, passes)
        same = not info.differences(wanted)
    except StoreError:
        same = False
    if not same:
        logger.warning("%s: maps of another file, model or other settings are made anew", prepared.ref.slide_id)
        remove_store(place)


def _write_jpeg(folder: SlideDir, pixels: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    write_bytes(folder.thumbnail, buffer.getvalue())
