"""How much the page may weigh, and what it gives up, step by step, to stay below that."""

from __future__ import annotations

from dataclasses import dataclass

LIMIT_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class Thrift:
    """Bounds of one page: number and size (px) of pictures, JPEG quality, and characters of path per slide."""

    plates: int
    side: int
    quality: int
    path_characters: int
    crops: int
    crop_side: int


# Tried in this order until the page is below the limit. Slides beyond `plates` go to further pages.
STEPS = (
    Thrift(plates=200, side=720, quality=80, path_characters=40_000, crops=24, crop_side=480),
    Thrift(plates=200, side=560, quality=74, path_characters=24_000, crops=24, crop_side=400),
    Thrift(plates=200, side=420, quality=68, path_characters=12_000, crops=18, crop_side=320),
    Thrift(plates=200, side=320, quality=60, path_characters=8_000, crops=12, crop_side=260),
    Thrift(plates=60, side=320, quality=60, path_characters=8_000, crops=12, crop_side=200),
    Thrift(plates=12, side=320, quality=60, path_characters=8_000, crops=6, crop_side=200),
)
