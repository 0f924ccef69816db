"""Reading back: what pathologists did to what was handed out, and how long it took them."""

from wsi_pipeline.collect.matching import Change, Pair, match
from wsi_pipeline.collect.run import CollectResult, collect

__all__ = ["Change", "CollectResult", "Pair", "collect", "match"]
