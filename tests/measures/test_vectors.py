"""The published vectors: shapes whose answers are known. Other programs can be held against the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from shapely.geometry import shape

from tests.vectors import make
from wsi_pipeline.measures import compare_areas, compare_boundaries

FOLDER = Path(make.__file__).parent
OF_AREAS = ("area_before_um2", "area_after_um2", "kept_um2", "removed_um2", "added_um2", "dice", "iou")


def cases() -> list[Any]:
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        value = orjson.loads(path.read_bytes())
        found += [pytest.param(case, value, id=f"{path.stem}: {case['name']}") for case in value["cases"]]
    return found


def measured(case: dict[str, Any], step_um: float) -> dict[str, float | None]:
    before, after, mpp = shape(case["before"]), shape(case["after"]), case["mpp"]
    areas = compare_areas(before, after, mpp)
    lines = compare_boundaries(before, after, mpp, tolerance_um=case["tolerance_um"], step_um=step_um)
    return {
        "area_before_um2": areas.before,
        "area_after_um2": areas.after,
        "kept_um2": areas.kept,
        "removed_um2": areas.removed,
        "added_um2": areas.added,
        "dice": areas.dice,
        "iou": areas.iou,
        "surface_dice": lines.surface_dice,
        "hd_um": lines.hd,
        "hd95_um": lines.hd95,
        "assd_um": lines.assd,
        "added_path_um": lines.added_path,
    }


@pytest.mark.parametrize(("case", "vectors"), cases())
def test_each_known_answer_is_given(case: dict[str, Any], vectors: dict[str, Any]) -> None:
    found = measured(case, vectors["step_um"])
    for name, expected in case["expected"].items():
        if expected is None:
            assert found[name] is None, name
        elif name in OF_AREAS:
            assert found[name] == pytest.approx(expected, rel=1e-9, abs=1e-9), name
        else:
            allowed = case.get("within", {}).get(name, vectors["allowed"][name])
            assert found[name] == pytest.approx(expected, abs=allowed + 1e-9), name


@pytest.mark.parametrize("name", sorted(make.SETS))
def test_the_files_are_what_their_formulas_say(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_bytes() == make.text(name)
