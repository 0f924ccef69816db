"""What a data.qpdata holds: the image's type, stains, workflow and properties around the hierarchy of its objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.objects import RGB, PathObject
from wsi_pipeline.qupath.native.java_model import JavaObject
from wsi_pipeline.qupath.native.kept import Kept
from wsi_pipeline.qupath.native.properties import texts_of, with_texts

# Of the file and of the JSON text in it.
VERSION = 3
MARK = "Data file version "
END = "EOF"
# The image type of a file that states none.
UNSET = "UNSET"


class TmaGrid(NamedTuple):
    """The grid of a tissue microarray: its size in cores, and the uuids of the cores row by row."""

    width: int
    height: int
    cores: tuple[str, ...]


@dataclass(slots=True)
class QpData:
    """What QuPath keeps of one image.

    Attributes
    ----------
    image_type
        QuPath's name of it, such as BRIGHTFIELD_H_E or UNSET.
    server_json
        The JSON object at the head of the file: dataVersion, qupathVersion, server (how the image is opened), id.
    objects
        Depth first, in the order of the file; coordinates in px as stored, which is QuPath's frame of the image.
        Parents come before their children.
    class_colors
        Colour of each class met, by full name, those of parent classes included; None for a class without one.
    tma_grid
        None for an image without one.
    root_uuid
        Id of the root object; a writer gives a new file one.
    kept
        What else the file holds; not for callers.
    """

    image_type: str = UNSET
    server_json: dict[str, Any] | None = None
    objects: list[PathObject] = field(default_factory=list)
    class_colors: dict[str, RGB | None] = field(default_factory=dict)
    tma_grid: TmaGrid | None = None
    root_uuid: str | None = None
    kept: Kept = field(default_factory=Kept, compare=False, repr=False)

    @property
    def stains(self) -> Mapping[str, str] | None:
        """Names and vectors of the stains as QuPath writes them, None for an image without."""
        if not self.has_kept_type or not isinstance(self.kept.stains, JavaObject):
            return None
        text = next((part for part in self.kept.stains.content if isinstance(part, str)), None)
        return None if text is None else json_object(text, "the stains")

    @property
    def has_kept_type(self) -> bool:
        """Whether the image type is the one that was read: what depends on it is kept only then."""
        kept = self.kept
        if kept.image_type is None:
            return kept.header is not None and self.image_type == UNSET
        return kept.image_type.name == self.image_type

    @property
    def properties(self) -> dict[str, str]:
        """Properties of the image that are texts."""
        return texts_of(self.kept.properties)

    def with_properties(self, texts: Mapping[str, str]) -> QpData:
        """The same data with these properties set, and all others as they are; itself where nothing changes."""
        node = with_texts(self.kept.properties, texts)
        return self if node is self.kept.properties else replace(self, kept=replace(self.kept, properties=node))


def json_object(text: str, what: str) -> dict[str, Any]:
    """The JSON object of a text that lies in the file."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QuPathFormatError(f"{what} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise QuPathFormatError(f"{what} is no JSON object")
    return value
