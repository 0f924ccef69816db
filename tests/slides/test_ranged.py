"""A file made of ranges behaves as Python's own do."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.slides.archives import Window
from wsi_pipeline.slides.ranged import RangedFile

moves = st.lists(
    st.one_of(
        st.tuples(st.just("seek"), st.integers(0, 40), st.just(io.SEEK_SET)),
        st.tuples(st.just("seek"), st.integers(0, 9), st.just(io.SEEK_CUR)),
        st.tuples(st.just("seek"), st.integers(-9, 9), st.just(io.SEEK_END)),
        st.tuples(st.just("read"), st.integers(-1, 40), st.just(0)),
    ),
    max_size=12,
)


class Whole(RangedFile):
    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self._data = data
        self.asked: list[tuple[int, int]] = []

    def _bytes(self, start: int, end: int) -> bytes:
        self.asked.append((start, end))
        return self._data[start:end]


def same(file: io.RawIOBase, expected: io.BytesIO, steps: list[tuple[str, int, int]]) -> None:
    for what, number, whence in steps:
        if what == "seek":
            assert file.seek(number, whence) == expected.seek(number, whence)
        else:
            assert file.read(number) == expected.read(number)
        assert file.tell() == expected.tell()


@given(st.binary(min_size=9, max_size=30), moves)
def test_it_reads_as_the_same_bytes_in_memory(data: bytes, steps: list[tuple[str, int, int]]) -> None:
    file = Whole(data)
    same(file, io.BytesIO(data), steps)
    assert all(0 <= start < end <= len(data) for start, end in file.asked)


@given(st.binary(max_size=9), st.binary(min_size=9, max_size=30), st.binary(max_size=9), moves)
def test_a_part_of_a_file_reads_as_that_part_alone(
    before: bytes, data: bytes, behind: bytes, steps: list[tuple[str, int, int]]
) -> None:
    whole = io.BytesIO(before + data + behind)
    window = Window(whole, len(before), len(data))
    same(window, io.BytesIO(data), steps)
    window.close()
    assert whole.closed


def test_a_file_that_turns_out_shorter_ends_there() -> None:
    window = Window(io.BytesIO(b"abcdef"), 2, 100)
    assert window.read() == b"cdef"
    assert window.read() == b""
