"""data.qpdata from values to bytes."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Mapping, Sequence

from shapely.geometry.base import BaseGeometry

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.objects import PathObject, Plane, Roi
from wsi_pipeline.qupath.native import descriptors, mutf8
from wsi_pipeline.qupath.native.collection import paused_collection
from wsi_pipeline.qupath.native.data import END, MARK, VERSION, QpData, TmaGrid, json_object
from wsi_pipeline.qupath.native.hierarchy_writing import kept_argb
from wsi_pipeline.qupath.native.ids import check_uuids
from wsi_pipeline.qupath.native.java_model import JavaEnum, JavaObject, JavaString, Node, Part
from wsi_pipeline.qupath.native.java_writer import JavaWriter, reference
from wsi_pipeline.qupath.native.kept import KeptRoi, Objects
from wsi_pipeline.qupath.native.leaf_writer import LeafWriter
from wsi_pipeline.qupath.native.properties import no_properties
from wsi_pipeline.qupath.native.roi_encoding import encode
from wsi_pipeline.qupath.native.stored_roi import StoredRoi
from wsi_pipeline.qupath.native.tree import Tree

QUPATH_VERSION = "0.6.0"
_IMAGE_TYPES = ("BRIGHTFIELD_H_DAB", "BRIGHTFIELD_H_E", "BRIGHTFIELD_OTHER", "FLUORESCENCE", "OTHER", "UNSET")
# Objects whose regions are prepared at once.
_BATCH = 4096
_H_E = (
    '{"Name" : "H&E default", "Stain 1" : "Hematoxylin", "Values 1" : "0.65111 0.70119 0.29049", '
    '"Stain 2" : "Eosin", "Values 2" : "0.2159 0.8012 0.5581", "Background" : " 255 255 255"}'
)
_H_DAB = (
    '{"Name" : "H-DAB default", "Stain 1" : "Hematoxylin", "Values 1" : "0.65111 0.70119 0.29049", '
    '"Stain 2" : "DAB", "Values 2" : "0.26917 0.56824 0.77759", "Background" : " 255 255 255"}'
)
# The stains that QuPath takes until somebody sets others.
DEFAULT_STAINS = {"BRIGHTFIELD_H_E": _H_E, "BRIGHTFIELD_H_DAB": _H_DAB, "BRIGHTFIELD_OTHER": _H_DAB}
_NO_ROOT = uuid.UUID("3f0c5b1e-9a57-5d2c-8f4e-6b7a8c9d0e1f")


def write_qpdata(data: QpData) -> bytes:
    """Write a data.qpdata that QuPath 0.4 to 0.7 reads; the same values give the same bytes.

    What was read with the data and belongs to it (stains, workflow, properties, ...) is written as it was.

    Parameters
    ----------
    data
        Parents may come before or after their children; siblings keep their order.

    Raises
    ------
    ProjectError
        A parent or a core of the TMA grid is missing, parents form a ring, an id is there twice, the nesting is deeper
        than QuPath can save, or the image type is unknown.
    QuPathFormatError
        An object holds what the format cannot: an empty region, a coordinate that is no finite number, no UUID.
    """
    if data.image_type not in _IMAGE_TYPES:
        raise ProjectError(f"{data.image_type} is no image type of QuPath; known are {', '.join(_IMAGE_TYPES)}")
    with paused_collection():
        return _write(data)


def _write(data: QpData) -> bytes:
    java = JavaWriter()
    kept = data.kept
    text = mutf8.encode(f"{MARK}{VERSION}")
    java.block(struct.pack(">H", len(text)) + text)
    header = header_text(data)
    java.write(JavaString(header))
    java.write(kept.locale or _locale())
    if data.has_kept_type:
        java.write(kept.image_type or _image_type(data.image_type))
        java.write(kept.stains)
    else:
        java.write(_image_type(data.image_type))
        java.write(_stains(data.image_type))
    java.write(kept.workflow or _no_workflow())
    _write_hierarchy(java, data, header)
    for node in (kept.properties or no_properties(), *kept.others):
        java.write(node)
    java.write(JavaString(END))
    return java.getvalue()


def header_text(data: QpData) -> str:
    """The JSON text at the head of the file; as it was when nothing in it was changed."""
    before = data.kept.header
    if before is not None and json_object(before, "the text about the image") == data.server_json:
        return before
    header = {"dataVersion": VERSION, "qupathVersion": QUPATH_VERSION, **(data.server_json or {})}
    if header["dataVersion"] != VERSION:
        raise ProjectError(f"dataVersion {header['dataVersion']} cannot be written; only {VERSION} is known")
    return json.dumps(header, ensure_ascii=False, separators=(",", ":"))


# ---- the hierarchy ----


def _write_hierarchy(java: JavaWriter, data: QpData, header: str) -> None:
    java.out += b"\x73"
    java.class_desc(descriptors.HIERARCHY)
    java.take_handle()
    kept = data.kept
    before = kept.class_colors
    colors = {name: None if c is None else kept_argb(c, before.get(name)) for name, c in data.class_colors.items()}
    writer = LeafWriter(java, colors, kept.objects)
    tree = Tree(data.objects, kept.objects.duplicates)
    items = [data.objects[index] for index in tree.order]
    regions = _Regions(items, kept.objects)
    # Java's strings may hold half of a surrogate pair, which has no UTF-8.
    name = header.encode("utf-8", "backslashreplace").decode()
    root = data.root_uuid or str(uuid.uuid5(_NO_ROOT, name))
    check_uuids([root, *[item.uuid for item in items]])
    writer.root(kept.root._replace(uuid=root), tree.roots)
    above: list[int] = []
    for at, (item, depth, count) in enumerate(zip(items, tree.depths, tree.counts, strict=True)):
        while len(above) >= depth:
            closing = above.pop()
            writer.tail(items[closing], *regions.take(closing))
        if count:
            writer.head(item, count)
            above.append(at)
        else:
            writer.leaf(item, *regions.take(at))
    for closing in reversed(above):
        writer.tail(items[closing], *regions.take(closing))
    writer.end()
    _write_grid(java, data.tma_grid, writer.core_handles)


class _Regions:
    """Regions of objects as they are stored, prepared a batch ahead of where they are needed."""

    def __init__(self, items: Sequence[PathObject], kept: Objects) -> None:
        self._items = items
        self._kept = kept
        self._ready: list[StoredRoi | None] = []
        self._nuclei: dict[int, StoredRoi | None] = {}

    def take(self, at: int) -> tuple[StoredRoi | None, StoredRoi | None]:
        """Region and nucleus of the object at this place; once for each."""
        while at >= len(self._ready):
            self._prepare()
        roi, self._ready[at] = self._ready[at], None
        return roi, self._nuclei.pop(at, None) if self._nuclei else None

    def _prepare(self) -> None:
        start = len(self._ready)
        batch = self._items[start : start + _BATCH]
        kept: list[StoredRoi | None] = [None] * len(batch)
        if self._kept.rois:
            kept = [_still_kept(self._kept.rois, o.uuid, o.geometry, o.roi, o.plane) for o in batch]
        encoded = encode(
            [None if k else o.geometry for k, o in zip(kept, batch, strict=True)],
            [o.roi for o in batch],
            [o.plane for o in batch],
            [o.uuid for o in batch],
        )
        self._ready += [k or made for k, made in zip(kept, encoded, strict=True)]
        with_nucleus = [i for i, item in enumerate(batch) if item.nucleus is not None]
        if with_nucleus:
            self._prepare_nuclei(start, [(i, batch[i]) for i in with_nucleus])

    def _prepare_nuclei(self, start: int, cells: Sequence[tuple[int, PathObject]]) -> None:
        kept = [_still_kept(self._kept.nuclei, o.uuid, o.nucleus, o.nucleus_roi, None) for _, o in cells]
        shapes = [None if k else o.nucleus for k, (_, o) in zip(kept, cells, strict=True)]
        encoded = encode(
            shapes,
            [o.nucleus_roi for _, o in cells],
            [o.plane for _, o in cells],
            [f"{o.uuid} (nucleus)" for _, o in cells],
        )
        for (index, _), k, made in zip(cells, kept, encoded, strict=True):
            self._nuclei[start + index] = k or made


def _still_kept(
    kept: dict[str, KeptRoi], key: str, geometry: BaseGeometry | None, roi: Roi | None, plane: Plane | None
) -> StoredRoi | None:
    found = kept.get(key) if kept else None
    return found.stored if found and found.still_holds(geometry, roi, plane) else None


def _write_grid(java: JavaWriter, grid: TmaGrid | None, handles: Mapping[str, int]) -> None:
    if grid is None:
        java.write(None)
        return
    for core in grid.cores:
        if core not in handles:
            raise ProjectError(f"the TMA grid has the core {core}, which is not among the objects")
    java.out += b"\x73"
    java.class_desc(descriptors.TMA_GRID)
    java.take_handle()
    java.out += struct.pack(">ii", grid.height, grid.width) + b"\x73"
    java.class_desc(descriptors.ARRAY_LIST)
    java.take_handle()
    count = struct.pack(">i", len(grid.cores))
    java.out += count + b"\x77\x04" + count + b"".join(reference(handles[core]) for core in grid.cores) + b"\x78"


# ---- around it ----


def _locale() -> JavaObject:
    texts = {"country": "", "extensions": "", "language": "en", "script": "", "variant": ""}
    nodes = {text: JavaString(text) for text in texts.values()}
    return JavaObject(descriptors.LOCALE, [Part([-1, *(nodes[text] for text in texts.values())], [])])


def _image_type(name: str) -> JavaEnum:
    return JavaEnum(descriptors.IMAGE_TYPE, JavaString(name))


def _stains(image_type: str) -> Node:
    text = DEFAULT_STAINS.get(image_type)
    if text is None:
        return None
    return JavaObject(descriptors.STAINS, content=[struct.pack(">i", 1), JavaString(text)])


def _no_workflow() -> JavaObject:
    return JavaObject(descriptors.WORKFLOW, content=[struct.pack(">ii", 1, 0)])
