"""Properties of an image are added to those that are there, and nothing else changes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.qupath.native.comparing import differences
from tests.qupath.native.handmade import Made, file_of, hierarchy, integer, uid
from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.qupath.native import descriptors as d
from wsi_pipeline.qupath.native.java_model import JavaObject, JavaString, Part
from wsi_pipeline.qupath.native.properties import no_properties, texts_of, with_texts
from wsi_pipeline.qupath.native.qpdata import QpData, read_qpdata, write_qpdata

TEXTS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=20)


@given(first=TEXTS, second=TEXTS)
def test_what_is_set_is_read_back_beside_what_was_there(first: dict[str, str], second: dict[str, str]) -> None:
    data = read_qpdata(write_qpdata(QpData().with_properties(first)))
    assert data.properties == first
    again = read_qpdata(write_qpdata(data.with_properties(second)))
    assert again.properties == {**first, **second}
    assert data.properties == first


@given(texts=TEXTS)
def test_what_is_there_already_changes_no_byte(texts: dict[str, str]) -> None:
    raw = write_qpdata(QpData().with_properties(texts))
    data = read_qpdata(raw)
    assert data.with_properties(texts) is data
    assert data.with_properties({}) is data
    assert write_qpdata(data) == raw


def test_properties_that_are_no_texts_stay(tmp_path: Path) -> None:
    kept: list[Any] = [JavaString("n"), integer(7), JavaString("k"), JavaString("v"), integer(1), None]
    node = JavaObject(d.HASH_MAP, [Part([0.75, 12], [struct.pack(">ii", 16, 3), *kept])])
    data = read_qpdata(file_of(hierarchy([Made(uid(2))]), node))
    changed = read_qpdata(write_qpdata(data.with_properties({"k": "w", "new": "ü"})))
    assert changed.properties == {"k": "w", "new": "ü"}
    assert isinstance(changed.kept.properties, JavaObject)
    head, *content = changed.kept.properties.parts[0].content
    assert head == struct.pack(">ii", 16, 4)
    assert [type(item).__name__ for item in content[:4]] == ["JavaString", "JavaObject", "JavaObject", "NoneType"]
    number = content[1]
    assert isinstance(number, JavaObject)
    assert number.fields() == {"value": 7}
    assert [o.uuid for o in changed.objects] == [uid(2)]


def test_a_map_that_holds_less_than_it_says_is_not_added_to() -> None:
    node = JavaObject(d.HASH_MAP, [Part([0.75, 12], [struct.pack(">ii", 16, 2), JavaString("k"), JavaString("v")])])
    assert texts_of(node) == {"k": "v"}
    assert with_texts(node, {"k": "v"}) is node
    with pytest.raises(QuPathFormatError, match="properties of the image are damaged"):
        with_texts(node, {"new": "x"})


def test_a_new_map_is_as_java_makes_it() -> None:
    assert texts_of(no_properties()) == {}
    assert texts_of(None) == {}
    made = with_texts(None, {"a": "b"})
    assert isinstance(made, JavaObject)
    assert made.parts == [Part([0.75, 12], [struct.pack(">ii", 16, 1), JavaString("a"), JavaString("b")])]


def test_files_of_real_qupath_take_a_property_and_keep_all_else(testdata: Path) -> None:
    found = 0
    for path in sorted((testdata / "qupath").rglob("data.qpdata")):
        data = read_qpdata(path.read_bytes())
        changed = read_qpdata(write_qpdata(data.with_properties({"wsi_handout": "0" * 32})))
        assert changed.properties == {**data.properties, "wsi_handout": "0" * 32}
        assert differences(data.objects, changed.objects) == []
        assert (changed.server_json, changed.stains) == (data.server_json, data.stains)
        assert (changed.class_colors, changed.tma_grid) == (data.class_colors, data.tma_grid)
        # Whatever stands before the properties, workflow and all objects, is the same byte for byte.
        plain, with_mark = write_qpdata(data), write_qpdata(changed)
        before = len(plain) - 600
        assert plain[:before] == with_mark[:before]
        found += 1
    assert found > 10
