"""JPEG tiles decoded by libjpeg-turbo, which is asked what it thinks of them.

A JPEG decoder goes on after damage: it fills what is missing with grey, leaves out what is too much, and counts a
warning. tifffile's decoder does not show that count, simplejpeg can refuse such data; the pixels are the same, since
both call the same library, and so is the time. OpenSlide refuses a tile for any warning too: what it reads without
complaint is read here.
"""

from __future__ import annotations

from collections.abc import Collection

import simplejpeg

from wsi_pipeline.slides.readers import RGBImage

_START, _END, _SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
# Adobe's segment, which says that the three components are red, green and blue.
_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
# Segments that say what the components are.
_SAY_COLOURS = (b"JFIF\0", b"Adobe")


class DamagedTile(ValueError):
    """A decoder would make a picture of the data all the same; says in words what is wrong with them."""


def strictly_decoded(
    data: bytes, tables: bytes | None, sizes: Collection[tuple[int, int]], *, rgb: bool
) -> RGBImage | None:
    """Decode a tile, or say that it is damaged.

    Parameters
    ----------
    data
        A JPEG, whose tables may stand in `tables` (TIFF's tag JPEGTables).
    sizes
        Heights and widths that it may have: a damaged header can ask for gigabytes.
    rgb
        The components are red, green and blue, though the data do not say so (Aperio); else they are what the data
        say, luminance and chrominance where they say nothing.

    Returns
    -------
    uint8 (height, width, 3), or None where somebody else has to decode it: it is of a kind that is not known here
    (lossless, say), or says something else of its colours than the file does.

    Raises
    ------
    DamagedTile
        The data end too early, go on too long, hold what no encoder writes, or are of another size.
    """
    inner = b"" if tables is None else tables[2 : tables.rfind(_END)]
    header = data[: max(0, data.find(_SCAN))]
    tile_says, tables_say = (any(name in part for name in _SAY_COLOURS) for part in (header, inner))
    whole = b"".join((_START, _RGB if rgb and not tile_says else b"", inner, data[2:]))
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(whole, strict=False)
    except (ValueError, KeyError):
        # The latter where the components' sizes are to each other as they seldom are.
        return None
    if (height, width) not in sizes:
        raise DamagedTile(f"says that it has {width} x {height} px: its header is damaged")
    try:
        image: RGBImage = simplejpeg.decode_jpeg(whole, "RGB", strict=True)
    except ValueError as error:
        if _decodes(whole):
            raise DamagedTile(f"is damaged ({' '.join(str(error).split())})") from error
        return None
    # What the tables say of colours is not meant for the tile, and the file's word goes before the tile's.
    return None if tables_say or (rgb and tile_says) else image


def _decodes(whole: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(whole, "RGB", strict=False)
    except ValueError:
        return False
    return True
