"""The `serverBuilder` of a project image: how QuPath is told to open a slide. Plain JSON values, no files.

Forms checked against the sources of QuPath 0.4.4 to 0.7.0 (ImageServers, ImageServerBuilder, DefaultProject).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.qupath.protocol import LevelLike

Builder = Mapping[str, Any]

OPENSLIDE = "qupath.lib.images.servers.openslide.OpenslideServerBuilder"
BIOFORMATS = "qupath.lib.images.servers.bioformats.BioFormatsServerBuilder"
NO_CROP = "--no-crop"
_TILE = 256
_CHANNELS = (("Red", -65536), ("Green", -16711936), ("Blue", -16776961))

# What java.net.URI refuses: with one such character in one image's URI, QuPath opens nothing of the project.
_NOT_IN_URI = re.compile(r"[\x00-\x20\x7f\"<>\\^`{|}\u0080-\u00a0\u2028\u2029]|%(?![0-9a-fA-F]{2})")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
# Characters that are left as they are when a path becomes a URI.
_SAFE = "/:@!$&'()*+,;=~"


def slide_uri(slide: str | Path) -> str:
    """A URI as QuPath stores it: absolute, percent-encoded UTF-8, `file:///...` for paths.

    Raises
    ------
    ProjectError
        QuPath cannot open such an address (S3 and other object stores), or it is not a URI.
    """
    text = str(slide)
    if not _SCHEME.match(text):
        return Path(text).absolute().as_uri()
    scheme, rest = text.split(":", 1)
    if scheme.lower() not in {"file", "http", "https"}:
        raise ProjectError(
            f"{text}: QuPath cannot open {scheme} addresses; map the prefix to what the pathologist's machine sees "
            "in `handout.slide_uris`"
        )
    if _NOT_IN_URI.search(rest) or not rest.isascii():
        rest = quote(rest, safe=_SAFE + "?#") if "%" not in rest else quote(rest, safe=_SAFE + "?#%")
    if scheme.lower() == "file" and not rest.startswith("//"):
        rest = "///" + rest.lstrip("/")
    return f"{scheme.lower()}:{rest}"


def check_uri(uri: Any, where: str) -> None:
    """Raise `ProjectError` for a URI that java.net.URI would not parse."""
    if not isinstance(uri, str) or not uri:
        raise ProjectError(f"{where}: its address is missing or not a text")
    bad = _NOT_IN_URI.search(uri)
    if bad:
        raise ProjectError(
            f"{where}: the address {uri} holds {bad.group()!r}, for which QuPath refuses the whole project; "
            "percent-encode it"
        )
    try:
        urlsplit(uri)
    except ValueError as error:
        raise ProjectError(f"{where}: {uri} is no address ({error}); QuPath opens nothing of the project") from error


@lru_cache(maxsize=8192)
def canonical(uri: str) -> str:
    """A form in which two URIs of one slide are equal: decoded, `file:/x` as `file:///x`, UNC as `file://server/x`."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.scheme.lower() == "file":
        host, path = ("", path) if parts.netloc in {"", "localhost"} else (parts.netloc.lower(), path)
        if not host and path.startswith("//"):
            host, _, path = path.lstrip("/").partition("/")
        return f"file://{host.lower()}/{path.lstrip('/')}"
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{path}" + (f"?{parts.query}" if parts.query else "")


def local_path(uri: str) -> Path | None:
    """Where a `file:` URI points on this machine; None for any other address."""
    parts = urlsplit(uri)
    if parts.scheme.lower() != "file" or parts.netloc not in {"", "localhost"}:
        return None
    return Path("/" + unquote(parts.path).lstrip("/"))


def innermost(builder: Builder) -> Builder:
    """The `uri` builder inside all the wrappers, or the wrapper that holds no single one (sparse, concatenated)."""
    while isinstance(builder.get("builder"), Mapping):
        builder = builder["builder"]
    return builder


