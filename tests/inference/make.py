"""Slides, models and jobs for the engine's tests; real files, real models, no cluster where none is needed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from tests.slides.make import texture, write_slide
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.inference import registry
from wsi_pipeline.inference.registry import ModelSpec
from wsi_pipeline.inference.slide_work import SlideJob, SlideResult, SlideWork
from wsi_pipeline.inference.store import PredictionStore
from wsi_pipeline.inference.work import BlockRun, run_blocks
from wsi_pipeline.models import ClassSpec, ModelCard, Segmenter, load_card
from wsi_pipeline.models.ensemble import Passes
from wsi_pipeline.slides import Slide, TissueMask, open_slide, working_downsample
from wsi_pipeline.tiling import Bounds, working_size

# Integers all the way: equal to the last bit however the slide is cut. The halo is 8 px at this resolution.
BASELINE = "baseline:stain-density?mpp=0.5&radius_um=2"


def make_slide(path: Path, width: int, height: int, *, seed: int = 0, mpp: float = 0.5, tile: int = 256) -> SlideRef:
    """A JPEG pyramid of coloured noise."""
    write_slide(path, texture(height, width, seed), mpp=mpp, tile=tile, levels=2)
    return SlideRef(slide_id=path.stem, uri=str(path), name=path.name)


def make_unet(folder: Path, classes: int = 3, *, dropout: float = 0.0, **card_keys: object) -> str:
    """A U-Net with random weights that uses much of the range of probabilities."""
    # Here, so that what needs no network starts without torch.
    import torch

    from wsi_pipeline.models.unet import UNet, save_model

    torch.manual_seed(classes)
    net = UNet(channels=4, classes=classes, dropout=dropout).eval()
    image = torch.from_numpy(texture(256, 256)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        if dropout:
            # Random weights leave hardly a signal in the deep stages, where the dropout is.
            net.train()(image.repeat(2, 1, 1, 1))
            for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
                norm.momentum = 1.0
            net(image.repeat(2, 1, 1, 1))
            net.eval()
        logits = net(image)
        spread = 4 / logits.std((0, 2, 3))
        net.head.weight *= spread.view(-1, 1, 1, 1)
        net.head.bias.copy_((net.head.bias - logits.mean((0, 2, 3))) * spread)  # type: ignore[union-attr]
    names = ["Background", "Tumor", "Stroma", "Necrosis"][:classes]
    specs = tuple(ClassSpec(name=n, color=(9 * i, 0, 0), background=i == 0) for i, n in enumerate(names))
    card = ModelCard.model_validate(
        {"name": "random", "architecture": "unet", "mpp": 0.5, "classes": specs, **card_keys}
    )
    save_model(folder, net, card)
    return str(folder)


def speckled(slide: Slide, seed: int, share: float = 0.5) -> TissueMask:
    """Tissue here and there: a coarse random mask over the slide."""
    rng = np.random.default_rng(seed)
    side = 64
    shape = (-(-slide.size[1] // side), -(-slide.size[0] // side))
    return TissueMask(rng.random(shape) < share, float(side))


def everywhere(size: tuple[int, int]) -> TissueMask:
    return TissueMask(np.ones((1, 1), bool), float(max(size)))


def make_job(
    ref: SlideRef, store: Path, *, mpp: float = 0.5, tissue: TissueMask | None = None, bound: bool = False
) -> SlideJob:
    """`bound`: to the file as it is now."""
    with open_slide(ref) as slide:
        downsample = working_downsample(slide, mpp)
        content = slide.fingerprint() if bound else None
        return SlideJob(
            ref, store, slide.size, slide.mpp, downsample, tissue or everywhere(slide.size), content=content
        )


def predict_here(
    job: SlideJob,
    model: str,
    *,
    block: int,
    window: int,
    runs: Sequence[int] = (3,),
    runtime: str = "torch",
    device: str = "cpu",
    passes: Passes | None = None,
    threads: int = 1,
) -> SlideResult:
    """What the engine does, in this thread and without a cluster: runs of the given lengths, over and over."""
    card = load_card(model)
    cell = card.cell
    spec = ModelSpec(model, device, "numpy" if model.startswith("baseline:") else runtime, "fp32", threads)
    session = uuid.uuid4().hex
    work = SlideWork.start(job, card, block=-(-block // cell) * cell, retries=0, passes=passes)
    lengths = cycled(runs)
    window = card.window if card.fixed_window else window
    while work.waiting:
        blocks = work.take(next(lengths))
        run = BlockRun(
            session, job.ref, work.store.path, job.downsample, spec, cell, window, blocks, job.stains, passes
        )
        outcome = run_blocks(run)
        work.came_back()
        work.settle(outcome)
    registry.forget(session)
    return work.result()


def cycled(values: Sequence[int]) -> Iterator[int]:
    while True:
        yield from values


def whole_map(job: SlideJob, segmenter: Segmenter) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The map by definition: the whole slide in one window with its halo, and 0 outside of the tissue's cells."""
    card = segmenter.card
    factor = card.output_downsample
    cell = card.cell
    width, height = (-(-side // card.stride) * card.stride for side in working_size(job.size, job.downsample))
    with open_slide(job.ref) as slide:
        image = slide.read(Bounds(0, 0, width, height).grown(card.halo), job.downsample)
    maps = segmenter.predict(image[None])
    halo = card.halo // factor
    map_width, map_height = working_size(job.size, job.downsample * factor)
    inner = (slice(halo, halo + map_height), slice(halo, halo + map_width))
    cells = job.tissue.cells(cell, job.downsample, job.size)
    side = cell // factor
    mask = cells.repeat(side, 0).repeat(side, 1)[:map_height, :map_width]
    return maps.probability[0][:, *inner] * mask, maps.uncertainty[0][inner] * mask


def maps_of(store: PredictionStore) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All of a store."""
    classes, height, width = store.shape
    whole = Bounds(0, 0, width, height)
    return np.stack([store.read(channel, whole) for channel in range(classes)]), store.uncertainty(whole)


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, with the hash of its bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def damage_tile(path: Path, *, x: int, y: int) -> bytes:
    """Destroy the JPEG tile of level 0 that holds pixel (x, y); returns the file as it was."""
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        page = tiff.series[0].levels[0].keyframe
        index = y // page.tilelength * -(-page.imagewidth // page.tilewidth) + x // page.tilewidth
        offset, count = page.dataoffsets[index], page.databytecounts[index]
    path.write_bytes(whole[:offset] + bytes(count) + whole[offset + count :])
    return whole
