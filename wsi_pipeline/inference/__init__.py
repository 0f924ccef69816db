"""From slides to maps: the engine, and the store that it writes. Importing it loads neither torch nor dask."""

from wsi_pipeline.inference.engine import Engine, EngineSettings
from wsi_pipeline.inference.slide_work import SlideJob, SlideResult
from wsi_pipeline.inference.store import BlockState, MapInfo, PredictionStore

__all__ = [
    "BlockState",
    "Engine",
    "EngineSettings",
    "MapInfo",
    "PredictionStore",
    "SlideJob",
    "SlideResult",
]
