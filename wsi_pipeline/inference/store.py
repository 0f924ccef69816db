"""The prediction store: probability and uncertainty of one slide, as zarr v3 that any reader opens.

Where places were predicted more than once (`MapInfo.passes`, `MapInfo.blend`) there is also `mutual_information`.

One block is one shard and is written whole, by one task, beside its name and renamed into place; so nothing
is ever half written, and the same content gives the same bytes. The client alone writes `blocks`, after the
data of a block are there. Lengths are in map pixels and rectangles in the map's frame unless said otherwise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import remove_partials
from wsi_pipeline.inference.access import is_url, told, zarr_store
from wsi_pipeline.models.ensemble import Passes
from wsi_pipeline.models.macenko import Stains
from wsi_pipeline.objects import RGB
from wsi_pipeline.tiling import BlockGrid, Bounds, working_size

SCHEMA: Final = 1
ATTRIBUTES: Final = "wsi_pipeline"
"""Key of the group's attributes under which everything of ours is kept."""
CHUNK: Final = 1024
"""Longest side of what is compressed (and read) at once inside a shard; each costs zarr about half a millisecond."""


class BlockState(IntEnum):
    """How far a block is."""

    TODO = 0
    DONE = 1
    BACKGROUND = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What a prediction is of; kept as attributes of the store.

    Attributes
    ----------
    size
        Width and height of the slide in level-0 px.
    mpp
        µm per level-0 px.
    downsample
        Level-0 px to a map pixel: pixel (row, column) covers [column d, (column + 1) d) x [row d, (row + 1) d).
    classes
        Name and colour of each channel.
    block
        Side of a block in map pixels.
    tissue
        Hex digest of the cells that were to be computed; outside of them the map is 0.
    stains
        What the model was told of the slide's stains; None where it does not ask.
    passes
        Further predictions of places that are not sure; None: each place is predicted once.
    blend
        Share by which the windows of the model overlap; None: they do not.
    content
        Tells the slide's file from others, wherever it lies (`Slide.fingerprint`); None: not known.
    """

    slide_id: str
    size: tuple[int, int]
    mpp: float
    downsample: float
    classes: tuple[tuple[str, RGB], ...]
    model_id: str
    temperature: float
    block: int
    tissue: str
    stains: Stains | None = None
    passes: Passes | None = None
    blend: float | None = None
    content: str | None = None

    @property
    def has_mutual_information(self) -> bool:
        """Whether there is more than one prediction of a place, so that they can disagree."""
        return self.passes is not None or self.blend is not None

    @property
    def grid(self) -> BlockGrid:
        return BlockGrid(*working_size(self.size, self.downsample), self.block)

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` reads them."""
        return {
            "schema": SCHEMA,
            "slide_id": self.slide_id,
            "size": list(self.size),
            "mpp": self.mpp,
            "downsample": self.downsample,
            "classes": [{"name": name, "color": list(color)} for name, color in self.classes],
            "model_id": self.model_id,
            "temperature": self.temperature,
            "block": self.block,
            "tissue": self.tissue,
            **({} if self.stains is None else {"stains": self.stains.to_json()}),
            # Left out where they are off, so that such stores stay what they were.
            **({} if self.passes is None else {"passes": self.passes.to_json()}),
            **({} if self.blend is None else {"blend": self.blend}),
            **({} if self.content is None else {"content": self.content}),
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> MapInfo:
        """Inverse of `to_json`; KeyError, TypeError or ValueError where `raw` is something else."""
        width, height = raw["size"]
        return cls(
            slide_id=str(raw["slide_id"]),
            size=(int(width), int(height)),
            mpp=float(raw["mpp"]),
            downsample=float(raw["downsample"]),
            classes=tuple((str(c["name"]), _rgb(c["color"])) for c in raw["classes"]),
            model_id=str(raw["model_id"]),
            temperature=float(raw["temperature"]),
            block=int(raw["block"]),
            tissue=str(raw["tissue"]),
            stains=None if raw.get("stains") is None else Stains.from_json(raw["stains"]),
            passes=Passes(**raw["passes"]) if "passes" in raw else None,
            blend=float(raw["blend"]) if "blend" in raw else None,
            content=str(raw["content"]) if "content" in raw else None,
        )

    def differences(self, other: MapInfo) -> list[str]:
        """In words, what makes maps of the two incomparable. Blocks do not: they change no pixel."""
        changes_nothing = {"block"}
        if self.content is None or other.content is None:
            # Stores from before it was kept.
            changes_nothing.add("content")
        names = [field.name for field in fields(self) if field.name not in changes_nothing]
        return [
            f"{name} {getattr(self, name)} is not {getattr(other, name)}"
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]


def _rgb(value: Any) -> RGB:
    red, green, blue = (int(channel) for channel in value)
    return red, green, blue


class PredictionStore:
    """The maps of one slide, on a local path or (`s3://`, `gs://`, `memory://` ...) in an object store.

    Made by `create`, `open` or `open_or_create`. It may be used from several threads.

    Attributes
    ----------
    path
        As given.
    info
        What the maps are of.
    """

    def __init__(self, path: str | Path, info: MapInfo, group: zarr.Group) -> None:
        self.path = str(path)
        self.info = info
        self._probability = _array(group, "probability")
        self._uncertainty = _array(group, "uncertainty")
        self._mutual_information = _array(group, "mutual_information") if info.has_mutual_information else None
        self._blocks = _array(group, "blocks")

    @classmethod
    def create(cls, path: str | Path, info: MapInfo) -> PredictionStore:
        """Make an empty store, in place of whatever is at `path`.

        Raises
        ------
        StoreError
            It cannot be written.
        """
        store = zarr_store(path, read_only=False)
        grid = info.grid
        chunk = _chunk(info.block)
        channels = len(info.classes)
        codec = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=1)
        common: dict[str, Any] = {"dtype": "uint8", "fill_value": 0, "compressors": codec}
        with told(path, "written"):
            group = zarr.create_group(store, overwrite=True, zarr_format=3)
            group.create_array(
                "probability",
                shape=(channels, grid.height, grid.width),
                chunks=(1, chunk, chunk),
                shards=(channels, info.block, info.block),
                dimension_names=("class", "y", "x"),
                **common,
            )
            for name in ("uncertainty", *(("mutual_information",) if info.has_mutual_information else ())):
                group.create_array(
                    name,
                    shape=(grid.height, grid.width),
                    chunks=(chunk, chunk),
                    shards=(info.block, info.block),
                    dimension_names=("y", "x"),
                    **common,
                )
            group.create_array(
                "blocks", shape=grid.shape, chunks=grid.shape, dimension_names=("block_y", "block_x"), **common
            )
            # Last: a store without them was left by a kill, and is made anew.
            group.attrs.put({ATTRIBUTES: info.to_json()})
            return cls(path, info, group)

    @classmethod
    def open(cls, path: str | Path, *, read_only: bool = True) -> PredictionStore:
        """Open a store that is there.

        Raises
        ------
        StoreError
            There is none, it is damaged, or of a newer schema.
        """
        store = zarr_store(path, read_only=read_only)
        with told(path, "read"):
            try:
                group = zarr.open_group(store, mode="r" if read_only else "r+", zarr_format=3)
            except FileNotFoundError:
                raise StoreError(f"there is no prediction at {path}; run `wsi-pipeline predict` first") from None
            raw = group.attrs.asdict().get(ATTRIBUTES)
            if not isinstance(raw, dict):
                raise StoreError(f"{path} is not a finished prediction store; run `wsi-pipeline predict` again")
            schema = raw.get("schema")
            if not isinstance(schema, int) or schema > SCHEMA:
                raise StoreError(f"{path} has schema {schema}; this program reads up to {SCHEMA}: update wsi-pipeline")
            return cls(path, MapInfo.from_json(raw), group)

    @classmethod
    def open_or_create(cls, path: str | Path, info: MapInfo) -> PredictionStore:
        """Go on with the store at `path`, or make one; what a killed run left half written is removed.

        A store that is there keeps its own block size.

        Raises
        ------
        StoreError
            The store is of another slide, model, resolution or tissue; it is damaged; it cannot be written.
        """
        _clean(path)
        if not _is_finished(path):
            return cls.create(path, info)
        found = cls.open(path, read_only=False)
        if differences := info.differences(found.info):
            raise StoreError(
                f"{path} holds another prediction ({'; '.join(differences)}); move it away to predict anew"
            )
        return found

    @property
    def slide_id(self) -> str:
        return self.info.slide_id

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the slide in level-0 px."""
        return self.info.size

    @property
    def mpp(self) -> float:
        """µm per level-0 px."""
        return self.info.mpp

    @property
    def downsample(self) -> float:
        """Level-0 px to a map pixel."""
        return self.info.downsample

    @property
    def classes(self) -> tuple[tuple[str, RGB], ...]:
        """Name and colour of each channel."""
        return self.info.classes

    @property
    def model_id(self) -> str:
        return self.info.model_id

    @property
    def shape(self) -> tuple[int, int, int]:
        """Classes, rows, columns."""
        return len(self.info.classes), self.grid.height, self.grid.width

    @property
    def block(self) -> int:
        """Side of a block."""
        return self.info.block

    @cached_property
    def grid(self) -> BlockGrid:
        """The blocks, in map pixels."""
        return self.info.grid

    @property
    def arrays(self) -> tuple[zarr.Array[Any], zarr.Array[Any]]:
        """The zarr arrays themselves: probability uint8 (C, H, W) and uncertainty uint8 (H, W)."""
        return self._probability, self._uncertainty

    @property
    def mutual_information_array(self) -> zarr.Array[Any] | None:
        """The zarr array uint8 (H, W); None where each place was predicted once."""
        return self._mutual_information

    def read(self, channel: int, bounds: Bounds) -> NDArray[np.uint8]:
        """round(255 p) of one class, uint8 (height, width) of `bounds`; 0 beyond the map.

        Raises
        ------
        StoreError
            A shard is damaged or cannot be read.
        """
        return self._read(self._probability, channel, bounds)

    def uncertainty(self, bounds: Bounds) -> NDArray[np.uint8]:
        """round(255 H / ln K), uint8 (height, width) of `bounds`, as `read`."""
        return self._read(self._uncertainty, None, bounds)

    def mutual_information(self, bounds: Bounds) -> NDArray[np.uint8] | None:
        """Disagreement of the predictions of a place, uint8 (height, width) of `bounds`, on the scale of the entropy.

        0 where there was one prediction only; None where there is one everywhere.
        """
        return None if self._mutual_information is None else self._read(self._mutual_information, None, bounds)

    @property
    def blocks(self) -> NDArray[np.uint8]:
        """`BlockState` of each block, uint8 (rows, columns); a copy of what the store holds now."""
        with told(self.path, "read"):
            return np.asarray(self._blocks[...], np.uint8)

    def set_blocks(self, states: NDArray[np.uint8]) -> None:
        """Write the state of all blocks at once; for the one client that works on this store."""
        with told(self.path, "written"):
            self._blocks[...] = states

    def clean(self) -> None:
        """Remove what writers that were killed left half written; to be called when nobody writes any more.

        Raises
        ------
        StoreError
            It cannot be removed.
        """
        _clean(self.path)

    def write_block(
        self,
        row: int,
        column: int,
        probability: NDArray[np.uint8],
        uncertainty: NDArray[np.uint8],
        mutual_information: NDArray[np.uint8] | None = None,
    ) -> None:
        """Write one block: uint8 (C, h, w) and (h, w), cut at the map's edge. Blocks that are all 0 take no file.

        `mutual_information` belongs to stores that hold it, and is passed over by others.

        On a local path the data have reached the disk when this returns.

        Raises
        ------
        StoreError
            It cannot be written (a full disk, missing permissions ...).
        """
        bounds = self.grid.bounds(row, column)
        area = (slice(bounds.y, bounds.bottom), slice(bounds.x, bounds.right))
        with told(self.path, "written"):
            _for_writing(self._probability, probability)[(slice(None), *area)] = probability
            _for_writing(self._uncertainty, uncertainty)[area] = uncertainty
            if self._mutual_information is not None and mutual_information is not None:
                _for_writing(self._mutual_information, mutual_information)[area] = mutual_information
            if not is_url(self.path):
                for name in ("probability/c/0", "uncertainty/c", "mutual_information/c"):
                    _flush(Path(self.path, name, str(row), str(column)))

    def _read(self, array: zarr.Array[Any], channel: int | None, bounds: Bounds) -> NDArray[np.uint8]:
        height, width = array.shape[-2:]
        inside = bounds.within(Bounds(0, 0, width, height))
        with told(self.path, "read"):
            area = (slice(inside.y, inside.bottom), slice(inside.x, inside.right))
            found = array[area] if channel is None else array[(channel, *area)]
        pixels: NDArray[np.uint8] = np.asarray(found, np.uint8)
        if inside == bounds:
            return pixels
        whole = np.zeros((bounds.height, bounds.width), np.uint8)
        y, x = inside.y - bounds.y, inside.x - bounds.x
        whole[y : y + inside.height, x : x + inside.width] = pixels
        return whole


def _chunk(block: int) -> int:
    """The longest divisor of `block` that is no longer than `CHUNK`."""
    return next(side for side in range(min(CHUNK, block), 0, -1) if block % side == 0)


def _clean(path: str | Path) -> None:
    # On an object store an object is there whole or not at all.
    if not is_url(path):
        remove_partials(Path(path))


def _is_finished(path: str | Path) -> bool:
    """Whether there is a store whose making was not cut short."""
    with told(path, "read"):
        try:
            group = zarr.open_group(zarr_store(path, read_only=True), mode="r", zarr_format=3)
        except FileNotFoundError:
            return False
        return ATTRIBUTES in group.attrs.asdict()


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    found = group[name]
    if not isinstance(found, zarr.Array):
        raise ValueError(f"{name} is not an array")
    return found


def _for_writing(array: zarr.Array[Any], values: NDArray[np.uint8]) -> zarr.Array[Any]:
    """The array, set to look for chunks that are all 0 only where no chunk holds anything: looking costs half."""
    return array.with_config({"write_empty_chunks": bool(values.any())})


def _flush(path: Path) -> None:
    """Have the disk hold a file (if there is one) before anybody says that it is done."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
