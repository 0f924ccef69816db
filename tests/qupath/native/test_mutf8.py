"""Java's modified UTF-8."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.qupath.native.strategies import texts
from wsi_pipeline.qupath.native import mutf8


@settings(deadline=None)
@given(texts)
def test_every_java_string_comes_back(text: str) -> None:
    assert mutf8.decode(mutf8.encode(text)) == text


@settings(deadline=None)
@given(texts)
def test_neither_a_zero_byte_nor_a_sequence_of_four_is_ever_written(text: str) -> None:
    raw = mutf8.encode(text)
    assert b"\0" not in raw
    assert all(byte < 0xF0 for byte in raw)


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("a\0b", b"a\xc0\x80b"),
        ("µ", b"\xc2\xb5"),
        ("壊", "壊".encode()),
        ("😀", b"\xed\xa0\xbd\xed\xb8\x80"),
        ("\ud83d", b"\xed\xa0\xbd"),
        ("\0😀\udc00", b"\xc0\x80\xed\xa0\xbd\xed\xb8\x80\xed\xb0\x80"),
        ("", b""),
    ],
)
def test_bytes_are_those_that_java_writes(text: str, raw: bytes) -> None:
    assert mutf8.encode(text) == raw
    assert mutf8.decode(raw) == text


@pytest.mark.parametrize("raw", [b"\xf0\x9f\x98\x80", b"\xc2", b"\xe5\xa3", b"\x80", b"\xc2a", b"\xff"])
def test_what_java_refuses_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="modified UTF-8"):
        mutf8.decode(raw)


@pytest.mark.parametrize(("raw", "text"), [(b"\xc1\x81", "A"), (b"\xe0\x81\x81", "A"), (b"\0", "\0")])
def test_longer_forms_than_needed_are_read_as_java_reads_them(raw: bytes, text: str) -> None:
    assert mutf8.decode(raw) == text


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_any_bytes_are_a_string_or_an_error(raw: bytes) -> None:
    try:
        text = mutf8.decode(raw)
    except ValueError:
        return
    assert mutf8.decode(mutf8.encode(text)) == text
