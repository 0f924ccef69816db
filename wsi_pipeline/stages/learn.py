"""Training on what pathologists corrected, and the comparison with the model that they corrected."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort import load_cohort
from wsi_pipeline.config import Config
from wsi_pipeline.errors import ConfigError, StoreError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.learning import AnnotatedSlide, Decision, decide, evaluate, tiles_of, train
from wsi_pipeline.models import ClassSpec, ModelCard, load_card, load_segmenter
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.spent import TRAIN, Meter
from wsi_pipeline.stages.lock import exclusive
from wsi_pipeline.stages.predict import model_path_of
from wsi_pipeline.states import Source

logger = logging.getLogger(__name__)

# One patient in four; see `held_out_groups`.
HELD_OUT_SHARE = 0.25
BACKGROUND = ClassSpec(name="Background", color=(200, 200, 200), background=True)


@dataclass(frozen=True, slots=True)
class Split:
    """Reviewed slides, by what they may be used for; no patient is on both sides.

    `missing` are reviewed slides that the cohort does not hold any more, or whose files are gone.
    """

    train: tuple[AnnotatedSlide, ...]
    held_out: tuple[AnnotatedSlide, ...]
    missing: tuple[str, ...] = ()

    def nothing(self, text: str) -> ConfigError:
        """The error for a side that is empty."""
        if self.missing:
            text += (
                f"; {len(self.missing)} reviewed slides are missing: `wsi-pipeline slides` says where they should be"
            )
        return ConfigError(f"learning: {text}")


def corrected_slides(config: Config) -> Split:
    """The slides that a person has reviewed, with their corrected annotations, split by patient.

    Raises
    ------
    StoreError
        Nothing was collected yet.
    """
    run = RunDir(config.output)
    if not run.metrics.exists():
        raise StoreError(f"there are no corrections in {run.review}; run `wsi-pipeline collect` first")
    metrics = read_json(run.metrics)
    refs = {ref.slide_id: ref for ref in load_cohort(config).slides}
    slides, missing = [], []
    for slide_id, facts in sorted(metrics["slides"].items()):
        if facts.get("planted") is not None:
            # What a study planted is no lesson, even where it was repaired.
            continue
        path = run.review / "corrected" / f"{slide_id}.geojson"
        if not facts["reviewed"] or not path.exists():
            continue
        if slide_id not in refs:
            logger.warning(
                "%s was reviewed and is left out: the cohort does not hold it any more, or its file is gone", slide_id
            )
            missing.append(slide_id)
            continue
        slides.append(AnnotatedSlide(refs[slide_id], tuple(read_geojson(path)), source=Source(metrics["source"])))
    held_out = held_out_groups(slides, config.learning.held_out)
    return Split(
        train=tuple(slide for slide in slides if slide.group not in held_out),
        held_out=tuple(slide for slide in slides if slide.group in held_out),
        missing=tuple(missing),
    )


def held_out_groups(slides: Sequence[AnnotatedSlide], named: Sequence[str]) -> set[str]:
    """The patients that are kept for judging models: those named, or of whom a slide is named, with all their slides.

    Without names it is one patient in four by a hash, so that the choice stays when the cohort grows.
    """
    if named:
        return {slide.group for slide in slides if slide.group in named or slide.ref.slide_id in named}
    return {slide.group for slide in slides if hashlib.sha256(slide.group.encode()).digest()[0] < 256 * HELD_OUT_SHARE}


def learned_model(run: RunDir, name: str) -> Path:
    """Where `train` puts a model."""
    return run.root / "learning" / "models" / name


def train_on_corrections(config: Config, progress: Callable[[int, int, float], None] | None = None) -> ModelCard:
    """Train on the reviewed slides that are not held out, going on from the configured model when it can learn.

    Held-out patients give the temperature, one number; nothing else of them is learned.

    Raises
    ------
    ConfigError
        There is no reviewed slide to learn from.
    """
    run = RunDir(config.output)
    settings = config.learning
    with exclusive(run.lock):
        split = corrected_slides(config)
        if not split.train:
            raise split.nothing("no reviewed slide is left to learn from; review more, or hold out fewer")
        old = load_card(model_path_of(config))
        init = Path(model_path_of(config)) if old.architecture == "unet" else None
        out = learned_model(run, settings.name)
        if init is not None and out.resolve() == init.resolve():
            raise ConfigError(f"learning.name: {out} is the model that is configured; give the new one another name")
        classes = old.classes if init else (BACKGROUND, *old.foreground)
        mpp = old.mpp if init else settings.mpp
        meter = Meter(run.compute_log, TRAIN)
        samples, held_out = (
            tiles_of(
                slides,
                mpp=mpp,
                classes=classes,
                per_slide=settings.tiles_per_slide,
                tissue=config.tissue,
                seed=settings.seed,
            )
            for slides in (split.train, split.held_out)
        )
        logger.info("training on %d tiles of %d slides", len(samples), len(split.train))
        if not held_out:
            logger.warning("no reviewed patient is held out: the temperature is not fitted, and the card says so")
        card = train(
            samples,
            out=out,
            steps=settings.steps,
            mpp=mpp,
            classes=classes,
            name=settings.name,
            seed=settings.seed,
            init=init,
            held_out=held_out,
            progress=progress,
        )
        # The bundled trainer works on the processor alone.
        meter.lap(device="cpu")
        return card


def compare_models(config: Config, new_path: str, slides: Sequence[AnnotatedSlide]) -> Decision:
    """Score the configured model and another one on the same slides; writes learning/promotion.json.

    Raises
    ------
    ConfigError
        There is no slide to judge on.
    """
    if not slides:
        raise ConfigError("learning: no reviewed slide is held out; name some in `learning.held_out`")
    run = RunDir(config.output)
    scores, cards = [], []
    for path in (model_path_of(config), new_path):
        segmenter = load_segmenter(path, device=config.model.device, runtime=config.model.runtime)
        scores.append(evaluate(segmenter, slides, tissue=config.tissue, threshold=config.regions.threshold))
        cards.append(segmenter.card)
    decision = decide(scores[0], scores[1], old_card=cards[0], new_card=cards[1])
    record: dict[str, Any] = {
        "schema": 1,
        "decision": decision.to_json(),
        "old": [score.to_json() for score in scores[0]],
        "new": [score.to_json() for score in scores[1]],
    }
    write_json(run.root / "learning" / "promotion.json", record)
    return decision
