"""Maps for users: lazy dask arrays of what a run predicted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_pipeline.inference.access import told
from wsi_pipeline.inference.places import recorded_place
from wsi_pipeline.inference.store import PredictionStore
from wsi_pipeline.rundir import RunDir


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The prediction of one slide; nothing is read before it is computed.

    Attributes
    ----------
    probability
        dask uint8 (C, H, W): round(255 p) of each class.
    uncertainty
        dask uint8 (H, W): round(255 entropy / ln K).
    mutual_information
        dask uint8 (H, W): disagreement of several predictions, on the same scale; 0 where there was one only, None
        where there is one everywhere.
    classes
        Names of the channels.
    blocks
        uint8 (rows, columns): 0 todo, 1 done, 2 background, 3 failed.
    downsample
        Level-0 px to a map pixel.
    mpp
        µm per level-0 px; a map pixel has `mpp * downsample`.
    """

    slide_id: str
    probability: da.Array
    uncertainty: da.Array
    classes: tuple[str, ...]
    blocks: NDArray[np.uint8]
    downsample: float
    mpp: float
    mutual_information: da.Array | None = None


def open_prediction(run: str | Path, slide_id: str) -> Prediction:
    """The maps of one slide of a run, as lazy dask arrays of one chunk per block.

    Parameters
    ----------
    run
        The run directory (`output` of the configuration).
    slide_id
        As in `run.json` and `wsi-pipeline slides`.

    Raises
    ------
    StoreError
        There is no prediction of this slide, or it cannot be read; also later, when a part that is damaged is computed.

    Examples
    --------
    >>> prediction = wsi_pipeline.open_prediction("runs/first", "slide-1")  # doctest: +SKIP
    >>> share = (prediction.probability[0] >= 128).mean().compute()  # doctest: +SKIP
    """
    store = PredictionStore.open(recorded_place(RunDir(Path(run)), slide_id))
    probability, uncertainty = store.arrays
    apart = store.mutual_information_array
    return Prediction(
        slide_id=store.slide_id,
        probability=_lazy(probability, store, (1, store.block, store.block)),
        uncertainty=_lazy(uncertainty, store, (store.block, store.block)),
        classes=tuple(name for name, _ in store.classes),
        blocks=store.blocks,
        downsample=store.downsample,
        mpp=store.mpp,
        mutual_information=None if apart is None else _lazy(apart, store, (store.block, store.block)),
    )


class _Readable:
    """A zarr array, as dask asks for its parts; what goes wrong names the store."""

    def __init__(self, array: zarr.Array[Any], path: str) -> None:
        self._array = array
        self._path = path
        self.shape = array.shape
        self.dtype = array.dtype
        self.ndim = array.ndim

    def __getitem__(self, area: tuple[slice, ...]) -> NDArray[np.uint8]:
        with told(self._path, "read"):
            return np.asarray(self._array[area])


def _lazy(array: zarr.Array[Any], store: PredictionStore, chunks: tuple[int, ...]) -> da.Array:
    lazy: da.Array = da.from_array(_Readable(array, store.path), chunks=chunks, inline_array=True)
    return lazy
