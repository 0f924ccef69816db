"""What a project holds beside the images and objects of a dump, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsi_pipeline.qupath.dump import keyed_images
from wsi_pipeline.qupath.native.java_model import JavaArray, JavaEnum, JavaObject
from wsi_pipeline.qupath.native_project import NativeProject

# Where the project lay when the image was saved: QuPath sets it anew whenever it opens one.
_PLACE = "PROJECT_ENTRY_ID"


def beside_the_dump(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Of the project its list of classes; of each image, by the key of `dump_project`, grid, properties and workflow.

    Raises `ProjectError` or `QuPathFormatError` as `dump_project` does.
    """
    project = NativeProject.open(path, read_only=True)
    images = {}
    for key, image in keyed_images(project).items():
        data = project.read_data(image)
        images[key] = {
            "TMA grid": None if data is None or data.tma_grid is None else list(data.tma_grid),
            "properties": {} if data is None else {k: v for k, v in data.properties.items() if k != _PLACE},
            "workflow": [] if data is None else list(_words(data.kept.workflow)),
        }
    return {"list of classes": [[c.name, c.color] for c in project.path_classes]}, images


def _words(node: Any) -> Iterator[str]:
    """Every text and number of a node of a Java stream, in its order; the same node is told of once."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield str(item)
        elif isinstance(item, JavaObject | JavaEnum | JavaArray):
            if id(item) not in seen:
                seen.add(id(item))
                waiting += reversed(list(_inside(item)))
        elif isinstance(item, int | float | bytes):
            yield repr(item)


def _inside(item: JavaObject | JavaEnum | JavaArray) -> Iterator[Any]:
    yield item.desc.name
    if isinstance(item, JavaEnum):
        yield item.name
    elif isinstance(item, JavaArray):
        yield from [item.values] if isinstance(item.values, bytes) else item.values
    else:
        for part in item.parts:
            yield from (*part.values, *part.content)
        yield from item.content
