"""The general parser and writer of Java serialization streams, on streams made by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.qupath.native.strategies import texts
from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.qupath.native import descriptors
from wsi_pipeline.qupath.native.java_model import (
    MAGIC,
    ClassDesc,
    Field,
    Flag,
    JavaArray,
    JavaClass,
    JavaEnum,
    JavaObject,
    JavaString,
    Node,
    Part,
)
from wsi_pipeline.qupath.native.java_reader import MAX_CLASSES, MAX_DEPTH, JavaReader
from wsi_pipeline.qupath.native.java_writer import JavaWriter

PLAIN = Flag.SERIALIZABLE
OWN = Flag.SERIALIZABLE | Flag.WRITE_METHOD
EXTERNAL = Flag.EXTERNALIZABLE | Flag.BLOCK_DATA


def utf(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def desc(name: str, flags: int = 2, fields: bytes = b"\0\0", parent: bytes = b"\x70", suid: int = 1) -> bytes:
    return b"\x72" + utf(name) + struct.pack(">qB", suid, flags) + fields + b"\x78" + parent


def ref(number: int) -> bytes:
    return b"\x71" + struct.pack(">i", 0x7E0000 + number)


def read(raw: bytes) -> Any:
    reader = JavaReader(MAGIC + raw)
    node = reader.read()
    assert reader.pos == reader.size
    return node


def written(*nodes: Node) -> bytes:
    writer = JavaWriter()
    for node in nodes:
        writer.write(node)
    return writer.getvalue()


def error_of(raw: bytes) -> str:
    with pytest.raises(QuPathFormatError) as caught:
        JavaReader(MAGIC + raw).read()
    return str(caught.value)


# ---- what is understood ----


def test_fields_of_a_super_class_come_first() -> None:
    """class A { int n; } class B extends A { String s; } with n = 7, s = "x"."""
    parent = desc("java.A", fields=b"\0\x01I" + utf("n"))
    leaf = desc("java.B", fields=b"\0\x01L" + utf("s") + b"\x74" + utf("Ljava/lang/String;"), parent=parent)
    node = read(b"\x73" + leaf + struct.pack(">i", 7) + b"\x74" + utf("x"))
    assert node.fields() == {"n": 7, "s": "x"}
    assert [cls.name for cls in node.desc.chain] == ["java.A", "java.B"]


def test_references_count_classes_types_objects_arrays_and_strings_in_the_order_of_the_stream() -> None:
    """An Object[] of: a new object (its class is element 2, it is 3), its class as a value, itself, the array."""
    head = b"\x75" + desc("[Ljava.lang.Object;") + struct.pack(">i", 4)  # class 0, array 1
    inside = b"\x73" + desc("java.A") + b"\x76" + ref(2) + ref(3) + ref(1)
    array = read(head + inside)
    made, described, again, itself = array.values
    assert made is again
    assert itself is array
    assert isinstance(described, JavaClass)
    assert described.desc is made.desc


def test_long_strings_have_lengths_of_eight_bytes() -> None:
    assert read(b"\x7c" + struct.pack(">q", 70_000) + b"y" * 70_000) == "y" * 70_000


def test_block_data_of_both_sizes_are_one_run_of_bytes() -> None:
    """An Externalizable that writes 2 + 3 bytes in two blocks, then a string, then one byte."""
    body = b"\x77\x02ab" + b"\x7a" + struct.pack(">i", 3) + b"cde" + b"\x74" + utf("s") + b"\x77\x01f" + b"\x78"
    assert read(b"\x73" + desc("java.A", 0x0C) + body).content == [b"abcde", "s", b"f"]


def test_a_class_with_its_own_writing_method_adds_to_its_fields() -> None:
    raw = b"\x73" + desc("java.A", 3, b"\0\x01Z" + utf("on")) + b"\x01" + b"\x77\x01x" + b"\x70" + b"\x78"
    node = read(raw)
    assert node.fields() == {"on": True}
    assert node.parts[0].content == [b"x", None]


@pytest.mark.parametrize(
    ("code", "form", "values"),
    [
        ("B", "b", (-1, 2)),
        ("C", "H", (65_535, 0)),
        ("D", "d", (0.5, -1.25)),
        ("F", "f", (0.5, 3.0)),
        ("I", "i", (-5, 7)),
        ("J", "q", (1 << 40, -1)),
        ("S", "h", (-300, 300)),
        ("Z", "?", (True, False)),
    ],
)
def test_arrays_of_every_primitive_type_are_read(code: str, form: str, values: tuple[Any, ...]) -> None:
    body = struct.pack(f">{len(values)}{form}", *values)
    assert read(b"\x75" + desc(f"[{code}") + struct.pack(">i", len(values)) + body).numbers() == values


def test_an_enum_constant_has_its_class_and_its_name() -> None:
    node = read(b"\x7e" + desc("java.E", 0x12, parent=desc("java.lang.Enum", 0x12)) + b"\x74" + utf("ONE"))
    assert isinstance(node, JavaEnum)
    assert (node.name, node.desc.name) == ("ONE", "java.E")


def test_an_object_may_hold_itself() -> None:
    field = b"\0\x01L" + utf("me") + b"\x74" + utf("Ljava/A;")
    node = read(b"\x73" + desc("java.A", fields=field) + ref(2))
    assert node.fields()["me"] is node


# ---- what is refused ----


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "needs 1 bytes and 0 are left"),
        (b"\x79", "tag 79"),
        (b"\x7b", "tag 7B"),
        (b"\x00", "tag 00"),
        (ref(0), "a reference to element 0, of 0"),
        (ref(-1), "a reference to element -1"),
        (b"\x73" + ref(0), "reference"),
        (b"\x73\x70", "tag 70 where a class"),
        (b"\x73\x7d\0\0\0\0", "tag 7D where a class"),
        (b"\x73" + desc("java.A", 4), "flags 04"),
        (b"\x73" + desc("java.A", 0), "of which there are none"),
        (b"\x73" + desc("java.A", 0x12), "of which there are none"),
        (b"\x73" + desc("org.evil.Gadget"), "which QuPath does not read"),
        (b"\x73" + desc("[Lorg.evil.Gadget;"), "which QuPath does not read"),
        (b"\x73" + desc("java.A", parent=ref(0)), "no class"),
        (b"\x75" + desc("java.A"), "an array of java.A"),
        (b"\x75" + desc("[I") + b"\xff\xff\xff\xff", "damaged or cut off"),
        (b"\x75" + desc("[D") + b"\x7f\xff\xff\xff", "damaged or cut off"),
        (b"\x75" + desc("[Ljava.A;") + b"\x7f\xff\xff\xff", "damaged or cut off"),
        (b"\x74\xff\xffabc", "needs 65535 bytes"),
        (b"\x7c\xff\xff\xff\xff\xff\xff\xff\xff", "damaged or cut off"),
        (b"\x74\0\x02\xff\xff", "damaged text"),
        (b"\x73" + desc("java.A", fields=b"\0\x01?" + utf("n")), "unknown type"),
        (b"\x73" + desc("java.A", fields=b"\0\x01L" + utf("n") + b"\x70"), "without a type"),
        (
            b"\x73" + desc("java.A", fields=b"\0\x02L" + utf("s") + b"\x74" + utf("Ljava/A;") + b"I" + utf("n")),
            "in an order that Java does not write",
        ),
        (b"\x73\x72" + utf("java.A") + b"\0" * 7 + b"\x01\x02\0\0\x70", "with annotations"),
    ],
)
def test_streams_that_java_would_not_read_are_refused_by_name(raw: bytes, words: str) -> None:
    assert words in error_of(raw)


def test_something_else_than_a_stream_is_refused() -> None:
    with pytest.raises(QuPathFormatError, match="AC ED 00 05"):
        JavaReader(b"PK\3\4 a zip file")


def test_an_error_says_where() -> None:
    assert error_of(b"\x74\0\x05abc").endswith("at byte 7 of 10")


def test_a_chain_of_super_classes_has_an_end() -> None:
    raw = b"\x70"
    for number in range(MAX_CLASSES + 1):
        raw = desc(f"java.C{number}", parent=raw)
    assert "super classes" in error_of(b"\x73" + raw) or "should be described" in error_of(b"\x73" + raw)


def test_nesting_is_followed_without_recursion_and_not_without_end() -> None:
    """Arrays in arrays: the class is written once, each level is a reference to it and a length of 1."""
    level = b"\x75" + ref(0) + struct.pack(">i", 1)

    def stream(depth: int) -> bytes:
        return b"\x75" + desc("[Ljava.lang.Object;") + struct.pack(">i", 1) + level * (depth - 1) + b"\x70"

    node = read(stream(MAX_DEPTH - 1))
    for _ in range(MAX_DEPTH - 2):
        (node,) = node.values
    assert "nested deeper" in error_of(stream(100_000))


def test_a_message_stays_one_short_line() -> None:
    message = error_of(b"\x73" + desc("org.\n" + "x" * 5000))
    assert "\n" not in message
    assert len(message) < 400


# ---- writing ----


def test_a_node_is_written_once_and_then_referred_to() -> None:
    text = JavaString("shared")
    array = JavaArray(descriptors.OBJECT_ARRAY, [text, text, JavaString("shared")])
    raw = written(array)
    assert raw.count(b"shared") == 2
    first, second, third = read(raw[len(MAGIC) :]).values
    assert first is second
    assert third == first
    assert third is not first


def test_long_block_data_are_cut_as_java_cuts_them() -> None:
    external = ClassDesc("java.A", 1, EXTERNAL)
    raw = written(JavaObject(external, content=[bytes(2500)]))
    assert raw.count(b"\x7a\0\0\x04\0") == 2
    assert raw.count(b"\x7a\0\0\x01\xc4") == 1
    assert read(raw[len(MAGIC) :]).content == [bytes(2500)]


def test_a_placeholder_cannot_be_written() -> None:
    reader = JavaReader(MAGIC + b"\x70")
    with pytest.raises(QuPathFormatError, match="cannot be written"):
        written(reader.handles)  # type: ignore[arg-type]


LEAF = ClassDesc(
    "java.Leaf",
    -7,
    OWN,
    (Field("D", "d"), Field("Z", "z"), Field("L", "o", JavaString("Ljava/lang/Object;"))),
    ClassDesc("java.Top", 1, PLAIN, (Field("I", "n"), Field("[", "a", JavaString("[I")))),
)
OUTER = ClassDesc("java.Outer", 5, EXTERNAL)


def containers(inside: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    contents = st.lists(inside | st.binary(min_size=1, max_size=5), max_size=4).map(separated)
    leaves: Callable[..., Node] = lambda n, a, d, z, o, c: JavaObject(LEAF, [Part([n, a], []), Part([d, z, o], c)])  # noqa: E731
    return st.one_of(
        st.builds(leaves, st.integers(-9, 9), inside, st.floats(allow_nan=False), st.booleans(), inside, contents),
        contents.map(lambda content: JavaObject(OUTER, content=content)),
        st.lists(inside, max_size=4).map(lambda values: JavaArray(descriptors.OBJECT_ARRAY, values)),
    )


def separated(content: list[Any]) -> list[Any]:
    """Without two runs of bytes next to each other, which a stream cannot tell from one."""
    return [
        item
        for i, item in enumerate(content)
        if not (i and isinstance(item, bytes) and isinstance(content[i - 1], bytes))
    ]


nodes: st.SearchStrategy[Node] = st.recursive(
    st.one_of(
        st.none(),
        texts.map(JavaString),
        st.binary(max_size=8).map(lambda raw: JavaArray(descriptors.BYTE_ARRAY, raw)),
        texts.map(lambda name: JavaEnum(descriptors.IMAGE_TYPE, JavaString(name))),
        st.just(JavaClass(LEAF)),
    ),
    containers,
    max_leaves=12,
)


@settings(deadline=None)
@given(st.lists(nodes, max_size=3))
def test_any_graph_of_nodes_is_read_as_it_was_written(graph: list[Node]) -> None:
    raw = written(*graph)
    reader = JavaReader(raw)
    back = [reader.read() for _ in graph]
    assert reader.pos == reader.size
    assert written(*back) == raw
    assert len(reader.handles) == _count(graph)


def _count(graph: list[Node]) -> int:
    writer = JavaWriter()
    for node in graph:
        writer.write(node)
    return writer.next_handle


@settings(deadline=None)
@given(st.lists(nodes, min_size=1, max_size=3), st.data())
def test_a_graph_that_was_cut_off_is_refused(graph: list[Node], data: st.DataObject) -> None:
    raw = written(*graph)
    reader = JavaReader(raw[: data.draw(st.integers(len(MAGIC), len(raw) - 1))])
    with pytest.raises(QuPathFormatError):
        _ = [reader.read() for _ in graph]
