"""Is a project's slide there, and is it the one that was handed out? Asked of the slide and of what QuPath states."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import MppMissing, ProjectError, SlideError, SlideNotFound
from wsi_pipeline.qupath.affine import affine_of
from wsi_pipeline.qupath.builders import Builder, builder_uri, innermost, local_path, pixel_size
from wsi_pipeline.qupath.protocol import IDENTITY
from wsi_pipeline.slides import open_slide

# Scanners state x and y apart, and files round what they state.
SAME_MPP = 0.005


class Finding(NamedTuple):
    """Something that is wrong with an image; `what` is one word for programs."""

    what: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was written down of a slide at the handout: level-0 px, µm per px."""

    size: tuple[int, int]
    mpp: float


class SlideFacts(NamedTuple):
    """What opening the slide gave; `looked` is false for an address of another machine."""

    size: tuple[int, int] | None
    findings: tuple[Finding, ...]
    looked: bool = True


def check_slide(
    name: str, builder: Builder, others: Mapping[str, Any], recorded: Recorded | None, project: str
) -> SlideFacts:
    """Open the slide of an image and compare it with what was recorded.

    Parameters
    ----------
    builder
        The image's `serverBuilder` in project.qpproj.
    others
        Further builders of the same image, by the file that holds them.
    recorded
        None where nobody knows what was handed out: size and mpp then count as the project states them.
    project
        The project as it is called in a remedy.
    """
    uri = builder_uri(builder)
    stated = _stated(builder)
    found = list(_calibration({"project.qpproj": builder, **others}, recorded))
    if not uri or elsewhere(uri):
        return SlideFacts(None, tuple(found), looked=False)
    path = local_path(uri)
    ref = SlideRef(name, uri if path is None else str(path), name, mpp=stated)
    try:
        with open_slide(ref) as slide:
            size, mpp = slide.size, slide.mpp
    except SlideNotFound as error:
        remedy = (
            f"put it back, or tell the project where it is now: `wsi-pipeline project relocate {project} --map OLD=NEW`"
        )
        return SlideFacts(None, (Finding("slide", error.cause, remedy), *found))
    except MppMissing as error:
        remedy = "put back the file that was handed out, or set its pixel size in QuPath's Image tab"
        return SlideFacts(None, (Finding("mpp", error.cause, remedy), *found))
    except SlideError as error:
        return SlideFacts(None, (Finding("slide", error.cause, error.remedy), *found))
    if recorded is not None and size != recorded.size:
        found.append(
            Finding(
                "size",
                f"{path or uri} has {_px(size)}, {_px(recorded.size)} were handed out: it is another file",
                "put the slide back that was handed out",
            )
        )
    if recorded is not None and stated is None and not _near(mpp, recorded.mpp):
        found.append(
            Finding(
                "mpp",
                f"the slide states {mpp:g} µm/px, it was handed out with {recorded.mpp:g}",
                "put the slide back that was handed out, or set its pixel size in QuPath's Image tab",
            )
        )
    return SlideFacts(size, tuple(found))


def check_shown(
    name: str, builder: Builder, seen: Iterable[tuple[str, tuple[int, int] | None]], size: tuple[int, int]
) -> Iterator[Finding]:
    """Does QuPath's own record of the image have the size of the slide? Only a whole slide has its size.

    Parameters
    ----------
    seen
        Width and height by the file that states them.
    """
    try:
        whole = affine_of(builder, name) == IDENTITY
    except ProjectError:
        return  # told of when the objects were read
    if not whole:
        return
    for where, shown in seen:
        if shown is not None and shown != size:
            yield Finding(
                "size",
                f"{where} says {_px(shown)}, the slide has {_px(size)}",
                "put the slide back that was handed out, or remove the image and hand it out again",
            )


def elsewhere(uri: str) -> bool:
    """Whether an address can only be opened on another machine: drives and shares of Windows."""
    parts = urlsplit(uri)
    if os.name == "nt" or parts.scheme.lower() != "file":
        return False
    share = parts.netloc not in {"", "localhost"} or parts.path.startswith("//")
    return share or re.match(r"/[A-Za-z]:(/|$)", parts.path) is not None


def _calibration(builders: Mapping[str, Any], recorded: Recorded | None) -> Iterator[Finding]:
    told: set[float | None] = set()
    for where, builder in builders.items():
        if not isinstance(builder, Mapping):
            continue
        size = pixel_size(builder) or pixel_size(innermost(builder))
        if size is None:
            continue
        mpp = _stated(builder)
        if mpp in told or (mpp is not None and (recorded is None or _near(mpp, recorded.mpp))):
            continue
        told.add(mpp)
        now = "no pixel size in µm" if mpp is None else f"{mpp:g} µm/px"
        before = "" if recorded is None else f", it was handed out with {recorded.mpp:g}"
        yield Finding(
            "mpp",
            f"{where} states {now}{before}: every area and length in QuPath depends on it",
            "set the pixel size in QuPath's Image tab" + ("" if recorded is None else f" to {recorded.mpp:g} and save"),
        )


def _stated(builder: Builder) -> float | None:
    """µm per px as the project states it, the mean of both sides; None where it leaves that to the file."""
    size = pixel_size(builder) or pixel_size(innermost(builder))
    if size is None or size[2] != "µm" or size[0] <= 0 or size[1] <= 0:
        return None
    return (size[0] + size[1]) / 2


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= SAME_MPP * other


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"
