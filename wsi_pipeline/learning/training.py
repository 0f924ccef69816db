"""Training the bundled U-Net on tiles: from nothing, or from a model that exists. Step-limited and seeded."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.errors import ModelError
from wsi_pipeline.learning.augment import Augmentation
from wsi_pipeline.learning.calibrate import Calibration, calibrate, gather, write_calibration
from wsi_pipeline.learning.familiar import familiar_of
from wsi_pipeline.learning.labels import UNKNOWN, background_of
from wsi_pipeline.learning.samples import Crops, Tile
from wsi_pipeline.learning.unseen import HeldOut, unseen_tiles
from wsi_pipeline.models.card import ClassSpec, ModelCard, Provenance
from wsi_pipeline.models.load import checked_weights, load_card
from wsi_pipeline.models.structure import write_structure
from wsi_pipeline.models.torch_runtime import channels_last
from wsi_pipeline.models.unet import HALO, STRIDE, UNet, read_unet, save_model
from wsi_pipeline.states import Source

_log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
"""Called after each step with steps done, steps in all, and the loss."""

FINE_TUNING: Final = 0.3
"""Share of the learning rate that remains where a trained model is the beginning.

With the whole rate and 80 steps, held-out Dice fell by up to 0.15; with this share it changed by 0.00 to +0.05.
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; the defaults did best on held-out tissue for the CPU time of the demo.

    Twelve or thirteen CAMELYON tiles of 256 px at 1 µm/px to learn from, the others held out by number, three
    folds, two seeds, 150 steps: Dice 0.83 ("everything is tumour" 0.69). A rate of 1e-3 or 1.2e-2, a Dice loss,
    label smoothing, half the width or crops of 128 px did worse or cost more. Without the stain jitter one fold of
    six broke down to 0.66. The defaults were chosen on these same folds: expect less elsewhere.

    Attributes
    ----------
    crop, batch
        Side of a crop in pixels at the model's mpp, and crops to a step.
    channels
        Width of the network; ignored where a model is the beginning.
    dropout
        Of the network, see `UNet`; ignored likewise.
    rate
        Highest learning rate of the one-cycle schedule (Smith 2018), for AdamW.
    dice
        Weight of the soft Dice loss beside cross-entropy.
    smoothing
        Label smoothing: outlines are not exact to the pixel.
    replay
        Share of a batch that comes from old tiles, when fine-tuning and where there are such.
    """

    crop: int = 96
    batch: int = 8
    channels: int = 16
    dropout: float = 0.0
    rate: float = 6e-3
    decay: float = 1e-2
    dice: float = 0.0
    smoothing: float = 0.0
    replay: float = 0.5
    augmentation: Augmentation = field(default_factory=Augmentation)


def train(
    samples: Sequence[Tile],
    *,
    out: Path,
    steps: int,
    mpp: float,
    classes: Sequence[ClassSpec],
    name: str = "unet",
    crop: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    init: Path | None = None,
    replay: Sequence[Tile] = (),
    held_out: Sequence[Tile] = (),
    threads: int | None = None,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> ModelCard:
    """Train a U-Net and write it to the folder `out`.

    The same tiles, seed, threads and versions give the same weights.

    Parameters
    ----------
    samples
        Tiles to learn from, at `mpp`, labels in the order of `classes`.
    steps
        Training stops after so many, whatever the clock says.
    crop, batch
        Instead of the recipe's.
    init
        Folder of a model to go on from; it must have the same classes and mpp.
    replay
        Old tiles, mixed in when fine-tuning so that what was learned stays.
    held_out
        Tiles of other patients, to fit the temperature on; without them it stays 1, and the card says so. Those of
        slides or patients that these samples or the parent were trained on are left out, with a warning.
    threads
        Of torch, for this call; None leaves them.

    Returns
    -------
    The card as written.

    Raises
    ------
    ModelError
        Nothing to learn from, tiles smaller than a crop, another model's classes or mpp, or a loss that is no
        number any more.
    """
    recipe = recipe or Recipe()
    recipe = replace(recipe, crop=crop or recipe.crop, batch=batch or recipe.batch)
    background_of(classes)
    _check(samples, recipe.crop, steps)
    parent = None if init is None else _parent(init, classes, mpp)
    with _torch_settings(threads, seed):
        if init is None or parent is None:
            net = UNet(recipe.channels, len(classes), recipe.dropout)
        else:
            net = read_unet(_weights(init), dropout=float(parent.architecture_args.get("dropout", 0)))
        channels_last(net)
        loss = _fit(net, samples, replay, steps, len(classes), seed, recipe, init is not None, progress)
        seen = [*samples, *replay]
        unseen = unseen_tiles(held_out, seen, parent)
        if unseen.seen:
            _log.warning("not held out, since the model learned from them: %s", ", ".join(unseen.seen))
        calibration = _calibrate(net, unseen.tiles, [spec.name for spec in classes])
        before = None if parent is None else parent.appearance
        familiar = familiar_of(seen, net, before=before, held_out=unseen.tiles)
    card = ModelCard(
        name=name,
        architecture="unet",
        mpp=mpp,
        window=512,
        halo=HALO,
        stride=STRIDE,
        classes=tuple(classes),
        temperature=calibration.temperature if calibration else 1.0,
        trained_on=_provenance(seen, parent, steps, seed, loss, calibration, familiar.figures),
        appearance=familiar.appearance,
        structure=write_structure(out, familiar.structure),
        notes=_notes(calibration, unseen),
    )
    saved = save_model(out, net, card)
    write_calibration(out, saved, calibration, unseen.tiles)
    return saved


def _check(samples: Sequence[Tile], crop: int, steps: int) -> None:
    if not samples or not any((tile.labels != UNKNOWN).any() for tile in samples):
        raise ModelError("there is nothing to learn from: no tile with tissue that was reviewed")
    shortest = min(min(tile.labels.shape) for tile in samples)
    if crop > shortest or crop % STRIDE:
        raise ModelError(f"a crop of {crop} px must be a multiple of {STRIDE} and fit into tiles of {shortest} px")
    if steps < 1:
        raise ModelError(f"{steps} training steps are none")


def _parent(init: Path, classes: Sequence[ClassSpec], mpp: float) -> ModelCard:
    card = load_card(init)
    if card.architecture != "unet":
        raise ModelError(f"model {init}: a {card.name} cannot be trained further")
    names, wanted = [spec.name for spec in card.classes], [spec.name for spec in classes]
    if names != wanted or not math.isclose(card.mpp, mpp, rel_tol=1e-6):
        raise ModelError(
            f"model {init} has the classes {', '.join(names)} at {card.mpp:g} µm/px, "
            f"not {', '.join(wanted)} at {mpp:g}; train from nothing, or with its classes and mpp"
        )
    return card


def _weights(init: Path) -> Path:
    return checked_weights(load_card(init), init)


@contextmanager
def _torch_settings(threads: int | None, seed: int) -> Iterator[None]:
    """Threads and seed for this call; torch's own are as before afterwards."""
    before, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        torch.manual_seed(seed)
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(state)


