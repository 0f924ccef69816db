"""data.qpdata from bytes to values."""

from __future__ import annotations

from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.qupath.native import descriptors, mutf8
from wsi_pipeline.qupath.native.collection import paused_collection
from wsi_pipeline.qupath.native.data import END, MARK, VERSION, QpData, TmaGrid, json_object
from wsi_pipeline.qupath.native.hierarchy_reading import HierarchyReader, is_opaque, rgb
from wsi_pipeline.qupath.native.java_model import Foreign, JavaEnum, JavaObject, Node, SkippedReference, Tag
from wsi_pipeline.qupath.native.java_reader import JavaReader
from wsi_pipeline.qupath.native.leaf_reader import LeafReader
from wsi_pipeline.qupath.native.pieces import Pieces
from wsi_pipeline.qupath.native.values import Values


def read_qpdata(data: bytes) -> QpData:
    """Read a data.qpdata.

    Parameters
    ----------
    data
        The whole file, as QuPath 0.2 to 0.7 writes it (data file version 3).

    Raises
    ------
    QuPathFormatError
        The file is damaged, cut off, of another version, or holds something that could not be written back.
    """
    data = bytes(data)
    try:
        return read_by(LeafReader, data)
    except SkippedReference:
        return read_by(Pieces, data)


def read_by(pieces: type[Pieces], data: bytes) -> QpData:
    """Read with one of the readers of pieces; the quick ones may raise `SkippedReference` where `Pieces` does not."""
    with paused_collection():
        return _File(data, pieces).read()


class _File:
    """One reading of a file."""

    def __init__(self, data: bytes, pieces: type[Pieces]) -> None:
        self._java = JavaReader(data)
        self._values = Values(len(data))
        self._pieces = pieces
        self._hierarchy: HierarchyReader | None = None
        self._others: list[Node] = []
        self._data = QpData()

    def read(self) -> QpData:
        self._version()
        self._header()
        while not self._item():
            pass
        java = self._java
        if java.pos != java.size:
            raise java.error("bytes behind the end of the file's data")
        if self._hierarchy is None:
            raise java.error("no hierarchy of objects")
        data = self._data
        data.root_uuid = self._hierarchy.root.uuid
        data.kept.root = self._hierarchy.root
        data.kept.objects = self._hierarchy.kept
        data.kept.others = tuple(self._others)
        for name, argb in self._values.colors.items():
            data.class_colors[name] = None if argb is None else rgb(argb)
            if argb is not None and not is_opaque(argb):
                data.kept.class_colors[name] = argb
        return data

    def _version(self) -> None:
        raw = self._java.block()
        try:
            text = mutf8.decode(raw[2:])
        except ValueError:
            text = ""
        if int.from_bytes(raw[:2], "big") != len(raw) - 2 or not text.startswith(MARK):
            raise self._java.error("no line `Data file version`: this is no data.qpdata", 0)
        if text.removeprefix(MARK).strip() != str(VERSION):
            raise QuPathFormatError(f"data file version {text.removeprefix(MARK)[:20]!r}; only {VERSION} is known")

    def _header(self) -> None:
        text = self._java.read()
        if not isinstance(text, str):
            raise self._java.error("no JSON text about the image behind the version")
        header = json_object(text, "the text about the image")
        version = header.get("dataVersion", VERSION)
        if version != VERSION or isinstance(version, bool):
            raise QuPathFormatError(f"dataVersion {str(version)[:20]}; only {VERSION} is known")
        self._data.server_json = header
        self._data.kept.header = str(text)

    def _item(self) -> bool:
        """Read one item of the top level; tells whether it was the last."""
        java = self._java
        start = java.pos
        if start == java.size:
            raise java.error("cut off: the mark of the end is missing")
        if java.peek() in (Tag.BLOCK_DATA, Tag.BLOCK_DATA_LONG):
            raise java.error("numbers where an object should be")
        if java.peek() == Tag.OBJECT and self._is_hierarchy():
            self._read_hierarchy(start)
            return False
        node = java.read()
        if isinstance(node, Foreign):
            raise java.error("an object of the hierarchy outside of it", start)
        if isinstance(node, str) and node == END:
            return True
        self._place(node)
        return False

    def _is_hierarchy(self) -> bool:
        java = self._java
        start, count = java.pos, len(java.handles)
        java.pos += 1
        name = java.class_desc().name
        java.pos = start
        del java.handles[count:]
        return name == descriptors.HIERARCHY.name

    def _place(self, node: Node) -> None:
        kept = self._data.kept
        name = node.desc.name if isinstance(node, (JavaObject, JavaEnum)) else ""
        if isinstance(node, JavaEnum) and name == descriptors.IMAGE_TYPE.name:
            kept.image_type = node
            self._data.image_type = str(node.name)
        elif name == descriptors.LOCALE.name and kept.locale is None:
            kept.locale = node
        elif name == descriptors.STAINS.name and kept.stains is None:
            kept.stains = node
        elif name == descriptors.WORKFLOW.name and kept.workflow is None:
            kept.workflow = node
        elif name == descriptors.HASH_MAP.name and kept.properties is None:
            kept.properties = node
        elif node is not None:
            self._others.append(node)

    def _read_hierarchy(self, start: int) -> None:
        java = self._java
        if self._hierarchy is not None:
            raise java.error("a second hierarchy of objects", start)
        java.pos += 1
        self._values.at = start
        self._values.check(java.class_desc())
        java.handles.append(Foreign("the hierarchy"))
        self._hierarchy = HierarchyReader(self._pieces(java, self._values))
        self._data.objects = self._hierarchy.read()
        self._data.tma_grid = self._grid(java.read(), self._hierarchy.uuids)

    def _grid(self, node: Node, uuids: list[str]) -> TmaGrid | None:
        if node is None:
            return None
        values = self._values
        if not isinstance(node, JavaObject) or node.desc.name != descriptors.TMA_GRID.name:
            raise values.error(f"{node!r} where a TMA grid should be")
        fields = values.fields(node)
        cores = values.elements(fields["cores"], "the cores of a TMA grid")
        values.spend(len(cores))
        indices = [core.what for core in cores if isinstance(core, Foreign) and isinstance(core.what, int)]
        if len(indices) != len(cores):
            raise values.error("a TMA grid with a core that is not in the hierarchy")
        return TmaGrid(fields["gridWidth"], fields["gridHeight"], tuple(uuids[i] for i in indices))
