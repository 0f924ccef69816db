"""From the bytes of a tile or strip to its pixels, or to a word on what is wrong with them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.slides.damage import JPEG, JPEG2000, fault
from wsi_pipeline.slides.jpeg import DamagedTile, strictly_decoded
from wsi_pipeline.slides.readers import RGB, YCBCR, RGBImage

# TIFF compression codes: none, LZW, Deflate (three), PackBits, Zstandard.
_SIMPLE = frozenset({1, 5, 8, 32773, 32946, 34926, 50000})
# Aperio's JPEG 2000 of luminance and chrominance.
_APERIO_YCBCR = 33003
# Codestream and size segment of JPEG 2000 (ITU-T T.800, A.5.1), and the segment of the coding style.
_J2K_START, _J2K_STYLE = b"\xff\x4f\xff\x51", b"\xff\x52"


def decodable(page: Any) -> bool:
    """Whether a page of tifffile is read piece by piece here: 8-bit RGB, and a compression that is known to work."""
    frame = page.keyframe
    known = int(frame.compression) in JPEG | JPEG2000 | _SIMPLE
    eight_bit_rgb = frame.dtype == np.uint8 and int(frame.samplesperpixel) == 3 and int(frame.planarconfig) == 1
    plain = int(frame.photometric) in {RGB, YCBCR} and int(frame.imagedepth) == 1
    return bool(known and eight_bit_rgb and plain)


class Decoder:
    """Decodes the pieces (tiles or strips) of one page; `page` is tifffile's.

    Attributes
    ----------
    size
        Width and height of the picture.
    piece
        Height and width of a piece.
    columns
        Pieces side by side.
    """

    def __init__(self, page: Any) -> None:
        frame = page.keyframe
        self.size = (int(frame.imagewidth), int(frame.imagelength))
        if frame.is_tiled:
            self.piece = (int(frame.tilelength), int(frame.tilewidth))
        else:
            self.piece = (min(int(frame.rowsperstrip), self.size[1]), self.size[0])
        self.columns = -(-self.size[0] // self.piece[1])
        self._compression = int(frame.compression)
        self._tables: bytes | None = frame.jpegtables
        # NDPI: pieces of one large JPEG that share its header.
        self._header: bytes | None = frame.jpegheader
        self._rgb = int(frame.photometric) == RGB and not frame.is_jfif
        self._ycbcr = int(frame.photometric) == YCBCR or self._compression == _APERIO_YCBCR
        # tifffile builds the decoder at first use, which is not safe from several threads at once.
        self._decode: Callable[..., Any] = frame.decode

    def __call__(self, data: bytes, number: int) -> RGBImage:
        """Pixels of a piece: uint8 (height, width, 3), white where it ends before its full size.

        Raises
        ------
        ValueError
            The data are damaged or cannot be decoded; says how, as in "is damaged".
        """
        tables = self._tables if self._header is None else self._header
        wrong = fault(data, self._compression, tables, part=self._header is not None)
        if wrong is not None:
            raise DamagedTile(wrong)
        if self._compression in JPEG2000:
            return self._whole(self._jpeg2000(data, number))
        image = None
        if self._compression in JPEG and self._header is None:
            image = strictly_decoded(data, self._tables, self._sizes(number), rgb=self._rgb)
        return self._whole(self._by_tifffile(data, number) if image is None else image)

    def _sizes(self, number: int) -> set[tuple[int, int]]:
        """Heights and widths that a piece may have: its own, or less where the picture ends."""
        height, width = self.piece
        below = min(height, self.size[1] - number // self.columns * height)
        right = min(width, self.size[0] - number % self.columns * width)
        return {(height, width), (below, width), (below, right)}

    def _by_tifffile(self, data: bytes, number: int) -> NDArray[np.uint8]:
        try:
            image, *_ = self._decode(data, number, jpegtables=self._tables, jpegheader=self._header)
        except Exception as error:
            raise ValueError(f"cannot be decoded: {error}") from error
        if image is None:
            raise ValueError("is empty")
        pixels: NDArray[np.uint8] = image[0] if image.ndim == 4 else image
        return pixels

    def _jpeg2000(self, data: bytes, number: int) -> NDArray[np.uint8]:
        import imagecodecs

        kind = Codestream.of(data)
        sizes = self._sizes(number)
        if kind is not None and (kind.height, kind.width) not in sizes:
            raise DamagedTile(f"says that it has {kind.width} x {kind.height} px: its header is damaged")
        try:
            image: NDArray[np.uint8] = imagecodecs.jpeg2k_decode(data)
        except Exception as error:
            raise ValueError(f"cannot be decoded: {error}") from error
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[:2] not in sizes or image.shape[2] != 3:
            raise DamagedTile(f"holds {image.dtype} {image.shape}: its header is damaged")
        if self._ycbcr and kind is not None and kind.keeps_colours:
            # The codestream does not say that its components are no colours.
            return np.asarray(Image.fromarray(image, "YCbCr").convert("RGB"))
        return image

    def _whole(self, piece: NDArray[np.uint8]) -> RGBImage:
        if piece.shape[:2] == self.piece:
            return np.ascontiguousarray(piece)
        whole = np.full((*self.piece, 3), 255, np.uint8)
        whole[: piece.shape[0], : piece.shape[1]] = piece
        return whole


class Codestream:
    """What a JPEG 2000 codestream says of its picture.

    Attributes
    ----------
    width, height
        In px.
    keeps_colours
        Its components are neither mixed (the transform of Annex G) nor of different sizes: a decoder, which knows
        chrominance by its smaller size, gives them as they are.
    """

    def __init__(self, width: int, height: int, keeps_colours: bool) -> None:
        self.width = width
        self.height = height
        self.keeps_colours = keeps_colours

    @classmethod
    def of(cls, data: bytes) -> Codestream | None:
        """None where the data are no codestream by themselves (JP2)."""
        if not data.startswith(_J2K_START) or len(data) < 42:
            return None
        right, bottom, left, top = struct.unpack(">4I", data[8:24])
        (components,) = struct.unpack(">H", data[40:42])
        # Three bytes of each component: depth, and how far its samples lie apart in x and y.
        apart = {data[at + 1 : at + 3] for at in range(42, 42 + 3 * components, 3)}
        style = data.find(_J2K_STYLE, 42 + 3 * components)
        mixed = 0 <= style < len(data) - 8 and data[style + 8] != 0
        return cls(right - left, bottom - top, len(apart) == 1 and not mixed)
