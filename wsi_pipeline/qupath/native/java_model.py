"""What a Java serialization stream holds, as plain values: the common language of its reader and its writer.

Names follow the Java Object Serialization Specification, chapter 6. null is `None`. Nodes are compared by identity,
since that is how a stream shares them: a node met twice is written once and referred to the second time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

MAGIC = b"\xac\xed\x00\x05"
FIRST_HANDLE = 0x7E0000


class Tag(IntEnum):
    """The byte that begins each element of a stream."""

    NULL = 0x70
    REFERENCE = 0x71
    CLASS_DESC = 0x72
    OBJECT = 0x73
    STRING = 0x74
    ARRAY = 0x75
    CLASS = 0x76
    BLOCK_DATA = 0x77
    END_BLOCK_DATA = 0x78
    RESET = 0x79
    BLOCK_DATA_LONG = 0x7A
    EXCEPTION = 0x7B
    LONG_STRING = 0x7C
    PROXY_CLASS_DESC = 0x7D
    ENUM = 0x7E


class Flag(IntFlag):
    """How the objects of a class are written."""

    WRITE_METHOD = 1
    SERIALIZABLE = 2
    EXTERNALIZABLE = 4
    BLOCK_DATA = 8
    ENUM = 16


# Letter of a primitive type: its format for `struct`.
PRIMITIVES = {"B": "b", "C": "H", "D": "d", "F": "f", "I": "i", "J": "q", "S": "h", "Z": "?"}


class JavaString(str):
    """A string with an identity: two equal strings are two objects in a stream, unless one refers to the other."""

    __slots__ = ()


class Field(NamedTuple):
    """A field of a class: letter of its type, name and, for objects and arrays, the type written out."""

    code: str
    name: str
    type: JavaString | None = None


@dataclass(eq=False, slots=True)
class ClassDesc:
    """A class descriptor: what is known of a class at the place where its first object lies."""

    name: str
    suid: int
    flags: Flag
    fields: tuple[Field, ...] = ()
    parent: ClassDesc | None = None
    # Root class first, which is the order of the values in an object.
    chain: tuple[ClassDesc, ...] = ()
    primitives: struct.Struct = field(init=False)

    def __post_init__(self) -> None:
        self.primitives = struct.Struct(">" + "".join(PRIMITIVES.get(f.code, "") for f in self.fields))
        self.link(self.parent)

    def link(self, parent: ClassDesc | None) -> None:
        """Set the super class, once it is known itself."""
        self.parent = parent
        self.chain = (*(parent.chain if parent else ()), self)

    def __repr__(self) -> str:
        return f"<class {self.name}>"


Node: TypeAlias = "JavaString | ClassDesc | JavaObject | JavaArray | JavaEnum | JavaClass | Foreign | None"
# Between objects, a class's own writing methods put bytes.
Content: TypeAlias = "bytes | Node"


class Foreign:
    """What others put into the table of handles: an element that they parsed in a form of their own."""

    __slots__ = ("what",)

    def __init__(self, what: Any) -> None:
        self.what = what

    def __repr__(self) -> str:
        return f"<{self.what}>"


class SkippedReference(Exception):
    """A reference to an element of which only the number was counted."""


# Stands in the table of handles for elements that a quick reader passed without making nodes of them.
SKIPPED = Foreign("an element that was passed over")


class Part(NamedTuple):
    """What one class of an object's chain wrote: its fields, and what its own method added to them."""

    values: list[Any]
    content: list[Content]


@dataclass(eq=False, slots=True)
class JavaObject:
    """An object: one part for each class of its chain, or the content alone when the class is Externalizable."""

    desc: ClassDesc
    parts: list[Part] = field(default_factory=list)
    content: list[Content] = field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        """Values of all fields by name; a subclass's field hides one of the same name above it."""
        return {
            described.name: value
            for cls, part in zip(self.desc.chain, self.parts, strict=True)
            for described, value in zip(cls.fields, part.values, strict=True)
        }

    def __repr__(self) -> str:
        return f"<object of {self.desc.name}>"


@dataclass(eq=False, slots=True)
class JavaArray:
    """An array: big-endian bytes when its elements are primitive, else a list of nodes."""

    desc: ClassDesc
    values: bytes | list[Node]

    @property
    def code(self) -> str:
        """Letter of the element type."""
        return self.desc.name[1]

    def numbers(self) -> tuple[Any, ...]:
        """The elements of an array of primitives."""
        if not isinstance(self.values, bytes):
            raise TypeError(f"{self.desc.name} holds no numbers")
        size = struct.calcsize(PRIMITIVES[self.code])
        return struct.unpack(f">{len(self.values) // size}{PRIMITIVES[self.code]}", self.values)

    def __repr__(self) -> str:
        return f"<array {self.desc.name}>"


@dataclass(eq=False, slots=True)
class JavaEnum:
    """An enum constant."""

    desc: ClassDesc
    name: JavaString

    def __repr__(self) -> str:
        return f"<{self.desc.name}.{self.name}>"


@dataclass(eq=False, slots=True)
class JavaClass:
    """A class as a value."""

    desc: ClassDesc


def descriptors_of(desc: ClassDesc) -> Iterator[ClassDesc]:
    """The class and its super classes, leaf first: the order in which a stream describes them."""
    return reversed(desc.chain)


@lru_cache(maxsize=256)
def packer(code: str, count: int) -> struct.Struct:
    """`count` big-endian numbers of one format letter."""
    return struct.Struct(f">{count}{code}")
