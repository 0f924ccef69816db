"""A writer of Java serialization streams from `java_model` nodes.

A node that is written again becomes a reference, as in Java; so what `JavaReader` has read is written back byte for
byte.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Any

from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.qupath.native import mutf8
from wsi_pipeline.qupath.native.java_model import (
    FIRST_HANDLE,
    MAGIC,
    PRIMITIVES,
    ClassDesc,
    Content,
    Flag,
    JavaArray,
    JavaClass,
    JavaEnum,
    JavaObject,
    JavaString,
    Node,
    Tag,
    descriptors_of,
)

# java.io.ObjectOutputStream flushes its block data at this size.
_BLOCK = 1024
_SHORT = 0xFF
_UTF = 0xFFFF
_TYPE_CODES = frozenset("L[")


def reference(handle: int) -> bytes:
    """A reference to the element of this number."""
    return b"\x71" + struct.pack(">i", FIRST_HANDLE + handle)


def string(text: str) -> bytes:
    """A string as an element of its own."""
    raw = mutf8.encode(text)
    if len(raw) <= _UTF:
        return b"\x74" + len(raw).to_bytes(2, "big") + raw
    return struct.pack(">Bq", Tag.LONG_STRING, len(raw)) + raw


def utf(text: str) -> bytes:
    """Text as `writeUTF` writes it, at most 65,535 bytes long."""
    raw = mutf8.encode(text)
    if len(raw) > _UTF:
        raise QuPathFormatError(f"{text[:40]}… is too long for a name in a Java stream: {len(raw)} bytes")
    return struct.pack(">H", len(raw)) + raw


def block(data: bytes) -> bytes:
    """Block data, cut where Java cuts them."""
    parts = []
    for start in range(0, len(data), _BLOCK):
        piece = data[start : start + _BLOCK]
        short = len(piece) <= _SHORT
        parts.append(struct.pack(">BB", Tag.BLOCK_DATA, len(piece)) if short else _long_header(len(piece)))
        parts.append(piece)
    return b"".join(parts)


def _long_header(size: int) -> bytes:
    return struct.pack(">Bi", Tag.BLOCK_DATA_LONG, size)


class JavaWriter:
    """Writes one stream.

    Attributes
    ----------
    out
        The stream so far.
    next_handle
        Number of the next element that takes one. Who appends to `out` directly keeps it right.
    """

    def __init__(self) -> None:
        self.out = bytearray(MAGIC)
        self.next_handle = 0
        self._handles: dict[int, int] = {}
        self._types: dict[str, JavaString] = {}
        # Nodes are known by their id, so they must stay alive until the end.
        self._alive: list[Any] = []

    def getvalue(self) -> bytes:
        return bytes(self.out)

    def block(self, data: bytes) -> None:
        self.out += block(data)

    def handle(self, node: Node) -> int | None:
        """The number of a node that was written, None for another."""
        return self._handles.get(id(node))

    def take_handle(self, node: Any = None) -> int:
        """Give the next number, to a node if one is named."""
        number = self.next_handle
        self.next_handle += 1
        if node is not None:
            self._handles[id(node)] = number
            self._alive.append(node)
        return number

    def write(self, node: Node) -> None:
        """Write a node and all that it holds and that was not written before."""
        stack: list[Generator[Node, None, None]] = [self._write(node)]
        while stack:
            for below in stack[-1]:
                if not self._simple(below):
                    stack.append(self._write(below))
                    break
            else:
                stack.pop()

    def _simple(self, node: Node) -> bool:
        """Write what holds nothing else: null, a reference, a string."""
        if node is None:
            self.out += b"\x70"
            return True
        known = self._handles.get(id(node))
        if known is not None:
            self.out += reference(known)
            return True
        if isinstance(node, str):
            self.take_handle(node)
            self.out += string(node)
            return True
        return False

    def _write(self, node: Node) -> Generator[Node, None, None]:
        """Write one node; what it holds is yielded at the place where it belongs."""
        if self._simple(node):
            return
        match node:
            case JavaObject():
                yield from self._object(node)
            case JavaArray():
                yield from self._array(node)
            case JavaEnum():
                self.out += b"\x7e"
                self.class_desc(node.desc)
                self.take_handle(node)
                yield node.name
            case JavaClass():
                self.out += b"\x76"
                self.class_desc(node.desc)
                self.take_handle(node)
            case _:
                raise QuPathFormatError(f"{node!r} cannot be written here: it belongs to another part of the file")

    def class_desc(self, desc: ClassDesc | None) -> None:
        """Write a class with its super classes, or a reference to it."""
        for cls in descriptors_of(desc) if desc else ():
            known = self._handles.get(id(cls))
            if known is not None:
                self.out += reference(known)
                return
            self.out += b"\x72" + utf(cls.name) + struct.pack(">q", cls.suid)
            self.take_handle(cls)
            self.out += struct.pack(">BH", cls.flags, len(cls.fields))
            for field in cls.fields:
                self.out += field.code.encode() + utf(field.name)
                if field.type is not None:
                    # Java keeps one string for each type, whichever class has a field of it.
                    self._simple(self._types.setdefault(field.type, field.type))
            self.out += b"\x78"
        self.out += b"\x70"

    def _object(self, node: JavaObject) -> Generator[Node, None, None]:
        self.out += b"\x73"
        self.class_desc(node.desc)
        self.take_handle(node)
        if node.desc.flags & Flag.EXTERNALIZABLE:
            yield from self._content(node.content)
            return
        for cls, part in zip(node.desc.chain, node.parts, strict=True):
            count = sum(field.code not in _TYPE_CODES for field in cls.fields)
            self.out += cls.primitives.pack(*part.values[:count])
            yield from part.values[count:]
            if cls.flags & Flag.WRITE_METHOD:
                yield from self._content(part.content)

    def _content(self, content: list[Content]) -> Generator[Node, None, None]:
        for item in content:
            if isinstance(item, bytes):
                self.block(item)
            else:
                yield item
        self.out += b"\x78"

    def _array(self, node: JavaArray) -> Generator[Node, None, None]:
        self.out += b"\x75"
        self.class_desc(node.desc)
        self.take_handle(node)
        if isinstance(node.values, bytes):
            size = struct.calcsize(PRIMITIVES[node.code])
            self.out += struct.pack(">i", len(node.values) // size) + node.values
            return
        self.out += struct.pack(">i", len(node.values))
        yield from node.values
