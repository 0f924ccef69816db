"""Makes the published test vectors from shapes whose answers are known: `python -m tests.vectors.make`.

Every expected value is a formula in the shapes' own lengths; nothing is computed by the package. See docs/measures.md.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import orjson

FOLDER = Path(__file__).parent
STEP_UM = 0.5

Ring = list[list[float]]
Shape = dict[str, Any]


def square(x: float, y: float, side: float) -> Ring:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def bar(x: float, y: float, width: float, height: float) -> Ring:
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]


def ngon(radius: float, n: int, x: float = 0.0, y: float = 0.0) -> Ring:
    """A regular polygon inscribed in a circle."""
    points = [[x + radius * math.cos(a), y + radius * math.sin(a)] for a in (2 * math.pi * i / n for i in range(n))]
    return [*points, points[0]]


def polygon(*rings: Ring) -> Shape:
    return {"type": "Polygon", "coordinates": list(rings)}


def many(*polygons: Shape) -> Shape:
    return {"type": "MultiPolygon", "coordinates": [p["coordinates"] for p in polygons]}


EMPTY: Shape = many()


def ngon_area(radius: float, n: int) -> float:
    return n / 2 * radius**2 * math.sin(2 * math.pi / n)


def ngon_length(radius: float, n: int) -> float:
    return 2 * n * radius * math.sin(math.pi / n)


def areas(before: float, after: float, kept: float) -> dict[str, float]:
    """Areas in µm² and their ratios by definition."""
    whole, union = before + after, before + after - kept
    return {
        "area_before_um2": before,
        "area_after_um2": after,
        "kept_um2": kept,
        "removed_um2": before - kept,
        "added_um2": after - kept,
        "dice": 2 * kept / whole if whole else 1.0,
        "iou": kept / union if union else 1.0,
    }


def case(name: str, before: Shape, after: Shape, expected: dict[str, float | None], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "before": before,
        "after": after,
        "mpp": 1.0,
        "tolerance_um": 2.0,
        **more,
        "expected": expected,
    }


def squares() -> list[dict[str, Any]]:
    s = 100.0
    still = polygon(square(10, 20, s))
    same = {"hd_um": 0.0, "hd95_um": 0.0, "assd_um": 0.0, "surface_dice": 1.0, "added_path_um": 0.0}
    turned = polygon([[110, 20], [110, 120], [10, 120], [10, 20], [110, 20]])
    # Shifted by d along x. The side that is left behind lies at distance d, s of it. The side that came inside lies at
    # d, too, but its ends are nearer to the sides across: 2 d of it, 0 to d away. The sides along share s - d, their
    # loose ends are again 0 to d away. So of 4 s there are 2 (s - d) at 0, 4 d between 0 and d, and 2 s - 2 d at d; the
    # mean is d / 2.
    d, t = 20.0, 2.0
    shifted = {
        "hd_um": d,
        "hd95_um": d,
        "assd_um": d / 2,
        "surface_dice": (2 * (s - d) + 4 * t) / (4 * s),
        "added_path_um": 2 * s + 2 * d - 4 * t,
    }
    grown = 4.0
    return [
        case("the same square", still, still, {**areas(s * s, s * s, s * s), **same}),
        case("the same square, drawn from another corner", still, turned, {**areas(s * s, s * s, s * s), **same}),
        case(
            "a square shifted by 20",
            still,
            polygon(square(10 + d, 20, s)),
            {**areas(s * s, s * s, s * (s - d)), **shifted},
        ),
        case(
            "the same shift at 0.25 µm/px",
            still,
            polygon(square(10 + d, 20, s)),
            {
                **areas(s * s / 16, s * s / 16, s * (s - d) / 16),
                "hd_um": d / 4,
                "hd95_um": d / 4,
                "assd_um": d / 8,
                # 2 µm are 8 px here.
                "surface_dice": (2 * (s - d) + 4 * 8.0) / (4 * s),
                "added_path_um": (2 * s + 2 * d - 4 * 8.0) / 4,
            },
            mpp=0.25,
        ),
        case(
            "a square shifted by exactly the tolerance",
            still,
            polygon(square(12, 20, s)),
            {**areas(s * s, s * s, s * (s - 2)), "hd_um": 2.0, "surface_dice": 1.0, "added_path_um": 0.0},
        ),
        case(
            "a square grown by 4 on every side",
            still,
            polygon(square(10 - grown, 20 - grown, s + 2 * grown)),
            {
                **areas(s * s, (s + 2 * grown) ** 2, s * s),
                # From the corner of the larger one to the corner of the smaller one.
                "hd_um": grown * math.sqrt(2),
                "surface_dice": 0.0,
                "added_path_um": 4 * (s + 2 * grown),
            },
        ),
        case(
            "two squares far apart",
            still,
            polygon(square(1010, 20, s)),
            {**areas(s * s, s * s, 0.0), "hd_um": 1000.0, "surface_dice": 0.0, "added_path_um": 4 * s},
        ),
        case(
            "two squares that share a corner",
            polygon(square(0, 0, 50)),
            polygon(square(50, 50, 50)),
            {**areas(2500, 2500, 0.0), "hd_um": 50 * math.sqrt(2)},
        ),
    ]


def circles() -> list[dict[str, Any]]:
    n, small, large = 64, 100.0, 130.0
    a, b = ngon_area(small, n), ngon_area(large, n)
    inner, outer = ngon_length(small, n), ngon_length(large, n)
    # Vertex to vertex is r2 - r1, edge to edge (r2 - r1) cos(π/n); the mean lies between.
    gap = large - small
    hole = polygon(ngon(large, n), ngon(small, n)[::-1])
    return [
        case(
            "a circle grown from 100 to 130 (both with 64 corners)",
            polygon(ngon(small, n)),
            polygon(ngon(large, n)),
            {
                **areas(a, b, a),
                "hd_um": gap,
                "hd95_um": gap,
                "assd_um": gap,
                "surface_dice": 0.0,
                "added_path_um": outer,
            },
            within={"hd95_um": 0.05, "assd_um": 0.05},
        ),
        case(
            "the hole of a ring filled",
            hole,
            polygon(ngon(large, n)),
            {
                **areas(b - a, b, b - a),
                "hd_um": gap,
                "assd_um": gap * inner / (inner + 2 * outer),
                "surface_dice": 2 * outer / (inner + 2 * outer),
                "added_path_um": 0.0,
            },
            within={"assd_um": 0.05},
        ),
        case(
            "a ring became the disc in its hole",
            hole,
            polygon(ngon(small, n)),
            {
                **areas(b - a, a, 0.0),
                "hd_um": gap,
                "surface_dice": 2 * inner / (2 * inner + outer),
                "added_path_um": 0.0,
            },
        ),
    ]


def degenerate() -> list[dict[str, Any]]:
    s = polygon(square(0, 0, 100))
    nothing = {"hd_um": None, "hd95_um": None, "assd_um": None, "surface_dice": 0.0}
    none = {"hd_um": 0.0, "hd95_um": 0.0, "assd_um": 0.0, "surface_dice": 1.0, "added_path_um": 0.0}
    line = {"type": "LineString", "coordinates": [[0, 0], [50, 50]]}
    return [
        case("nothing and nothing", EMPTY, EMPTY, {**areas(0, 0, 0), **none}),
        case("a square deleted", s, EMPTY, {**areas(1e4, 0, 0), **nothing, "added_path_um": 0.0}),
        case("a square added", EMPTY, s, {**areas(0, 1e4, 0), **nothing, "added_path_um": 400.0}),
        case("a line has no area and no boundary", line, line, {**areas(0, 0, 0), **none}),
        case(
            "a bow-tie counts with both of its halves",
            polygon([[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]),
            many(polygon([[0, 0], [50, 50], [0, 100], [0, 0]]), polygon([[100, 0], [100, 100], [50, 50], [100, 0]])),
            {**areas(5000, 5000, 5000), **none},
        ),
        case(
            "a sliver that touches the square",
            s,
            many(s, polygon(bar(100, 40, 0.5, 20))),
            # Its far side and its ends are within the tolerance of 2, too.
            {**areas(1e4, 1e4 + 10, 1e4), "hd_um": 0.5, "surface_dice": 1.0, "added_path_um": 0.0},
        ),
        case(
            "a hair of 0.1 by 60 that stands out",
            s,
            many(s, polygon(bar(100, 50, 60, 0.1))),
            # Of an outline of 520 the last 5 % are the hair's end (0.1) and 12.95 of both of its sides.
            {**areas(1e4, 1e4 + 6, 1e4), "hd_um": 60.0, "hd95_um": 60 - 12.95},
        ),
        case(
            "a shared edge inside of a class is no boundary",
            many(polygon(square(0, 0, 50)), polygon(bar(60, 0, 40, 50))),
            many(polygon(square(0, 0, 50)), polygon(bar(60, 0, 40, 50))),
            {**areas(4500, 4500, 4500), **none},
        ),
    ]


SETS = {"squares": squares, "circles": circles, "degenerate": degenerate}


def text(name: str) -> bytes:
    value = {
        "schema": 1,
        "what": "Two regions and what measures must say; GeoJSON in px, µm by `mpp`; definitions in docs/measures.md",
        "step_um": STEP_UM,
        "allowed": {
            "areas and ratios of areas, relative": 1e-9,
            "hd_um": STEP_UM / 2,
            "hd95_um": STEP_UM / 2,
            "assd_um": STEP_UM / 4,
            # Half a step at each end of each piece that is near: eight ends in these shapes.
            "added_path_um": 4 * STEP_UM,
            "surface_dice": 0.01,
        },
        "cases": SETS[name](),
    }
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def main() -> None:
    for name in SETS:
        (FOLDER / f"{name}.json").write_bytes(text(name))


if __name__ == "__main__":
    main()
