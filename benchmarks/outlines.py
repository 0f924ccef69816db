"""Polygons to GeoJSON, beside `geojson.dump`, the library that most scripts use.

    python -m benchmarks.outlines [--polygons 100000]

Blobs of 40 corners with a class and one measurement, one in ten with a hole. Both files say the same of them; ours is
checked to be one that QuPath can read, polygon by polygon.
"""

from __future__ import annotations

import argparse
import tempfile
import uuid
from pathlib import Path

import geojson
import numpy as np
import shapely

from benchmarks.clock import clock, peak_mb, report
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath import write_geojson

CORNERS = 40
WITH_HOLE = 10
"""One polygon in so many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polygons", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), blobs(options.polygons))


def blobs(count: int) -> list[PathObject]:
    """Wavy discs of 10 to 60 px on a slide of 100,000 x 80,000 px, the same at every call."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    middle = rng.uniform(0, (100_000, 80_000), (count, 1, 2))
    ray = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    waves = 1 + 0.2 * np.sin(angle * rng.integers(2, 7, (count, 1)) + rng.uniform(0, 6, (count, 1)))
    outer = np.round(middle + (rng.uniform(15, 60, (count, 1)) * waves)[:, :, None] * ray, 2)
    shapes = shapely.polygons(outer)
    holed = np.arange(0, count, WITH_HOLE)
    inner = shapely.linearrings(np.round(middle[holed] + 4 * ray, 2))
    shapes[holed] = shapely.polygons(shapely.get_exterior_ring(shapes[holed]), inner[:, None])
    return [
        PathObject(
            uuid=str(uuid.UUID(int=number)),
            kind=Kind.ANNOTATION,
            geometry=shape,
            path_class="Tumor",
            measurements={"Probability: mean": round(float(value), 4)},
        )
        for number, (shape, value) in enumerate(zip(shapes, rng.random(count), strict=True))
    ]


def write(folder: Path, objects: list[PathObject]) -> None:
    """Write the objects with both, and say what each took."""
    colors = {"Tumor": (200, 0, 0)}
    # What a process does once is not what a polygon costs.
    write_geojson(folder / "ours.geojson", objects[:1], colors)
    before = peak_mb()
    with clock() as ours:
        write_geojson(folder / "ours.geojson", objects, colors)
    extra = peak_mb() - before
    with clock() as theirs, (folder / "theirs.geojson").open("w") as file:
        features = [
            geojson.Feature(id=o.uuid, geometry=o.geometry.__geo_interface__, properties=properties(o))
            for o in objects
            if o.geometry is not None
        ]
        geojson.dump(geojson.FeatureCollection(features), file)
    report(
        run="geojson",
        polygons=len(objects),
        cpu_s=ours.cpu_s,
        extra_mb=extra,
        geojson_dump_cpu_s=theirs.cpu_s,
        ratio=theirs.cpu_s / ours.cpu_s,
    )


def properties(item: PathObject) -> dict[str, object]:
    """The same that our file says of an annotation."""
    return {
        "objectType": "annotation",
        "classification": {"name": item.path_class, "color": [200, 0, 0]},
        "measurements": dict(item.measurements),
        "metadata": dict(item.metadata),
    }


if __name__ == "__main__":
    main()
