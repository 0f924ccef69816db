"""Finding an image among those of a project: the same rules for both backends."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.qupath.builders import canonical, slide_uri
from wsi_pipeline.qupath.protocol import ProjectImage

Found = TypeVar("Found", bound=ProjectImage)


def find_image(images: Iterable[Found], project: Path, uri: str | None, name: str | None) -> Found | None:
    """The one image at `uri` and of `name`, whichever is given; None when there is none.

    Raises `ProjectError` when several fit, or when neither is given.
    """
    if uri is None and name is None:
        raise ProjectError(f"{project}: give the address or the name of the image to be found")
    wanted = None if uri is None else canonical(slide_uri(uri))
    found = [
        image
        for image in images
        if (name is None or image.name == name) and (wanted is None or canonical(image.uri) == wanted)
    ]
    if len(found) > 1:
        ids = ", ".join(str(image.entry_id) for image in found)
        raise ProjectError(f"{project} has several images of {name or uri} (ids {ids}); address one by its id")
    return found[0] if found else None
