"""Slides that QuPath shows cropped, rotated or flipped: predictions land on tissue, corrections come back to level 0.

The slide is a real file with `openslide.bounds`. What QuPath shows of it is made here from its pixels, by cutting and
turning arrays and not by the formulas of the package, and the objects of data.qpdata are laid on that picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from numpy.typing import NDArray
from shapely import Point
from shapely.affinity import translate

from tests.handout.made import CLASSES, COSTS, REVIEW, SETTINGS, image_of, objects_of, project_of, region, slide
from tests.qupath.test_builders import Size
from wsi_pipeline.collect import collect
from wsi_pipeline.collect.check import check_project
from wsi_pipeline.handout import HandoutSlide, hand_out
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.qupath.affine import probe_slide
from wsi_pipeline.qupath.data_files import DataFiles
from wsi_pipeline.qupath.native.qpdata import read_qpdata, write_qpdata
from wsi_pipeline.raster import fill
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.slides import TissueMask
from wsi_pipeline.tiling import Bounds

SIZE = (1200, 1000)
SCANNED = Bounds(200, 150, 840, 662)
NM_PER_PX = 500
# In no turn and in no mirror do these lie on each other.
SPOTS = ((320, 260, 60), (420, 480, 45), (700, 300, 80))
OTHER_RUN = "fedcba9876543210"
Builder = Mapping[str, Any]


def write_scn(path: Path, pixels: NDArray[np.uint8]) -> None:
    """A Leica slide whose scanned area `SCANNED` lies on a larger glass; OpenSlide states it as bounds."""
    area = SCANNED

    def image(name: str, view: tuple[int, int, int, int], size: tuple[int, int], ifd: int, objective: float) -> str:
        x, y, width, height = (side * NM_PER_PX for side in view)
        return (
            f'<image name="{name}" uuid="urn:uuid:{name}"><creationDate>2026-01-01T00:00:00Z</creationDate>'
            '<device model="Leica SCN400;Leica SCN" version="1.5.1"/>'
            f'<pixels sizeX="{size[0]}" sizeY="{size[1]}">'
            f'<dimension sizeX="{size[0]}" sizeY="{size[1]}" r="0" ifd="{ifd}"/></pixels>'
            f'<view sizeX="{width}" sizeY="{height}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>'
            f"<scanSettings><objectiveSettings><objective>{objective}</objective></objectiveSettings>"
            "<illuminationSettings><numericalAperture>0.4</numericalAperture>"
            "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
        )

    small = (SIZE[0] // 10, SIZE[1] // 10)
    text = (
        '<?xml version="1.0" encoding="utf-8"?>'
        '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:scn">'
        f'<collection name="c" uuid="urn:uuid:c" sizeX="{SIZE[0] * NM_PER_PX}" sizeY="{SIZE[1] * NM_PER_PX}">'
        + image("macro", (0, 0, *SIZE), small, 0, 0.6)
        + image("main", (area.x, area.y, area.width, area.height), (area.width, area.height), 1, 20)
        + "</collection></scn>"
    )
    kind: dict[str, Any] = {
        "tile": (128, 128),
        "photometric": "rgb",
        "compression": "zlib",
        "metadata": None,
        "resolution": (1e7 / NM_PER_PX, 1e7 / NM_PER_PX),
        "resolutionunit": "CENTIMETER",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(np.full((small[1], small[0], 3), 240, np.uint8), description=text, **kind)
        file.write(pixels, **kind)


@pytest.fixture
def given(tmp_path: Path) -> HandoutSlide:
    """The slide as the pipeline hands it out, a prediction on each spot of tissue; its file is on disk."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    dark = np.any([(x - cx) ** 2 + (y - cy) ** 2 < (r + 3) ** 2 for cx, cy, r in SPOTS], axis=0)
    picture = np.where(dark[..., None], np.uint8(90), np.uint8(235)).repeat(3, 2)
    write_scn(tmp_path / "slides" / "s1.scn", picture[SCANNED.y : SCANNED.bottom, SCANNED.x : SCANNED.right])
    regions = [region("s1", cx, cy, r, run_id=OTHER_RUN) for cx, cy, r in SPOTS]
    return replace(
        slide(tmp_path, regions=regions, flagged=0, run_id=OTHER_RUN),
        uri=str(tmp_path / "slides" / "s1.scn"),
        size=SIZE,
        tissue=TissueMask(dark[::2, ::2], 2.0),
    )


def level_0(path: Path) -> NDArray[np.uint8]:
    with openslide.OpenSlide(path) as file:
        rgba = np.asarray(file.read_region((0, 0), 0, SIZE))
    return np.where(rgba[..., 3:] == 0, 255, rgba[..., :3]).astype(np.uint8)


