"""From the frame in which QuPath shows a slide to level-0 px, read from the image's server builder.

QuPath stores objects in the pixels of the image as its reader delivers it, and readers move pixels:

- *OpenSlide* crops to `openslide.bounds-*` unless told `--no-crop`. In the sources of 0.4.4 to 0.7.0 every tile request
  is shifted by the bounds' corner as soon as all four properties are there; the test that width *and* height differ
  (`isCropped`) only decides about the list of levels. The shift is what matters to coordinates.
- *rotated*, *flipped* (0.7) and *cropped* builders wrap another one; *affine* holds the transform from the inner image
  to the outer one.
- channels, colours, stains, types and pyramids leave pixels where they are.

Every other builder is refused by its name: taken for the identity, it would shift annotations without a word.

Where the slide cannot be reached and no metadata helps, it is not known whether OpenSlide would crop. OpenSlide states
bounds for MIRAX and Leica, whose slides are mosaics with gaps, so these are refused; the other formats have none (a
generic TIFF only when tiles are missing in it), so that they are taken as they are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.qupath.builders import (
    BIOFORMATS,
    NO_CROP,
    OPENSLIDE,
    Builder,
    builder_size,
    builder_uri,
    local_path,
)
from wsi_pipeline.qupath.protocol import IDENTITY, Affine
from wsi_pipeline.tiling import Bounds

logger = logging.getLogger(__name__)

_STAY = {"channels", "color", "color_deconvolved", "normalized", "typeConvert", "swapRedBlue", "pyramidize"}
_MOSAICS = {".mrxs", ".scn"}
_READERS_WITHOUT_CROP = {BIOFORMATS, "qupath.imagej.images.servers.ImageJServerBuilder"}


class SlideFrame(NamedTuple):
    """What OpenSlide says of a slide: level-0 size in px and the bounds that its file states.

    `pixel` is the size of a level-0 pixel in µm (x, y), `magnification` that of the objective, `tile` the size of a
    stored tile in px; None where the file does not state them.
    """

    size: tuple[int, int]
    bounds: Bounds | None
    pixel: tuple[float, float] | None = None
    magnification: float | None = None
    tile: tuple[int, int] | None = None


Probe = Callable[[str], SlideFrame | None]


def compose(outer: Affine, inner: Affine) -> Affine:
    """The transform that does `outer` first and `inner` then."""
    a, b, d, e, x, y = outer
    p, q, r, s, u, v = inner
    return (
        p * a + q * d,
        p * b + q * e,
        r * a + s * d,
        r * b + s * e,
        p * x + q * y + u,
        r * x + s * y + v,
    )


def invert(affine: Affine) -> Affine:
    """The way back; raises `ProjectError` for a transform that has none."""
    a, b, d, e, x, y = affine
    determinant = a * e - b * d
    if not math.isfinite(determinant) or determinant == 0:
        raise ProjectError(f"the affine {affine} has no inverse")
    p, q, r, s = e / determinant, -b / determinant, -d / determinant, a / determinant
    # Adding 0.0 turns -0.0 into 0.0, so that the inverse of the identity is the identity.
    return p + 0.0, q + 0.0, r + 0.0, s + 0.0, -(p * x + q * y) + 0.0, -(r * x + s * y) + 0.0


def keeps_axes(affine: Affine) -> bool:
    """Whether rectangles and ellipses along the axes stay so (shifts, scales, flips, quarter turns)."""
    a, b, d, e, _, _ = affine
    return (b == 0 and d == 0) or (a == 0 and e == 0)


def affine_of(builder: Builder, image: str, probe: Probe | None = None) -> Affine:
    """The affine from QuPath's px to level-0 px of one project image.

    Parameters
    ----------
    builder
        `serverBuilder` of the image in project.qpproj.
    image
        Name of the image, for messages.
    probe
        Gives size and bounds of the slide at a URI, None when it cannot be opened; `probe_slide` unless told.

    Raises
    ------
    ProjectError
        A builder of a kind that is not known here, or a frame that cannot be known now; names the image, the builder
        and the remedy.
    """
    look = probe or probe_slide
    affine = IDENTITY
    while True:
        kind = builder.get("builderType")
        if kind == "uri":
            return compose(affine, _uri(builder, image, look))
        inner = builder.get("builder")
        if not isinstance(inner, Mapping):
            raise _unknown(image, kind)
        affine = compose(affine, _step(str(kind), builder, inner, image, look))
        builder = inner


def _step(kind: str, builder: Builder, inner: Builder, image: str, look: Probe) -> Affine:
    """From the px of a wrapper to those of the image that it wraps."""
    if kind in _STAY:
        return IDENTITY
    if kind == "cropped":
        region = _mapping(builder, "region", image)
        return (1.0, 0.0, 0.0, 1.0, _number(region, "x", image), _number(region, "y", image))
    if kind == "affine":
        m = _mapping(builder, "transform", image)
        a, b, d, e, x, y = (_number(m, key, image) for key in ("m00", "m01", "m10", "m11", "m02", "m12"))
        return invert((a, b, d, e, x, y))
    if kind == "rotated":
        return _rotated(str(builder.get("rotation")), lambda: _inner_size(builder, inner, image, look), image)
    if kind == "flipped":
        return _flipped(str(builder.get("flip")), lambda: _inner_size(builder, inner, image, look), image)
    raise _unknown(image, kind)


def _rotated(rotation: str, size: Callable[[], tuple[int, int]], image: str) -> Affine:
    """A turn clockwise: the outer (X, Y) shows the inner (x, y). Widths and heights are those of the inner image."""
    if rotation == "ROTATE_NONE":
        return IDENTITY
    if rotation == "ROTATE_90":
        return (0.0, 1.0, -1.0, 0.0, 0.0, float(size()[1]))
    if rotation == "ROTATE_180":
        width, height = size()
        return (-1.0, 0.0, 0.0, -1.0, float(width), float(height))
    if rotation == "ROTATE_270":
        return (0.0, -1.0, 1.0, 0.0, float(size()[0]), 0.0)
    raise ProjectError(f"{image}: the project rotates it by {rotation}, which is not known here")


def _flipped(flip: str, size: Callable[[], tuple[int, int]], image: str) -> Affine:
    if flip == "NONE":
        return IDENTITY
    if flip not in {"HORIZONTAL", "VERTICAL", "BOTH"}:
        raise ProjectError(f"{image}: the project flips it by {flip}, which is not known here")
    width, height = size()
    x = (-1.0, float(width)) if flip in {"HORIZONTAL", "BOTH"} else (1.0, 0.0)
    y = (-1.0, float(height)) if flip in {"VERTICAL", "BOTH"} else (1.0, 0.0)
    return (x[0], 0.0, 0.0, y[0], x[1], y[1])


def _inner_size(builder: Builder, inner: Builder, image: str, look: Probe) -> tuple[int, int]:
    """Size of the wrapped image: its own metadata, else the wrapper's, else the slide's."""
    size = builder_size(inner)
    if size is not None:
        return size
    outer = builder_size(builder)
    if outer is not None:
        turned = builder.get("rotation") in {"ROTATE_90", "ROTATE_270"}
        return (outer[1], outer[0]) if turned else outer
    if inner.get("builderType") == "uri":
        frame = look(builder_uri(inner))
        if frame is not None:
            bounds = frame.bounds if _may_crop(inner) else None
            return frame.size if bounds is None else (bounds.width, bounds.height)
    if inner.get("builderType") in _STAY and isinstance(inner.get("builder"), Mapping):
        return _inner_size(inner, inner["builder"], image, look)
    raise ProjectError(
        f"{image}: the project rotates or flips it and states no size, and the slide cannot be opened; "
        "make the slide reachable, or open and save the image in QuPath"
    )


def _may_crop(builder: Builder) -> bool:
    return builder.get("providerClassName") in {None, OPENSLIDE} and NO_CROP not in (builder.get("args") or [])


def _uri(builder: Builder, image: str, look: Probe) -> Affine:
    """From the px of a reader to level 0."""
    args = [str(arg) for arg in builder.get("args") or []]
    provider = builder.get("providerClassName")
    if "--rotate" in args or any(arg.startswith("--rotate=") for arg in args):
        raise ProjectError(f"{image}: its reader is told to rotate ({' '.join(args)}), which is not known here")
    if provider == BIOFORMATS and _series(args) != "0":
        raise ProjectError(f"{image}: it is series {_series(args)} of its file, whose place on the slide is not known")
    if provider not in {None, OPENSLIDE, *_READERS_WITHOUT_CROP}:
        raise ProjectError(f"{image}: QuPath opens it with {provider}, and the frame of that reader is not known here")
    if not _may_crop(builder):
        return IDENTITY
    uri = builder_uri(builder)
    frame = look(uri)
    if frame is not None:
        return _shift(frame, builder_size(builder), image)
    suffix = PurePosixPath(unquote(urlsplit(uri).path)).suffix.lower()
    if suffix in _MOSAICS:
        raise ProjectError(
            f"{image}: QuPath may show this {suffix} slide cropped to its scanned bounds, and {uri} cannot be opened "
            "to see them; make the slide reachable, or relocate the project"
        )
    return IDENTITY


def _shift(frame: SlideFrame, stated: tuple[int, int] | None, image: str) -> Affine:
    """The corner of the bounds, unless the size that QuPath stored says that it did not crop."""
    bounds = frame.bounds
    if bounds is None or stated == frame.size:
        return IDENTITY
    if stated is None or stated == (bounds.width, bounds.height):
        return (1.0, 0.0, 0.0, 1.0, float(bounds.x), float(bounds.y))
    raise ProjectError(
        f"{image}: QuPath stored the size {stated[0]} x {stated[1]}, the slide has {frame.size[0]} x {frame.size[1]} "
        f"and bounds of {bounds.width} x {bounds.height}; this is another slide or another frame"
    )


def _series(args: list[str]) -> str:
    for index, arg in enumerate(args):
        if arg == "--series":
            return args[index + 1] if index + 1 < len(args) else ""
        if arg.startswith("--series="):
            return arg.partition("=")[2]
    return "0"


def _unknown(image: str, kind: Any) -> ProjectError:
    return ProjectError(
        f"{image}: QuPath shows it through a `{kind}` image server, whose frame is not known here; "
        "its objects cannot be placed on the slide"
    )


def _mapping(builder: Builder, key: str, image: str) -> Mapping[str, Any]:
    value = builder.get(key)
    if not isinstance(value, Mapping):
        raise ProjectError(f"{image}: its `{builder.get('builderType')}` image server lacks `{key}`")
    return value


def _number(values: Mapping[str, Any], key: str, image: str) -> float:
    value = values.get(key)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ProjectError(f"{image}: its image server lacks a number `{key}`")
    return float(value)


def probe_slide(uri: str) -> SlideFrame | None:
    """Size and bounds of the slide at a URI by OpenSlide itself; None when OpenSlide cannot open it here."""
    path = local_path(uri)
    if path is None or not path.exists():
        return None
    import openslide  # a native library, wanted only where a project names a slide that may be cropped

    try:
        with openslide.OpenSlide(path) as slide:
            stated = slide.properties
            return SlideFrame(
                slide.dimensions,
                _bounds(stated),
                _pair(stated, "openslide.mpp-x", "openslide.mpp-y"),
                _positive(stated, "openslide.objective-power"),
                _tile(stated),
            )
    except (openslide.OpenSlideError, OSError) as error:
        logger.debug("OpenSlide does not open %s: %s", path, error)
        return None


def _positive(properties: Mapping[str, str], key: str) -> float | None:
    try:
        value = float(properties[key])
    except (KeyError, ValueError):
        return None
    return value if value > 0 and math.isfinite(value) else None


def _pair(properties: Mapping[str, str], first: str, second: str) -> tuple[float, float] | None:
    x, y = _positive(properties, first), _positive(properties, second)
    return None if x is None or y is None else (x, y)


def _tile(properties: Mapping[str, str]) -> tuple[int, int] | None:
    size = _pair(properties, "openslide.level[0].tile-width", "openslide.level[0].tile-height")
    return None if size is None else (int(size[0]), int(size[1]))


def _bounds(properties: Mapping[str, str]) -> Bounds | None:
    """`openslide.bounds-*`, taken only when all four are integers, as QuPath does."""
    names = ("x", "y", "width", "height")
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{name}"]) for name in names)
    except (KeyError, ValueError):
        return None
    return Bounds(x, y, x + width, y + height)
