"""Pixel size from the XML that OME-TIFF carries (the OME model's `PhysicalSizeX` and `PhysicalSizeY`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree import ElementTree

# µm in each unit of length that the OME schema knows and that a slide may be measured in; µm where none is said.
_UM = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "mm": 1e3, "cm": 1e4, "m": 1e6, "pm": 1e-6}


def ome_mpp(xml: str, image: int) -> tuple[float, float] | None:
    """µm per pixel in x and y of one of the file's images; None where it is not said, or in a unit like the pixel.

    Parameters
    ----------
    xml
        OME's metadata; what is no XML says nothing.
    image
        Number of the image in the file's order.
    """
    # Few slides need it: not loaded at the start.
    from xml.etree import ElementTree

    try:
        # tifffile has parsed it in the same way before.
        root = ElementTree.fromstring(xml)  # noqa: S314
    except ElementTree.ParseError:
        return None
    # The name space has the year of the schema in it.
    images = [item for item in root if _name(item) == "Image"]
    pixels = [item for item in images[image : image + 1] for item in item if _name(item) == "Pixels"]
    if not pixels:
        return None
    x, y = (_um(pixels[0], axis) for axis in "XY")
    return None if x is None or y is None else (x, y)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _um(pixels: ElementTree.Element, axis: str) -> float | None:
    unit = _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").replace("\u03bc", "\u00b5"))
    try:
        size = float(pixels.get(f"PhysicalSize{axis}", ""))
    except ValueError:
        return None
    return None if unit is None or not size > 0 else size * unit
