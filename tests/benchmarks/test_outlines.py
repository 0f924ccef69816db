"""The polygons that writing is measured with are fit for it, and both writers say the same of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import shapely

from benchmarks.outlines import WITH_HOLE, blobs, write


def test_blobs_are_valid_and_some_have_holes() -> None:
    found = blobs(50)
    assert all(o.geometry is not None and o.geometry.is_valid for o in found)
    holes = [shapely.get_num_interior_rings(o.geometry) for o in found]
    assert holes == [1 if number % WITH_HOLE == 0 else 0 for number in range(50)]
    assert len({o.uuid for o in found}) == 50
    assert found == blobs(50)


def test_both_files_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = blobs(300)
    write(tmp_path, objects)
    said = json.loads(capsys.readouterr().out)
    assert said["polygons"] == 300
    assert said["ratio"] > 0
    ours, theirs = (
        json.loads((tmp_path / name).read_text())["features"] for name in ("ours.geojson", "theirs.geojson")
    )
    assert len(ours) == len(theirs) == 300
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["geometry"] == other["geometry"]
        assert mine["properties"] == {key: value for key, value in other["properties"].items() if value}
