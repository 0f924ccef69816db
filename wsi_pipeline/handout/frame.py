"""Do the predictions lie where they were made? Asked of what the project says, after every write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import shapely

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath import IDENTITY, ProjectImage
from wsi_pipeline.raster import fill
from wsi_pipeline.slides import TissueMask
from wsi_pipeline.tiling import Bounds

# Shares of area on tissue before and after the write may differ by this: coordinates are rounded.
ALLOWED = 0.005
_ROTATED = "its predictions do not lie on the image as QuPath shows it (rotated, flipped or cropped?)"


def check_frame(
    image: ProjectImage,
    now: Sequence[PathObject],
    handed: Sequence[PathObject],
    size: tuple[int, int],
    tissue: TissueMask | None,
) -> None:
    """Compare what the project holds with what was handed to it; all in level-0 px.

    Parameters
    ----------
    now, handed
        Objects as they were read back, and as they went in; only those that are in both are compared.
    size
        Width and height of the slide's level 0.

    Raises
    ------
    ProjectError
        QuPath's image has another size, an object lies beyond the slide, or another share of area lies on tissue.
    """
    if image.affine == IDENTITY and image.size is not None and image.size != size:
        raise ProjectError(f"QuPath sees an image of {image.size[0]} x {image.size[1]} px, the slide has {size}")
    given = {o.uuid: o for o in handed}
    read = [o for o in now if o.uuid in given and o.geometry is not None]
    frame = shapely.box(-1, -1, size[0] + 1, size[1] + 1)
    shapely.prepare(frame)
    if not all(shapely.covers(frame, [o.geometry for o in read])):
        raise ProjectError(_ROTATED)
    if tissue is None or not read:
        return
    before, after = (share_on_tissue(side, tissue) for side in ([given[o.uuid] for o in read], read))
    if abs(before - after) > ALLOWED:
        raise ProjectError(f"{_ROTATED}: {before:.1%} of their area lay on tissue, now {after:.1%}")


def share_on_tissue(objects: Iterable[PathObject], tissue: TissueMask) -> float:
    """Share of the annotations' area that lies on tissue, on the grid of the tissue mask; 0 without area."""
    height, width = tissue.mask.shape
    whole, d = Bounds(0, 0, width, height), tissue.downsample
    inside = total = 0
    for item in objects:
        if item.kind is not Kind.ANNOTATION or item.geometry is None or item.geometry.is_empty:
            continue
        x, y, right, bottom = item.geometry.bounds
        box = Bounds(int(x / d), int(y / d), int(right / d) + 1, int(bottom / d) + 1).within(whole)
        pixels = fill(item.geometry, box, d)
        inside += int((pixels & tissue.mask[box.y : box.bottom, box.x : box.right]).sum())
        total += int(pixels.sum())
    return inside / total if total else 0.0
