"""Damaged, cut off and hostile files: a result or one typed error, the same from both readers, in bounded time."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.qupath.native.comparing import differences
from tests.qupath.native.handmade import (
    TRIANGLE,
    Made,
    file_of,
    file_with,
    numeric_list,
    path_class,
    roi,
    uid,
    unmodifiable,
)
from tests.qupath.native.strategies import many_alike, qpdatas
from wsi_pipeline.errors import ProjectError, QuPathFormatError
from wsi_pipeline.objects import Kind, Roi
from wsi_pipeline.qupath.native.descriptors import HIERARCHY, ROOT
from wsi_pipeline.qupath.native.java_model import JavaObject, JavaString, Part, SkippedReference
from wsi_pipeline.qupath.native.java_writer import reference
from wsi_pipeline.qupath.native.leaf_reader import LeafReader
from wsi_pipeline.qupath.native.pieces import Pieces
from wsi_pipeline.qupath.native.qpdata import QpData, read_qpdata, write_qpdata
from wsi_pipeline.qupath.native.reading import read_by


@cache
def bases() -> tuple[bytes, ...]:
    """Files of many forms: as this package writes them, and as QuPath does."""
    names = unmodifiable([JavaString("a"), JavaString("b")])
    tumor = path_class("Positive", -5, path_class("Tumor", -7))
    objects = [
        Made(
            uid(i),
            Kind.CELL if i % 2 else Kind.DETECTION,
            texts={"key": "value"},
            measurements=numeric_list(names, [i, 1]),
            path_class=tumor,
            roi=roi(Roi.POLYGON, TRIANGLE) if i % 3 else roi(Roi.RECTANGLE, [0, 1, 2, 3]),
            nucleus=roi(Roi.ELLIPSE, [0, 1, 2, 3]),
        )
        for i in range(2, 12)
    ]
    return (
        write_qpdata(QpData("BRIGHTFIELD_H_E", {}, many_alike(9))),
        write_qpdata(QpData("BRIGHTFIELD_H_E", {}, many_alike(9, Kind.CELL))),
        file_with(*objects, Made(uid(20), children=objects[:3])),
    )


def outcome(reader: type[Pieces], raw: bytes) -> QpData | None:
    """What a reader makes of the bytes; None for an error of the one type that is allowed."""
    try:
        return read_by(reader, raw)
    except QuPathFormatError:
        return None


def check_damaged(raw: bytes) -> None:
    plainly = outcome(Pieces, raw)
    try:
        quickly = outcome(LeafReader, raw)
    except SkippedReference:
        quickly = plainly
    assert (quickly is None) == (plainly is None)
    if quickly is None or plainly is None:
        return
    assert differences(quickly.objects, plainly.objects) == []
    try:
        written = write_qpdata(quickly)
    except ProjectError:
        return
    back = read_qpdata(written)
    assert differences(back.objects, quickly.objects) == []
    assert write_qpdata(back) == written


Change = tuple[int, bytes, int]
# Where, what is put there, and how many bytes it replaces.
changes = st.tuples(
    st.integers(0, 1 << 20),
    st.one_of(
        st.binary(max_size=4),
        st.sampled_from([b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x70", b"\x78", b"\x77\x08"]),
        st.integers(0, 150).map(reference),
    ),
    st.sampled_from([0, 1, 1, 1, 2, 4, 5, 40]),
)


def changed_by(raw: bytes, changed: list[Change]) -> bytes:
    made = bytearray(raw)
    for where, new, instead in changed:
        at = where % len(made)
        made[at : at + instead] = new
    return bytes(made)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([0, 1, 2]), st.lists(changes, min_size=1, max_size=3))
def test_changed_bytes_give_a_file_or_the_one_error(base: int, changed: list[Change]) -> None:
    check_damaged(changed_by(bases()[base], changed))


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None)
@given(st.sampled_from([0, 1, 2]), st.lists(changes, min_size=1, max_size=6))
def test_thousands_of_changed_files_give_a_file_or_the_one_error(base: int, changed: list[Change]) -> None:
    check_damaged(changed_by(bases()[base], changed))


@pytest.mark.slow
def test_coverage_guided_fuzzing_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, "-m", "tests.qupath.native.fuzzing", "-runs=10000", "-max_len=20000", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([0, 1, 2]), st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.integers(1, 300))
def test_a_piece_of_a_file_in_another_place_gives_a_file_or_the_one_error(
    base: int, source: int, target: int, size: int
) -> None:
    raw = bytearray(bases()[base])
    start, at = source % len(raw), target % len(raw)
    raw[at : at + size] = raw[start : start + size]
    check_damaged(bytes(raw))


@pytest.mark.parametrize("base", [0, 1, 2])
def test_a_file_that_is_cut_off_anywhere_is_refused(base: int) -> None:
    raw = bases()[base]
    for end in range(0, len(raw), 7):
        with pytest.raises(QuPathFormatError):
            read_qpdata(raw[:end])


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([0, 1, 2]), st.integers(0, 1 << 20))
def test_anything_behind_a_good_beginning_gives_the_one_error(noise: bytes, base: int, cut: int) -> None:
    raw = bases()[base]
    check_damaged(raw[: cut % len(raw)] + noise)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(qpdatas(), st.lists(changes, min_size=1, max_size=2))
def test_changed_bytes_in_arbitrary_files_give_a_file_or_the_one_error(data: QpData, changed: list[Change]) -> None:
    check_damaged(changed_by(write_qpdata(data), changed))


@pytest.mark.parametrize("size", [b"\x7f\xff\xff\xff", b"\x00\xff\xff\xff", b"\xff\xff\xff\xff"])
def test_lengths_that_the_file_does_not_have_take_no_memory(size: bytes) -> None:
    """Counts of children, elements and characters that are as large as they can be."""
    raw = bases()[2]
    tracemalloc.start()
    try:
        for at in range(len(raw) - 600, len(raw) - 4, 11):
            with suppress(QuPathFormatError):
                read_qpdata(raw[:at] + size + raw[at + 4 :])
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


REPEATED = {
    "null": b"\x70",
    "string": b"\x74\x00\x03abc",
    "reference": b"\x71\x00\x7e\x00\x00",
    "class": b"\x73\x72\x00\x01a" + bytes(8) + b"\x02\x00\x00\x78",
    "list": b"\x73\x72\x00\x13java.util.ArrayList"
    + bytes.fromhex("7881D21D99C7619D 03 0001 49 0004 73697a65 78 70 7fffffff 77 04 7fffffff"),
    "array": b"\x75\x72\x00\x13[Ljava.lang.Object;" + bytes.fromhex("90CE589F1073296C 02 0000 78 70 00000001"),
}


@pytest.mark.parametrize("kind", REPEATED)
def test_what_is_repeated_without_end_is_refused_in_bounded_time(kind: str) -> None:
    raw = write_qpdata(QpData())
    piece = REPEATED[kind]
    started = time.process_time()
    with pytest.raises(QuPathFormatError):
        read_qpdata(raw[: raw.index(b"sr\x00")] + piece * (400_000 // len(piece)))
    # About a second where it is slow; a time that grew with the square would be minutes.
    assert time.process_time() - started < 15


def test_a_tower_of_objects_is_read_without_recursion() -> None:
    inner = Made(uid(2)).node()
    for number in range(3, 5_000):
        outer = Made(uid(number)).node()
        outer.content[4:5] = [b"\0\0\0\1", inner]
        inner = outer
    top = Made(uid(1), desc=ROOT).node()
    top.content[4:] = [b"\0\0\0\1", inner]
    data = read_qpdata(file_of(JavaObject(HIERARCHY, [Part([top, None], [])])))
    assert [o.uuid for o in data.objects] == [uid(number) for number in range(4_999, 1, -1)]
    with pytest.raises(ProjectError, match="more than 100 deep"):
        write_qpdata(data)


def test_a_reference_to_an_element_that_was_passed_over_is_followed_all_the_same() -> None:
    """The last object's metadata are those of the one before: QuPath shares no such thing, but a script may."""
    nodes = [Made(uid(i), texts={"k": f"text {i}"}).node() for i in range(2, 12)]
    nodes.append(Made(uid(12)).node())
    nodes[-1].content[2] = nodes[-2].content[2]
    top = Made(uid(1), desc=ROOT).node()
    top.content[4:] = [len(nodes).to_bytes(4, "big"), *nodes]
    raw = file_of(JavaObject(HIERARCHY, [Part([top, None], [])]))
    with pytest.raises(SkippedReference):
        read_by(LeafReader, raw)
    objects = read_qpdata(raw).objects
    assert objects[-1].uuid == objects[-2].uuid == uid(11)
    assert objects[-1].metadata == {"k": "text 11"}
