"""Strict decoding: the pixels that tifffile's decoder gives, and no picture of damaged data."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.slides.make import texture
from wsi_pipeline.slides.jpeg import DamagedTile, strictly_decoded

SIDE = 96
SIZES = {(SIDE, SIDE)}


def jpeg(image: NDArray[np.uint8], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return file.getvalue()


def without(data: bytes, marker: int) -> bytes:
    """The JPEG without its first segment of a kind."""
    at = data.index(bytes([0xFF, marker]))
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def parted(data: bytes) -> tuple[bytes, bytes]:
    """Tables and the rest, as TIFF keeps them for many tiles."""
    tables = b""
    for marker in (0xDB, 0xC4):
        while (at := data[: data.index(b"\xff\xda")].find(bytes([0xFF, marker]))) > 0:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            tables, data = tables + data[at:end], data[:at] + data[end:]
    return b"\xff\xd8" + tables + b"\xff\xd9", data


@given(
    seed=st.integers(0, 1000),
    quality=st.integers(20, 98),
    subsampling=st.sampled_from([0, 1, 2]),
    progressive=st.booleans(),
    restart=st.sampled_from([0, 3]),
    apart=st.booleans(),
    rgb=st.booleans(),
    jfif=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_sound_data_give_the_pixels_of_tifffiles_decoder(
    seed: int, quality: int, subsampling: int, progressive: bool, restart: int, apart: bool, rgb: bool, jfif: bool
) -> None:
    data = jpeg(
        texture(SIDE, SIDE, seed), quality=quality, subsampling=subsampling, progressive=progressive,
        **({"restart_marker_blocks": restart} if restart else {}),
    )  # fmt: skip
    data = data if jfif else without(data, 0xE0)
    tables, tile = parted(data) if apart and not progressive else (None, data)
    # As tifffile says it: of Aperio's tiles, which do not say what they are, that they are red, green and blue.
    expected = imagecodecs.jpeg8_decode(tile, tables=tables, colorspace=2 if rgb else None, outcolorspace=2)
    found = strictly_decoded(tile, tables, SIZES, rgb=rgb)
    if rgb and jfif:
        assert found is None, "the tile and the file say different things"
    else:
        np.testing.assert_array_equal(found, expected)


def test_tables_that_say_what_the_colours_are_do_not_say_so_of_the_tile() -> None:
    tables, tile = parted(without(jpeg(texture(SIDE, SIDE)), 0xE0))
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    assert strictly_decoded(tile, tables, SIZES, rgb=False) is not None
    assert strictly_decoded(tile, tables[:2] + adobe + tables[2:], SIZES, rgb=False) is None


def spoilt(data: bytes, how: str, at: int, rng: np.random.Generator) -> bytes:
    other = jpeg(texture(SIDE, SIDE, 99), quality=90)
    return {
        "garbage": data[:at] + rng.bytes(300) + data[at + 300 :],
        "another tile": data[:at] + other[-900:-600] + data[at + 300 :],
        "lost": data[:at] + data[at + 300 :],
        "cut, and an end put on": data[:at] + b"\xff\xd9",
        "ones": data[:at] + b"\xff" * 300 + data[at + 300 :],
    }[how]


@pytest.mark.parametrize("how", ["garbage", "another tile", "lost", "cut, and an end put on", "ones"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_damage_in_the_middle_of_the_scan_is_found(how: str, share: float) -> None:
    data = jpeg(texture(SIDE, SIDE, 1), quality=90)
    rng = np.random.default_rng(3)
    passed = 0
    for _ in range(10):
        damaged = spoilt(data, how, int(len(data) * share) + int(rng.integers(50)), rng)
        found = None
        with contextlib.suppress(DamagedTile):
            found = strictly_decoded(damaged, None, SIZES, rgb=False)
            if found is None:
                # Not even a lenient decoder makes a picture of it.
                with pytest.raises(imagecodecs.Jpeg8Error):
                    imagecodecs.jpeg8_decode(damaged)
        passed += found is not None
    # What an encoder wrote for another place may happen to end where it should.
    assert passed <= (2 if how == "another tile" else 0)


def test_what_is_wrong_is_said() -> None:
    data = jpeg(texture(SIDE, SIDE, 1), quality=90)
    with pytest.raises(DamagedTile, match=r"^is damaged \(.*premature end"):
        strictly_decoded(data[: len(data) // 2] + b"\xff\xd9", None, SIZES, rgb=False)


def test_a_header_that_asks_for_gigabytes_is_not_believed() -> None:
    data = jpeg(texture(SIDE, SIDE))
    at = data.index(b"\xff\xc0") + 5
    damaged = data[:at] + b"\xff\x00\xff\x00" + data[at + 4 :]
    with pytest.raises(DamagedTile, match="says that it has 65280 x 65280 px"):
        strictly_decoded(damaged, None, SIZES, rgb=False)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xd9", b"\xff\xd8" + bytes(50), b"nothing at all"])
def test_what_is_no_jpeg_is_left_to_others(data: bytes) -> None:
    assert strictly_decoded(data, None, SIZES, rgb=False) is None
