"""The regions of the slides under way, drawn block by block beside the model."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from threading import Lock

from wsi_pipeline.config import Config
from wsi_pipeline.inference import PredictionStore
from wsi_pipeline.models import ModelCard
from wsi_pipeline.regions.extract import tracer_of
from wsi_pipeline.regions.samples import Kept
from wsi_pipeline.regions.tracing import Block, Tracer

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Slide:
    mpp: float
    tracer: Tracer | None = None


class Tracing:
    """A `Follower` of the engine.

    Parameters
    ----------
    pool
        Of one thread, which takes everything in turn: so all blocks of a slide are through, or were tried, before the
        slide is finished there, and no two slides are drawn at once.
    """

    def __init__(self, config: Config, card: ModelCard, pool: Executor) -> None:
        self._settings = config.regions
        self._classes = len(card.foreground)
        self._pool = pool
        self._kept = Kept()
        self._slides: dict[str, _Slide] = {}
        self._lock = Lock()
        self._over = False

    def begin(self, slide_id: str, mpp: float) -> None:
        """A slide of `mpp` µm per level-0 px that the engine is given; what was drawn of it before is forgotten."""
        self._slides[slide_id] = _Slide(mpp)

    def settled(self, slide_id: str, store: PredictionStore, blocks: Iterable[Block]) -> None:
        """See `Follower`."""
        with self._lock:
            slide = self._slides.get(slide_id)
            if slide is None or self._over:
                return
            tracer = self._tracer(slide, store)
            for block in tracer.ready(blocks):
                self._pool.submit(_trace, slide_id, tracer, block)

    def unsettled(self, slide_id: str) -> None:
        """See `Follower`: seldom, so all is drawn anew, and the maps are read anew."""
        with self._lock:
            slide = self._slides.get(slide_id)
            if slide is not None and slide.tracer is not None and not self._over:
                slide.tracer.give_up()
                self._pool.submit(self._kept.forget, slide.tracer.source)
                slide.tracer = None

    def take(self, slide_id: str, store: PredictionStore) -> Tracer:
        """What was drawn of a slide that the engine is through with; what is missing, the tracer draws when asked."""
        with self._lock:
            return self._tracer(self._slides.pop(slide_id), store)

    def drop(self, slide_id: str) -> None:
        """The slide failed: nobody wants its regions."""
        with self._lock:
            slide = self._slides.pop(slide_id, None)
            if slide is not None and slide.tracer is not None:
                slide.tracer.give_up()

    def stop(self) -> None:
        """Draw no further: the call ends, and the next one begins with the blocks that are there."""
        with self._lock:
            self._over = True
            for slide in self._slides.values():
                if slide.tracer is not None:
                    slide.tracer.give_up()

    def _tracer(self, slide: _Slide, store: PredictionStore) -> Tracer:
        if slide.tracer is None:
            slide.tracer = tracer_of(store, self._classes, self._settings, mpp=slide.mpp, kept=self._kept)
        return slide.tracer


def _trace(slide_id: str, tracer: Tracer, block: Block) -> None:
    try:
        tracer.trace(block)
    except Exception:
        logger.debug("%s: the regions of block %d,%d cannot be drawn now", slide_id, *block, exc_info=True)
