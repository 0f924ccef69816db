"""Damage that decoders do not report: found in the bytes, and nothing sound is taken for damage."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.slides.make import texture
from wsi_pipeline.slides.damage import fault, reports, zeros_are_damage

JPEG, JPEG2000, DEFLATE = 7, 33005, 8


def jpeg(image: NDArray[np.uint8], **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return file.getvalue()


def jpeg2000(image: NDArray[np.uint8]) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(image, level=40, codecformat="J2K"))


def scarred(data: bytes, start: float, length: int) -> bytes:
    at = int(len(data) * start)
    return data[:at] + bytes(length) + data[at + length :]


@given(
    seed=st.integers(0, 1000),
    quality=st.integers(20, 98),
    optimize=st.booleans(),
    even=st.booleans(),
    side=st.sampled_from([16, 100, 256]),
)
@settings(deadline=None, max_examples=60)
def test_a_sound_jpeg_has_no_fault(seed: int, quality: int, optimize: bool, even: bool, side: int) -> None:
    image = np.full((side, side, 3), seed % 256, np.uint8) if even else texture(side, side, seed)
    assert fault(jpeg(image, quality=quality, optimize=optimize), JPEG) is None


@pytest.mark.parametrize("image", [texture(256, 256), np.full((256, 256, 3), 200, np.uint8)], ids=["busy", "even"])
def test_a_sound_jpeg_2000_has_no_fault(image: NDArray[np.uint8]) -> None:
    assert fault(jpeg2000(image), JPEG2000) is None


@pytest.mark.parametrize("start", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("length", [64, 512])
def test_a_gap_of_zeros_in_a_jpeg_is_a_fault(start: float, length: int) -> None:
    damaged = scarred(jpeg(texture(256, 256), quality=80), start, length)
    assert imagecodecs.jpeg8_decode(damaged).shape == (256, 256, 3), "the decoder itself says nothing"
    assert fault(damaged, JPEG) == "has a gap of zeros: its data are damaged"


def test_a_gap_of_zeros_in_a_jpeg_2000_is_a_fault() -> None:
    damaged = scarred(jpeg2000(texture(256, 256)), 0.5, 600)
    assert fault(damaged, JPEG2000) == "has a gap of zeros: its data are damaged"


@pytest.mark.parametrize(("code", "make"), [(JPEG, jpeg), (JPEG2000, jpeg2000)])
def test_what_was_cut_off_overwritten_or_emptied_is_a_fault(code: int, make: object) -> None:
    data = jpeg(texture(64, 64)) if code == JPEG else jpeg2000(texture(64, 64))
    assert "does not end" in str(fault(data[: len(data) // 2], code))
    assert "does not begin" in str(fault(bytes(4) + data[4:], code))
    assert "does not begin" in str(fault(bytes(len(data)), code))
    assert fault(data + bytes(300), code) is None, "padding after the end is harmless"


def test_other_compressions_are_left_to_their_decoders() -> None:
    assert fault(bytes(5000), DEFLATE) is None


def test_zeros_are_sound_where_the_tables_give_them_to_an_even_area() -> None:
    usual = jpeg(texture(64, 64))
    assert zeros_are_damage(usual[: usual.find(b"\xff\xda")])
    assert not zeros_are_damage(b"")
    # A table with one code of one bit: end of block. Class and number, how many codes of each length, the symbols.
    table = b"\x10" + b"\x01" + bytes(15) + b"\x00"
    assert not zeros_are_damage(b"\xff\xd8\xff\xc4" + (2 + len(table)).to_bytes(2, "big") + table)


def test_a_part_between_restart_markers_needs_neither_begin_nor_end() -> None:
    data = jpeg(texture(256, 256), restart_marker_blocks=16)
    scan = data.find(b"\xff\xda")
    body = data[scan + 14 :]
    first = body[: body.find(b"\xff\xd0") + 2]
    assert fault(first, JPEG, data[: scan + 14], part=True) is None
    assert fault(first[:-2], JPEG, data[: scan + 14], part=True) is not None
    assert fault(scarred(first, 0.3, 64), JPEG, data[: scan + 14], part=True) is not None


def test_what_tifffile_logs_is_heard_in_the_thread_that_listens_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole.tif"
    with tifffile.TiffWriter(whole) as writer:
        for _ in range(2):
            writer.write(texture(64, 64), photometric="rgb", metadata=None)
    with tifffile.TiffFile(whole) as tiff:
        second = tiff.pages[1].offset
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole.read_bytes()[:second])
    heard_elsewhere: list[str] = []
    listening, done = threading.Event(), threading.Event()

    def listen() -> None:
        with reports() as heard:
            listening.set()
            done.wait(10)
            heard_elsewhere.extend(heard)

    thread = threading.Thread(target=listen)
    thread.start()
    listening.wait(10)
    with reports() as heard, tifffile.TiffFile(cut) as tiff:
        assert len(tiff.pages) == 1
    done.set()
    thread.join()
    assert heard
    assert "is cut off" in heard[0]
    assert heard_elsewhere == []
    assert caplog.text == ""
    logging.getLogger("tifffile").warning("somebody else's")
    assert "somebody else's" in caplog.text
