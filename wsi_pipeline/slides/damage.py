"""Damage that decoders pass over in silence: what can be seen in a tile's bytes before they are decoded.

A JPEG decoder fills the rest of a tile with grey or noise when its data break off, and says nothing; OpenJPEG does
so too. A sector of zeros, the usual scar of a disk or of a copy that broke off, cannot occur in sound data: see
`zeros_are_damage`.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# TIFF compression codes.
JPEG = frozenset({6, 7, 34892})
JPEG2000 = frozenset({33003, 33004, 33005, 34712})

# A run of zero bytes that no sound data have. Empty packets of JPEG 2000 are one zero byte each, so a few hundred
# may follow each other.
JPEG_ZEROS = bytes(64)
JPEG2000_ZEROS = bytes(512)

_START_OF_SCAN = b"\xff\xda"
_HUFFMAN_TABLES = 0xC4
_COEFFICIENTS = 1
_END_OF_BLOCK = 0


def fault(data: bytes, compression: int, tables: bytes | None = None, *, part: bool = False) -> str | None:
    """What is wrong with the bytes of a tile, or None when nothing shows.

    Parameters
    ----------
    compression
        TIFF code.
    tables
        Header or tables that the tile shares with others.
    part
        The tile is a part of one large JPEG between two restart markers (NDPI), without header and end.
    """
    if compression in JPEG:
        return _jpeg_fault(data, tables, part)
    if compression in JPEG2000:
        return _jpeg2000_fault(data)
    return None


def _jpeg_fault(data: bytes, tables: bytes | None, part: bool) -> str | None:
    end = data.rstrip(b"\0")
    if not part and not data.startswith(b"\xff\xd8"):
        return "does not begin as JPEG"
    if not end.endswith(b"\xff\xd9") and not (part and end[-2:-1] == b"\xff"):
        return "does not end as JPEG: its data are damaged"
    if JPEG_ZEROS in end:
        scan = 0 if part else max(0, end.find(_START_OF_SCAN))
        if JPEG_ZEROS in end[scan:] and zeros_are_damage((tables or b"") + end[: scan + 5]):
            return "has a gap of zeros: its data are damaged"
    return None


def zeros_are_damage(header: bytes) -> bool:
    """Whether a long run of zero bytes cannot be sound under the Huffman tables in a JPEG's header.

    Zero bits are the first code of a table. With the usual table for luminance it stands for a coefficient, and
    dozens of equal ones in each block of 8 x 8 px are no picture. Tables made for one image may give it to "end of
    block" in every table, and then an even area is all zeros; so it is with the usual table for chrominance where
    that has a scan of its own.
    """
    scan = header.rfind(_START_OF_SCAN)
    if scan >= 0 and header[scan + 4 : scan + 5] in {b"\1", b"\2"}:
        return False
    return any(kind == _COEFFICIENTS and symbol != _END_OF_BLOCK for kind, symbol in _first_symbols(header))


def _first_symbols(header: bytes) -> Iterator[tuple[int, int]]:
    """Class (0: DC, 1: AC) and first symbol of each Huffman table (ITU-T T.81, B.2.4.2)."""
    at = 0
    while at + 4 <= len(header):
        if header[at] != 0xFF or header[at + 1] in {0x00, 0xD8, 0xD9, 0xFF}:
            at += 1 if header[at] != 0xFF or header[at + 1] == 0xFF else 2
            continue
        (length,) = struct.unpack(">H", header[at + 2 : at + 4])
        if header[at + 1] == _HUFFMAN_TABLES:
            yield from _tables(header[at + 4 : at + 2 + length])
        at += 2 + length


def _tables(segment: bytes) -> Iterator[tuple[int, int]]:
    while len(segment) >= 17:
        symbols = sum(segment[1:17])
        if symbols and len(segment) > 17:
            yield segment[0] >> 4, segment[17]
        segment = segment[17 + symbols :]


def _jpeg2000_fault(data: bytes) -> str | None:
    end = data.rstrip(b"\0")
    if not data.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")):
        return "does not begin as JPEG 2000"
    if not end.endswith(b"\xff\xd9"):
        return "does not end as JPEG 2000: its data are damaged"
    return "has a gap of zeros: its data are damaged" if JPEG2000_ZEROS in end else None


_listening = threading.local()


class _Listener(logging.Filter):
    """Takes what tifffile logs in a thread that listens; slides are opened in several threads at once."""

    def filter(self, record: logging.LogRecord) -> bool:
        found: list[str] | None = getattr(_listening, "found", None)
        if found is None:
            return True
        text = record.getMessage()
        if "invalid page offset" in text or "invalid offset to" in text:
            found.append("is cut off: a level of its pyramid is missing (" + text.rsplit("> ", 1)[-1] + ")")
        return False


@cache
def _attach_listener() -> None:
    logging.getLogger("tifffile").addFilter(_Listener())


@contextmanager
def reports() -> Iterator[list[str]]:
    """What tifffile only logs in this thread while the block runs: links to parts of the file that are not there."""
    _attach_listener()
    found: list[str] = []
    _listening.found = found
    try:
        yield found
    finally:
        _listening.found = None
