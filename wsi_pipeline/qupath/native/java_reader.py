"""A reader of Java serialization streams that trusts nothing.

It knows no class: objects come out as `java_model` nodes, and no code of anybody is run. Lengths are checked against
the bytes that are left before anything is allocated, and nesting is kept on a stack of its own, so damaged and hostile
streams end in `QuPathFormatError` in time and memory that grow with their size.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from types import GeneratorType
from typing import Any, TypeAlias, cast

from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.qupath.native import mutf8
from wsi_pipeline.qupath.native.java_model import (
    FIRST_HANDLE,
    MAGIC,
    PRIMITIVES,
    SKIPPED,
    ClassDesc,
    Content,
    Field,
    Flag,
    JavaArray,
    JavaClass,
    JavaEnum,
    JavaObject,
    JavaString,
    Node,
    Part,
    SkippedReference,
    Tag,
    packer,
)

# QuPath's own objects nest a handful of levels below a path object, and java.util's too.
MAX_DEPTH = 1000
# The longest chains of classes in the JDK and in QuPath have fewer than ten.
MAX_CLASSES = 16
# Most classes of a chain write nothing of their own.
_NOTHING = Part([], [])
_Step: TypeAlias = Generator[Any, Any, Node]
_KNOWN_FLAGS = {
    Flag.SERIALIZABLE,
    Flag.SERIALIZABLE | Flag.WRITE_METHOD,
    Flag.EXTERNALIZABLE | Flag.BLOCK_DATA,
    Flag.SERIALIZABLE | Flag.ENUM,
    Flag(0),
}


class JavaReader:
    """Reads one stream from its first byte on.

    Parameters
    ----------
    data
        The whole stream.

    Attributes
    ----------
    pos
        Offset of the next byte.
    handles
        Everything that a reference can mean, by number.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.pos = 0
        self.handles: list[Any] = []
        if not data.startswith(MAGIC):
            raise QuPathFormatError("not a Java serialization stream: it does not begin with AC ED 00 05")
        self.pos = len(MAGIC)

    # ---- bytes ----

    def error(self, what: str, at: int | None = None) -> QuPathFormatError:
        """The error about what stands at a byte offset (the current one if none is given)."""
        return QuPathFormatError(f"{one_line(what)} at byte {self.pos if at is None else at} of {self.size}")

    def need(self, count: int, what: str) -> None:
        """Refuse when fewer bytes are left than something says it has."""
        if count < 0 or count > self.size - self.pos:
            raise self.error(f"{what} needs {count} bytes and {self.size - self.pos} are left: damaged or cut off,")

    def take(self, count: int, what: str = "the stream") -> bytes:
        self.need(count, what)
        start = self.pos
        self.pos += count
        return self.data[start : self.pos]

    def number(self, code: str) -> Any:
        """The next big-endian number of a `struct` format letter."""
        form = packer(code, 1)
        return form.unpack(self.take(form.size, "a number"))[0]

    def peek(self) -> int:
        """The next byte, without passing it."""
        self.need(1, "the next element")
        return self.data[self.pos]

    def utf(self) -> str:
        """Text with a length of two bytes, as `writeUTF` writes it."""
        return self._text(self.number("H"))

    def _text(self, length: int) -> str:
        raw = self.take(length, "a string")
        try:
            return mutf8.decode(raw)
        except ValueError as error:
            raise self.error(f"damaged text ({error})", self.pos - length) from error

    # ---- elements ----

    def read(self) -> Node:
        """The next object, string, array, enum constant, class or null, with all that it holds.

        Raises
        ------
        QuPathFormatError
            The bytes are not such an element, or are damaged or cut off.
        """
        first = self._begin()
        if not isinstance(first, GeneratorType):
            return cast(Node, first)
        stack: list[_Step] = [first]
        value: Node = None
        while stack:
            try:
                below = stack[-1].send(value)
            except StopIteration as finished:
                stack.pop()
                value = finished.value
            else:
                if len(stack) >= MAX_DEPTH:
                    raise self.error(f"objects nested deeper than {MAX_DEPTH}")
                stack.append(below)
                value = None
        return value

    def block(self) -> bytes:
        """The block data that begin here, in however many blocks they were written; b"" if there are none."""
        parts = []
        while self.pos < self.size and self.data[self.pos] in (Tag.BLOCK_DATA, Tag.BLOCK_DATA_LONG):
            code = "B" if self.data[self.pos] == Tag.BLOCK_DATA else "i"
            self.pos += 1
            parts.append(self.take(self.number(code), "block data"))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def end(self) -> None:
        """Pass the mark at which a class's own writing method ends."""
        if self.peek() != Tag.END_BLOCK_DATA:
            raise self.error(f"tag {self.peek():02X} where an object should end")
        self.pos += 1

    def _begin(self) -> Any:
        """The next element, or for one that holds others the generator of the steps that read it."""
        start = self.pos
        tag = self.peek()
        self.pos += 1
        match tag:
            case Tag.NULL:
                return None
            case Tag.REFERENCE:
                return self.reference()
            case Tag.STRING | Tag.LONG_STRING:
                return self._string(tag)
            case Tag.OBJECT:
                return self.steps_of_object(self.class_desc())
            case Tag.ARRAY:
                return self._array()
            case Tag.ENUM:
                return self._enum()
            case Tag.CLASS:
                described = JavaClass(self.class_desc())
                self.handles.append(described)
                return described
            case _:
                raise self.error(f"tag {tag:02X}, which no QuPath file has here,", start)

    def reference(self) -> Any:
        """What the reference means whose tag has just been passed."""
        number = self.number("i") - FIRST_HANDLE
        if not 0 <= number < len(self.handles):
            raise self.error(f"a reference to element {number}, of {len(self.handles)} so far,", self.pos - 5)
        found = self.handles[number]
        if found is SKIPPED:
            raise SkippedReference
        return found

    def _string(self, tag: int) -> JavaString:
        length = self.number("H" if tag == Tag.STRING else "q")
        text = JavaString(self._text(length))
        self.handles.append(text)
        return text

    def _type(self) -> JavaString:
        """The type of a field: a string, new or referred to."""
        start = self.pos
        tag = self.peek()
        self.pos += 1
        text = self.reference() if tag == Tag.REFERENCE else self._string(tag) if tag == Tag.STRING else None
        if not isinstance(text, JavaString):
            raise self.error("a field without a type", start)
        return text

    # ---- classes ----

    def class_desc(self) -> ClassDesc:
        """A class with its super classes, new or referred to.

        Raises
        ------
        QuPathFormatError
            It is none, is written in a way that cannot be read without its code, or QuPath would refuse it.
        """
        start = self.pos
        found: list[ClassDesc] = []
        parent: ClassDesc | None = None
        while True:
            tag = self.peek()
            self.pos += 1
            if tag == Tag.CLASS_DESC and len(found) < MAX_CLASSES:
                found.append(self._one_class())
                continue
            if tag == Tag.REFERENCE:
                parent = self.reference()
                if not isinstance(parent, ClassDesc) or parent in found:
                    raise self.error("a reference to something that is no class", self.pos - 5)
            elif tag != Tag.NULL or not found:
                raise self.error(f"tag {tag:02X} where a class should be described", self.pos - 1)
            break
        for desc in reversed(found):
            desc.link(parent)
            parent = desc
        if parent is None or len(parent.chain) > MAX_CLASSES:
            raise self.error(f"a class with more than {MAX_CLASSES} super classes", start)
        return parent

    def _one_class(self) -> ClassDesc:
        start = self.pos
        name = self.utf()
        suid = self.number("q")
        number = len(self.handles)
        self.handles.append(None)
        flags = self.number("B")
        if flags not in _KNOWN_FLAGS:
            raise self.error(f"class {name[:80]} with flags {flags:02X}", start)
        if not is_allowed(name):
            raise self.error(f"class {name[:80]}, which QuPath does not read,", start)
        fields = tuple(self._field() for _ in range(self.number("H")))
        if any(a.type and not b.type for a, b in pairwise(fields)):
            raise self.error(f"class {name} with its fields in an order that Java does not write", start)
        if self.peek() != Tag.END_BLOCK_DATA:
            raise self.error(f"class {name} with annotations", start)
        self.pos += 1
        desc = ClassDesc(name, suid, Flag(flags), fields)
        self.handles[number] = desc
        return desc

    def _field(self) -> Field:
        start = self.pos
        code = chr(self.number("B"))
        name = self.utf()
        if code in PRIMITIVES:
            return Field(code, name)
        if code not in "L[":
            raise self.error(f"a field of unknown type {code!r}", start)
        return Field(code, name, self._type())

    # ---- objects that hold others: generators, which `read` keeps on its stack ----

    def steps_of_object(self, desc: ClassDesc) -> _Step:
        """The steps that read an object after its class; they take its number before they do anything else."""
        if not desc.flags & (Flag.SERIALIZABLE | Flag.EXTERNALIZABLE) or desc.flags & Flag.ENUM or desc.name[0] == "[":
            raise self.error(f"an object of {desc.name}, of which there are none,")
        made = JavaObject(desc)
        self.handles.append(made)
        return self._object(made)

    def _object(self, made: JavaObject) -> _Step:
        if made.desc.flags & Flag.EXTERNALIZABLE:
            yield from self._content(made.content)
            return made
        for cls in made.desc.chain:
            if not cls.fields and not cls.flags & Flag.WRITE_METHOD:
                made.parts.append(_NOTHING)
                continue
            part = Part([], [])
            made.parts.append(part)
            numbers = cls.primitives.unpack(self.take(cls.primitives.size, f"an object of {cls.name}"))
            part.values.extend(numbers)
            for _ in range(len(cls.fields) - len(numbers)):
                value = self._begin()
                part.values.append((yield value) if isinstance(value, GeneratorType) else value)
            if cls.flags & Flag.WRITE_METHOD:
                yield from self._content(part.content)
        return made

    def _content(self, into: list[Content]) -> Generator[Any, Any, None]:
        while True:
            tag = self.peek()
            if tag == Tag.END_BLOCK_DATA:
                self.pos += 1
                return
            if tag in (Tag.BLOCK_DATA, Tag.BLOCK_DATA_LONG):
                into.append(self.block())
                continue
            value = self._begin()
            into.append((yield value) if isinstance(value, GeneratorType) else value)

    def _array(self) -> Node | _Step:
        desc = self.class_desc()
        if desc.name[0] != "[" or len(desc.name) < 2:
            raise self.error(f"an array of {desc.name}")
        made = JavaArray(desc, b"")
        self.handles.append(made)
        count = self.number("i")
        code = PRIMITIVES.get(desc.name[1])
        if code is not None:
            made.values = self.take(count * packer(code, 1).size, "an array")
            return made
        self.need(count, "an array of objects")
        return self._elements(made, count)

    def _elements(self, made: JavaArray, count: int) -> _Step:
        made.values = values = []
        for _ in range(count):
            value = self._begin()
            values.append((yield value) if isinstance(value, GeneratorType) else value)
        return made

    def _enum(self) -> JavaEnum:
        desc = self.class_desc()
        number = len(self.handles)
        self.handles.append(None)
        name = self._type()
        made = JavaEnum(desc, name)
        self.handles[number] = made
        return made


def one_line(what: str) -> str:
    """A text fit for a message, whatever names of a damaged file are in it."""
    return "".join(c if c.isprintable() else "?" for c in what[:300])


def is_allowed(name: str) -> bool:
    """Whether QuPath's own reader lets this class in: java.base, QuPath's library and arrays of them."""
    element = name.lstrip("[")
    if element != name:
        if element in PRIMITIVES:
            return True
        element = element[1:-1] if element[:1] == "L" and element[-1:] == ";" else ""
    return element.startswith(("java.", "qupath.lib."))