def shown(builder: Builder, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What QuPath shows of level 0."""
    kind = builder["builderType"]
    if kind == "uri":
        whole = "--no-crop" in builder["args"]
        return pixels if whole else pixels[SCANNED.y : SCANNED.bottom, SCANNED.x : SCANNED.right]
    inner = shown(builder["builder"], pixels)
    if kind == "rotated":
        turns = {"ROTATE_NONE": 0, "ROTATE_90": -1, "ROTATE_180": 2, "ROTATE_270": 1}  # clockwise
        return np.rot90(inner, turns[builder["rotation"]])
    if kind == "flipped":
        across, down = builder["flip"] in {"HORIZONTAL", "BOTH"}, builder["flip"] in {"VERTICAL", "BOTH"}
        return inner[:: -1 if down else 1, :: -1 if across else 1]
    assert kind == "cropped"
    box = builder["region"]
    return inner[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]]


def rotated(by: int, inner: Builder) -> Builder:
    return {"builderType": "rotated", "rotation": f"ROTATE_{by}", "builder": inner}


def flipped(way: str, inner: Builder) -> Builder:
    return {"builderType": "flipped", "flip": way, "builder": inner}


def cropped(inner: Builder) -> Builder:
    box = {"x": 20, "y": 30, "width": 600, "height": 420, "z": 0, "t": 0}
    return {"builderType": "cropped", "region": box, "builder": inner}


def opened_by_qupath(inner: Builder) -> Builder:
    """As QuPath itself adds a slide: cropped to its bounds."""
    return {**inner, "args": []}


FRAMES: dict[str, Callable[[Builder], Builder]] = {
    "as handed out": lambda b: b,
    "cropped to its bounds": opened_by_qupath,
    "turned by 90": lambda b: rotated(90, b),
    "turned by 180": lambda b: rotated(180, b),
    "turned by 270": lambda b: rotated(270, b),
    "mirrored": lambda b: flipped("HORIZONTAL", b),
    "upside down": lambda b: flipped("VERTICAL", b),
    "both ways": lambda b: flipped("BOTH", b),
    "its bounds, turned by 90": lambda b: rotated(90, opened_by_qupath(b)),
    "its bounds, turned by 270": lambda b: rotated(270, opened_by_qupath(b)),
    "its bounds, mirrored": lambda b: flipped("HORIZONTAL", opened_by_qupath(b)),
    "a part of its bounds": lambda b: cropped(opened_by_qupath(b)),
    "a part of its bounds, turned by 180": lambda b: rotated(180, cropped(opened_by_qupath(b))),
}
SIZED = {"a part of its bounds, turned by 180": (600, 420)}


def entry_becomes(run: RunDir, name: str) -> Builder:
    """The entry shows the slide in another frame, as an image that a person added anew does."""
    value = json.loads(run.project.read_bytes())
    entry = value["images"][0]
    builder = dict(FRAMES[name](entry["serverBuilder"]))
    if name in SIZED:
        width, height = SIZED[name]
        builder["metadata"] = {"width": width, "height": height}
    entry["serverBuilder"] = builder
    run.project.write_text(json.dumps(value))
    return builder


def in_qupath(run: RunDir) -> list[PathObject]:
    """Objects as data.qpdata holds them, in the pixels that QuPath shows."""
    data = project_of(run, read_only=True).read_data(image_of(project_of(run, read_only=True)))
    assert data is not None
    return data.objects


def middle(item: PathObject) -> tuple[float, float]:
    assert item.geometry is not None
    return item.geometry.centroid.x, item.geometry.centroid.y


def dark_share(picture: NDArray[np.uint8], objects: Sequence[PathObject]) -> list[float]:
    """Of each object, the share that lies on tissue in the picture."""
    whole = Bounds(0, 0, picture.shape[1], picture.shape[0])
    shares = []
    for item in objects:
        assert item.geometry is not None
        pixels = fill(item.geometry, whole, 1.0)
        assert item.geometry.area == pytest.approx(pixels.sum(), rel=0.02)  # nothing of it lies beyond the picture
        shares.append(float((picture[pixels] < 128).all(axis=-1).mean()))
    return shares


def test_the_slide_states_bounds_and_the_handout_shows_all_of_it(given: HandoutSlide, tmp_path: Path) -> None:
    frame = probe_slide(Path(given.uri).as_uri())
    assert frame is not None
    assert (frame.size, frame.bounds) == (SIZE, SCANNED)
    run = RunDir(tmp_path / "run")
    assert hand_out(run, SETTINGS, CLASSES, [given]).problems == []
    builder = json.loads(run.project.read_bytes())["images"][0]["serverBuilder"]
    assert builder["args"] == ["--no-crop"]
    assert dark_share(shown(builder, level_0(Path(given.uri))), in_qupath(run)) == pytest.approx([1, 1, 1], abs=0.02)


@pytest.mark.parametrize("name", FRAMES)
def test_predictions_land_on_tissue_and_corrections_come_back(given: HandoutSlide, tmp_path: Path, name: str) -> None:
    run = RunDir(tmp_path / "run")
    # The image is there first, without anything on it.
    assert hand_out(run, SETTINGS, CLASSES, [replace(given, objects=[])]).problems == []
    builder = entry_becomes(run, name)
    result = hand_out(run, SETTINGS, CLASSES, [given])
    assert (result.problems, result.objects) == ([], 3)
    picture = shown(builder, level_0(Path(given.uri)))
    assert dark_share(picture, in_qupath(run)) == pytest.approx([1, 1, 1], abs=0.02)
    for there, handed in zip(objects_of(run), given.objects, strict=True):
        assert shapely.hausdorff_distance(there.geometry, handed.geometry) < 0.01

    # A pathologist sees the picture, shifts the first region by (7, 11) of its pixels, deletes the second and draws
    # one where the picture is dark and no region is left.
    first, second, third = in_qupath(run)
    assert first.geometry is not None
    assert second.geometry is not None
    shifted = replace(first, geometry=translate(first.geometry, 7, 11))
    spot = Point(second.geometry.centroid).buffer(30)
    drawn = PathObject("00000000-0000-4000-8000-000000000001", Kind.ANNOTATION, spot, "Stroma")
    files = DataFiles(run.project.parent)
    raw = files.read(1, "s1")
    assert raw is not None
    files.write(1, "s1", write_qpdata(replace(read_qpdata(raw), objects=[shifted, third, drawn])), ours=False)
    files.flush()

    assert collect(run, REVIEW, COSTS).alarms == ()
    corrected = {o.uuid: o for o in read_geojson(run.review / "corrected" / "s1.geojson")}
    x, y, _ = SPOTS[1]
    assert middle(corrected[drawn.uuid]) == pytest.approx((x, y), abs=0.1)
    assert dark_share(level_0(Path(given.uri)), [corrected[drawn.uuid]]) == pytest.approx([1], abs=0.02)
    # The shift has its length in every frame, and its direction turns with the picture.
    by = np.subtract(middle(corrected[first.uuid]), middle(given.objects[0]))
    assert sorted(np.abs(by)) == pytest.approx([7, 11], abs=0.02)
    assert shapely.hausdorff_distance(corrected[third.uuid].geometry, given.objects[2].geometry) < 0.01
    rows = pq.read_table(run.corrections).to_pylist()
    changes = {row["uuid_before"] or row["uuid_after"]: row["change"] for row in rows}
    assert changes[first.uuid] == "moved"
    assert changes[third.uuid] == "untouched"


def test_a_masked_slide_with_bounds_states_its_whole_size_and_keeps_its_frame(
    given: HandoutSlide, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "run")
    levels = (Size(*SIZE, 1.0),)
    assert hand_out(run, SETTINGS, CLASSES, [replace(given, case="case-0001", levels=levels)]).problems == []
    project = project_of(run)
    image, builder, data = project.image(1), project.entry(1).builder, project.read_data(project.image(1))
    assert data is not None
    metadata = builder["metadata"]
    assert (image.name, metadata["name"], image.size) == ("case-0001", "case-0001", SIZE)
    assert metadata["pixelCalibration"]["pixelWidth"]["value"] == pytest.approx(NM_PER_PX / 1000)
    assert dark_share(shown(builder, level_0(Path(given.uri))), data.objects) == pytest.approx([1, 1, 1], abs=0.02)
    assert [f.what for f in check_project(run.project).images[0].findings] == []
    result = collect(run, REVIEW, COSTS)
    assert result.alarms == ()
    assert result.metrics["images"][0]["counts"]["untouched"] == 3


def test_an_entry_that_was_turned_after_the_handout_is_told_of(given: HandoutSlide, tmp_path: Path) -> None:
    """QuPath draws the objects where they were on the picture, and so they lie elsewhere on the slide."""
    run = RunDir(tmp_path / "run")
    assert given.tissue is not None
    given.tissue.save(run.slide("s1").tissue)
    assert hand_out(run, SETTINGS, CLASSES, [given]).problems == []
    assert [f.what for f in check_project(run.project).images[0].findings] == []
    builder = entry_becomes(run, "turned by 180")
    assert max(dark_share(shown(builder, level_0(Path(given.uri))), in_qupath(run))) < 0.1
    (image,) = check_project(run.project).images
    assert [f.what for f in image.findings] == ["tissue"]
    assert "3 of 3 predictions" in str(image.findings[0])
