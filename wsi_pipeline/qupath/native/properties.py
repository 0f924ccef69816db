"""The properties of an image: a Java map at the end of data.qpdata, which QuPath reads and writes again as it is."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.qupath.native import descriptors
from wsi_pipeline.qupath.native.java_model import Content, JavaObject, JavaString, Node, Part

# Of a HashMap as Java makes it: load factor, entries at which it grows, number of buckets. A reader takes its own.
_LOAD, _THRESHOLD, _BUCKETS = 0.75, 12, 16


def no_properties() -> JavaObject:
    return _hash_map([])


def texts_of(node: Node) -> dict[str, str]:
    """The properties that are texts; QuPath keeps others (images of an extension, numbers), too."""
    pairs = _pairs(node)
    return {str(key): str(value) for key, value in pairs if isinstance(key, str) and isinstance(value, str)}


def with_texts(node: Node, texts: Mapping[str, str]) -> Node:
    """The map with these properties set and all others as they were; the same node where nothing changes.

    Raises `QuPathFormatError` for a map that does not hold as many pairs as it says: to add to it would lose some.
    """
    there = texts_of(node)
    if all(there.get(key) == value for key, value in texts.items()):
        return node
    pairs = _pairs(node)
    if isinstance(node, JavaObject) and node.parts[0].content[0][4:] != struct.pack(">i", len(pairs)):  # type: ignore[index]
        raise QuPathFormatError("the properties of the image are damaged: their number is another one than stated")
    content: list[Content] = []
    for name, value in pairs:
        if not isinstance(name, str) or str(name) not in texts:
            content += [name, value]
    for key, text in texts.items():
        content += [JavaString(key), JavaString(text)]
    return _hash_map(content)


def _pairs(node: Node) -> list[tuple[Content, Content]]:
    content = node.parts[0].content[1:] if isinstance(node, JavaObject) and node.parts else []
    return list(zip(content[0::2], content[1::2], strict=False))


def _hash_map(content: list[Content]) -> JavaObject:
    head: Content = struct.pack(">ii", _BUCKETS, len(content) // 2)
    return JavaObject(descriptors.HASH_MAP, [Part([_LOAD, _THRESHOLD], [head, *content])])
