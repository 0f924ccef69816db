"""Changed area by tile against rasters and by hand, and what collecting says of flags."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import box
from shapely.geometry.base import BaseGeometry

from tests.collect.test_collect import A, B, Objects, brushed, collected
from tests.handout.test_handout import CLASSES, SETTINGS, edit, slide
from tests.measures.shapes import region as shape_of
from wsi_pipeline.collect.changed import area_in, changed_region
from wsi_pipeline.collect.matching import match
from wsi_pipeline.files import write_json
from wsi_pipeline.handout import hand_out
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.raster import fill
from wsi_pipeline.regions import ReviewTile, read_tiles, write_tiles
from wsi_pipeline.report.export import metrics_schema
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.tiling import Bounds


def tile(x: int, rank: int, *, flagged: bool = False, audit: bool = False, chance: float = 0.5) -> ReviewTile:
    return ReviewTile(
        "s1", x, 0, 512, 1024, 1.0, 0.3, 0.5, 0.6, 1000.0 / rank, rank, flagged, "border unclear",
        audit=audit, audit_chance=0.0 if flagged else chance,
    )  # fmt: skip


def annotation(uuid: str, geometry: BaseGeometry, name: str | None = "Tumor") -> PathObject:
    return PathObject(f"{uuid * 8}-1111-4111-8111-111111111111", Kind.ANNOTATION, geometry, name)


def changed(before: Objects, after: Objects) -> BaseGeometry:
    return changed_region(match(before, after))


def test_what_was_left_alone_is_not_changed_and_what_goes_and_comes_is() -> None:
    still, gone, new = (
        annotation("a", box(0, 0, 10, 10)),
        annotation("b", box(20, 0, 30, 10)),
        annotation("c", box(50, 0, 55, 10)),
    )
    assert changed([still, gone], [still, new]).equals(shapely.union_all([gone.geometry, new.geometry]))
    assert changed([still], [still]).is_empty


def test_another_class_changes_all_of_it_once_and_a_stroke_over_an_old_region_only_what_is_new() -> None:
    old = annotation("a", box(0, 0, 10, 10))
    assert changed([old], [replace(old, path_class="Stroma")]).area == 100
    stroke = annotation("c", box(5, 0, 15, 10))
    assert changed([old], [old, stroke]).area == pytest.approx(50)


@given(seed=st.integers(0, 5000))
@settings(max_examples=25, deadline=None)
def test_the_area_of_each_tile_is_that_of_rasters_of_both_classes(seed: int) -> None:
    before = [annotation("a", shape_of(seed)), annotation("b", shape_of(seed + 1), "Stroma")]
    after = [annotation("a", shape_of(seed + 2)), annotation("b", shape_of(seed + 3), "Stroma")]
    window, pixel = Bounds(0, 0, 1000, 1000), 0.2
    masks = [
        [
            fill([o.geometry for o in side if o.geometry and o.path_class == name], window, pixel)
            for side in (before, after)
        ]
        for name in ("Tumor", "Stroma")
    ]
    different = np.logical_or.reduce([first ^ second for first, second in masks])
    tiles = [replace(tile(0, 1), x=x, y=y, width=50, height=50) for x in range(0, 200, 50) for y in range(0, 200, 50)]
    found = area_in(changed(before, after), tiles)
    for t, area in zip(tiles, found, strict=True):
        part = different[t.y * 5 : (t.y + 50) * 5, t.x * 5 : (t.x + 50) * 5]
        assert area == pytest.approx(part.sum() * pixel**2, abs=12)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Two slides; the first has four tiles: one flagged, one for the random check."""
    run = RunDir(tmp_path / "run")
    slides = [slide("s1"), slide("s2")]
    hand_out(run, SETTINGS, CLASSES, slides)
    tiles = [tile(0, 1, flagged=True), tile(512, 2, audit=True), tile(2816, 3), tile(6000, 4)]
    write_tiles(run.slide("s1").tiles, tiles)
    write_json(run.slide("s1").summary, {"run_id": slides[0].run_id})
    return run


def confidence_of(run: RunDir) -> dict[str, Any]:
    found: dict[str, Any] = collected(run).metrics["confidence"]
    return found


