"""data.qpdata: the one door of this package."""

from wsi_pipeline.qupath.native.data import QpData, TmaGrid
from wsi_pipeline.qupath.native.reading import read_qpdata
from wsi_pipeline.qupath.native.writing import write_qpdata

__all__ = ["QpData", "TmaGrid", "read_qpdata", "write_qpdata"]
