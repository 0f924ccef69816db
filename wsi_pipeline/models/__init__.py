"""Models: cards, the Segmenter protocol, the bundled U-Net, the stain-density baseline. Importing it loads no torch."""

from wsi_pipeline.models.card import ClassSpec, ModelCard, Provenance
from wsi_pipeline.models.halo import measure_halo
from wsi_pipeline.models.load import choose_runtime, is_named, load_card, load_segmenter
from wsi_pipeline.models.runtime import Measurement, RuntimeChoice, Way
from wsi_pipeline.models.segmenter import Maps, Segmenter

__all__ = [
    "ClassSpec",
    "Maps",
    "Measurement",
    "ModelCard",
    "Provenance",
    "RuntimeChoice",
    "Segmenter",
    "Way",
    "choose_runtime",
    "is_named",
    "load_card",
    "load_segmenter",
    "measure_halo",
]