def test_collecting_says_where_was_changed_and_whether_the_flags_lay_there(run: RunDir) -> None:
    edit(run, brushed, wsi_state="reviewed")
    found = confidence_of(run)
    rows = {row["x"]: row for row in pq.read_table(run.changed_tiles).to_pylist()}
    assert A.geometry is not None
    assert B.geometry is not None
    ring = A.geometry.buffer(10).difference(A.geometry)
    for x, row in rows.items():
        there = box(x, 0, x + 512, 1024)
        drawn = shapely.Point(3000, 500).buffer(60)
        wanted = sum(g.intersection(there).area for g in (ring, B.geometry, drawn)) * 0.25
        assert row["changed_um2"] == pytest.approx(wanted, rel=1e-3, abs=0.5)
    assert found["reference"] == "changed by the reviewer"
    assert "no error" in found["caveat"]
    flags = found["flags"]
    hit = {x: row["changed_um2"] >= 0.01 * row["tissue_um2"] for x, row in rows.items()}
    assert (flags["tiles"], flags["flagged"], flags["changed"]) == (4, 1, sum(hit.values()))
    assert flags["area_recall"] == pytest.approx(
        rows[0]["changed_um2"] / sum(row["changed_um2"] for row in rows.values())
    )
    assert found["audit"]["audited"] == 1
    assert found["audit"]["audited_changed"] == int(hit[512])
    assert found["risk_coverage"]["mean_loss"] > 0
    assert found["strange"]["status"] == "not measured"
    for kind in ("appearance", "structure"):
        assert found["out_of_distribution"][kind]["status"] == "not measured"
    assert found["source"] == "measured"


def test_each_distance_is_held_against_what_was_changed_and_left_out_where_it_is_not_known(run: RunDir) -> None:
    values: dict[int, tuple[float | None, float | None]] = {
        0: (0.4, 2.5),
        512: (1.6, None),
        2816: (0.3, 1.2),
        6000: (0.2, 0.1),
    }
    tiles = [
        replace(t, out_of_distribution=values[t.x][0], structure_distance=values[t.x][1])
        for t in read_tiles(run.slide("s1").tiles)
    ]
    write_tiles(run.slide("s1").tiles, tiles)
    edit(run, brushed, wsi_state="reviewed")
    found = confidence_of(run)["out_of_distribution"]
    rows = {row["x"]: row for row in pq.read_table(run.changed_tiles).to_pylist()}
    assert {x: row["structure_distance"] for x, row in rows.items()} == {
        x: None if v is None else pytest.approx(v) for x, (_, v) in values.items()
    }
    hit = {x: row["changed_um2"] >= 0.01 * row["tissue_um2"] for x, row in rows.items()}
    area = {x: row["changed_um2"] for x, row in rows.items()}
    look, structure = found["appearance"], found["structure"]
    assert (look["tiles"], look["flagged"], look["precision"]) == (4, 1, float(hit[512]))
    assert look["familiar_changed"] == pytest.approx((hit[0] + hit[2816] + hit[6000]) / 3)
    assert (structure["tiles"], structure["flagged"]) == (3, 2)
    assert structure["precision"] == pytest.approx((hit[0] + hit[2816]) / 2)
    assert structure["familiar_changed"] == float(hit[6000])
    assert structure["area_recall"] == pytest.approx((area[0] + area[2816]) / (area[0] + area[2816] + area[6000]))
    assert structure["reference"] == "changed by the reviewer"
    jsonschema.Draft202012Validator(json.loads(metrics_schema())).validate(collected(run).metrics)


def test_what_is_simulated_says_so(run: RunDir) -> None:
    edit(run, brushed, wsi_state="reviewed", source="simulated")
    assert confidence_of(run)["source"] == "simulated"


def test_nothing_is_said_before_a_review_or_of_tiles_that_were_not_handed_out(run: RunDir) -> None:
    edit(run, brushed, wsi_state="in_progress")
    assert confidence_of(run)["status"] == "not measured"
    edit(run, lambda objects: objects, wsi_state="reviewed")
    assert confidence_of(run)["flags"]["tiles"] == 4
    write_json(run.slide("s1").summary, {"run_id": "a later one"})
    assert confidence_of(run)["status"] == "not measured"
    assert pq.read_table(run.changed_tiles).num_rows == 0


def test_a_damaged_table_of_tiles_is_an_alarm(run: RunDir) -> None:
    edit(run, brushed, wsi_state="reviewed")
    run.slide("s1").tiles.write_bytes(b"half")
    (alarm,) = collected(run).alarms
    assert alarm.startswith("s1: cannot be read")