def _fit(
    net: UNet,
    samples: Sequence[Tile],
    replay: Sequence[Tile],
    steps: int,
    classes: int,
    seed: int,
    recipe: Recipe,
    further: bool,
    progress: Progress | None,
) -> float:
    """Train in place; returns the mean loss of the last tenth of the steps."""
    rate = recipe.rate * (FINE_TUNING if further else 1)
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(2, steps))
    batches = _batches(samples, replay, classes, seed, recipe)
    net.train()
    losses = []
    for step in range(1, steps + 1):
        images, labels = next(batches)
        loss = _loss(net(images), labels, recipe)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(f"the loss is no number after {step} steps; use a lower learning rate than {rate:g}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(value)
        if progress is not None:
            progress(step, steps, value)
    net.eval()
    return float(np.mean(losses[-max(1, steps // 10) :]))


def _batches(
    samples: Sequence[Tile], replay: Sequence[Tile], classes: int, seed: int, recipe: Recipe
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images float32 (batch, 3, crop, crop) in 0..1 and labels int64 (batch, crop, crop), for ever."""
    old = round(recipe.batch * recipe.replay) if replay else 0
    shares = [(samples, recipe.batch - old, seed), (replay, old, seed + 1)]
    streams = [
        (Crops(tiles, crop=recipe.crop, classes=classes, augmentation=recipe.augmentation, seed=own), count)
        for tiles, count, own in shares
        if count
    ]
    while True:
        parts = [stream.batch(count) for stream, count in streams]
        images = torch.from_numpy(np.concatenate([images for images, _ in parts]))
        labels = torch.from_numpy(np.concatenate([labels for _, labels in parts]))
        yield images.permute(0, 3, 1, 2).float() / 255, labels.long()


def _loss(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    loss = functional.cross_entropy(logits, labels, ignore_index=UNKNOWN, label_smoothing=recipe.smoothing)
    return loss + recipe.dice * _soft_dice(logits, labels) if recipe.dice else loss


def _soft_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the mean soft Dice of the classes over the batch's known pixels (Milletari et al. 2016)."""
    known = (labels != UNKNOWN).unsqueeze(1)
    p = torch.softmax(logits, 1) * known
    there = functional.one_hot(labels.clamp_max(logits.shape[1] - 1), logits.shape[1]).movedim(-1, 1) * known
    both, sums = (p * there).sum((0, 2, 3)), (p + there).sum((0, 2, 3))
    return 1 - ((2 * both + 1) / (sums + 1)).mean()


def _calibrate(net: nn.Module, held_out: Sequence[Tile], classes: Sequence[str]) -> Calibration | None:
    """Temperature from tiles whose patients were not trained on; None without such."""
    if not any((tile.labels != UNKNOWN).any() for tile in held_out):
        return None
    logits = [tile_logits(net, tile) for tile in held_out]
    labels, groups = [tile.labels for tile in held_out], [tile.group for tile in held_out]
    return calibrate(gather(logits, labels, groups, unknown=UNKNOWN), classes)


def tile_logits(net: nn.Module, tile: Tile) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    """Logits float32 (K, side, side) of a tile, mirrored at its edges to the length of the halo."""
    margin = ((HALO, HALO), (HALO, HALO), (0, 0))
    image = torch.from_numpy(np.pad(tile.image, margin, mode="symmetric"))
    with torch.inference_mode():
        logits = net(image.permute(2, 0, 1)[None].float() / 255)[0]
    values: np.ndarray[tuple[int, int, int], np.dtype[np.float32]] = logits[:, HALO:-HALO, HALO:-HALO].numpy()
    return values


def _provenance(
    tiles: Sequence[Tile],
    parent: ModelCard | None,
    steps: int,
    seed: int,
    loss: float,
    calibration: Calibration | None,
    more: dict[str, float],
) -> Provenance:
    before = Provenance() if parent is None else parent.trained_on
    slides = {tile.slide_id for tile in tiles} | set(before.slides)
    patients = {tile.group for tile in tiles if tile.group != tile.slide_id} | set(before.patients)
    simulated = any(tile.source is Source.SIMULATED for tile in tiles) or before.source == Source.SIMULATED
    figures = {"loss": round(loss, 4), **more}
    if calibration is not None:
        figures |= {
            "ece_before": round(calibration.ece_before, 4),
            "ece_after": round(calibration.ece_after, 4),
            "nll_before": round(calibration.nll_before, 4),
            "nll_after": round(calibration.nll_after, 4),
            "calibration_groups": float(calibration.groups),
            **{f"ece of {found.name}": round(found.ece, 4) for found in calibration.reliability},
        }
    return Provenance(
        slides=tuple(sorted(slides)),
        patients=tuple(sorted(patients)),
        parent=None if parent is None else parent.model_id,
        steps=steps,
        seed=seed,
        source=str(Source.SIMULATED if simulated else Source.MEASURED),
        figures=figures,
    )


def _notes(calibration: Calibration | None, held_out: HeldOut) -> str:
    if calibration is None and held_out.seen:
        return "Temperature not fitted: the model or its parent learned from all held-out slides."
    if calibration is None:
        return "Temperature not fitted: no held-out slides were given."
    fitted = f"Temperature fitted on {calibration.groups} held-out patients or slides"
    if calibration.cross_fitted:
        return f"{fitted}; its ECE was measured on each of them with a temperature of the others."
    return f"{fitted}; its ECE there is optimistic."