def builder_uri(builder: Builder) -> str:
    """The URI of the slide; an empty text when the builder has none or several."""
    uri = innermost(builder).get("uri")
    return uri if isinstance(uri, str) else ""


def builder_size(builder: Builder) -> tuple[int, int] | None:
    """Width and height in px of the image that this builder makes, from its metadata; None when it states none."""
    metadata = builder.get("metadata")
    if not isinstance(metadata, Mapping):
        return None
    width, height = metadata.get("width"), metadata.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def pixel_size(builder: Builder) -> tuple[float, float, str] | None:
    """Pixel width, height and unit (`µm` or `px`) of the builder's metadata; None when it states none."""
    metadata = builder.get("metadata")
    calibration = metadata.get("pixelCalibration") if isinstance(metadata, Mapping) else None
    if not isinstance(calibration, Mapping):
        return None
    width, height = (_mapping(calibration.get(key)) for key in ("pixelWidth", "pixelHeight"))
    return float(width.get("value") or 1.0), float(height.get("value") or 1.0), str(width.get("unit", "px"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def uri_builder(
    uri: str,
    name: str,
    *,
    size: tuple[int, int],
    mpp: float | None,
    levels: Sequence[LevelLike] = (),
    no_crop: bool = False,
    pixel: tuple[float, float] | None = None,
    magnification: float | None = None,
    tile: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The builder of a plain slide.

    Without a provider QuPath takes any reader that opens the file, which is the safe choice. Only a slide with
    `openslide.bounds` names the OpenSlide reader, because it alone crops and alone knows `--no-crop`.

    Parameters
    ----------
    mpp
        None leaves everything to the file; a number (µm per level-0 px) replaces the file's calibration, for which
        QuPath needs the whole metadata of an 8-bit RGB image.
    pixel, magnification, tile
        What the file states beside that, to stand in the metadata as QuPath's reader would have it: sizes of a pixel
        in µm (x, y) instead of `mpp`, magnification of the objective, size of a tile in px.
    """
    builder: dict[str, Any] = {"builderType": "uri"}
    if no_crop:
        builder["providerClassName"] = OPENSLIDE
    builder |= {"uri": uri, "args": [NO_CROP] if no_crop else []}
    if mpp is not None:
        builder["metadata"] = _metadata(name, size, pixel or (mpp, mpp), levels, tile or (_TILE, _TILE), magnification)
    return builder


def file_name(uri: str) -> str:
    """The slide's file name, decoded: what QuPath calls an image whose metadata do not say otherwise."""
    return unquote(urlsplit(uri).path.rstrip("/").rpartition("/")[2])


def _metadata(
    name: str,
    size: tuple[int, int],
    pixel: tuple[float, float],
    levels: Sequence[LevelLike],
    tile: tuple[int, int],
    magnification: float | None,
) -> dict[str, Any]:
    width, height = int(size[0]), int(size[1])
    pyramid = [
        {"downsample": float(level.downsample), "width": int(level.width), "height": int(level.height)}
        for level in levels
    ] or [{"downsample": 1.0, "width": width, "height": height}]
    x, y = ({"value": float(side), "unit": "µm"} for side in pixel)
    return {
        "name": name,
        "width": width,
        "height": height,
        "sizeZ": 1,
        "sizeT": 1,
        "channelType": "DEFAULT",
        "isRGB": True,
        "pixelType": "UINT8",
        "levels": pyramid,
        "channels": [{"name": channel, "color": color} for channel, color in _CHANNELS],
        "pixelCalibration": {
            "pixelWidth": x,
            "pixelHeight": y,
            "zSpacing": {"value": 1.0, "unit": "z-slice"},
            "timeUnit": "SECONDS",
            "timepoints": [],
        },
        **({} if magnification is None else {"magnification": float(magnification)}),
        "preferredTileWidth": tile[0],
        "preferredTileHeight": tile[1],
    }
