"""How long QuPath's projects take, by both backends, one JSON line for each measurement.

    python benchmarks/qpdata.py                          # 50,000 objects of each kind, a project of 1,000 images
    python benchmarks/qpdata.py --objects 12500 25000 50000 100000   # is it linear?

Each measurement runs in a process of its own: CPU seconds of one thread, and the peak memory of the process: in all,
above what it needs to start (Python, numpy and shapely imported), and above what it needs when the clock starts (for
reading the bytes of the file, for writing the objects). The paquo backend adds and reads the same objects through a
project with QuPath's own code; its lines say `not run` and why where there is no QuPath that it can use.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import tifffile

from wsi_pipeline.objects import Kind, PathObject, Roi
from wsi_pipeline.qupath import create_project, find_qupath, open_project
from wsi_pipeline.qupath.find import QuPathInfo
from wsi_pipeline.qupath.native.qpdata import QpData, read_qpdata, write_qpdata

# Issue-sized cases: vertices, measurements, and keys of metadata beside the id.
CASES = {
    "polygons": (Kind.ANNOTATION, 50, 4, 0),
    "predictions": (Kind.ANNOTATION, 50, 4, 3),
    "cells": (Kind.CELL, 20, 30, 0),
}
CLASSES = ("Tumor", "Stroma", "Immune cells", None)


def objects(case: str, count: int) -> list[PathObject]:
    """Round objects at random places, the same for the same case and count."""
    kind, vertices, numbers, keys = CASES[case]
    random = np.random.default_rng(count)
    turn = np.arange(vertices) * 2 * np.pi / vertices
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    centres = random.uniform(100, 100_000, (count, 1, 2))
    rings = (centres + random.uniform(8, 20, (count, vertices, 1)) * circle).round(2)
    shapes = shapely.polygons(rings)
    nuclei = shapely.polygons(centres + (rings - centres) / 2).tolist() if kind is Kind.CELL else [None] * count
    values = np.float32(random.random((count, numbers))).astype(float).tolist()
    names = [f"Measurement {i}: mean" for i in range(numbers)]
    return [
        PathObject(
            uuid=str(uuid.UUID(bytes=random.bytes(16))),
            kind=kind,
            geometry=shape,
            path_class=CLASSES[i % len(CLASSES)],
            measurements=dict(zip(names, row, strict=True)),
            metadata={"wsi_run": "run", "wsi_model": "unet@0", "wsi_confidence": f"{row[0]:.3f}"} if keys else {},
            roi=Roi.POLYGON,
            nucleus=nucleus,
            nucleus_roi=None if nucleus is None else Roi.POLYGON,
        )
        for i, (shape, nucleus, row) in enumerate(zip(shapes.tolist(), nuclei, values, strict=True))
    ]


def peak() -> float:
    """Highest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(action: str, case: str, count: int, path: Path) -> dict[str, Any]:
    """One measurement, in this process."""
    # One small file first, so that imports and caches are not counted.
    read_qpdata(write_qpdata(QpData(objects=objects(case, 8))))
    at_start = peak()
    if action == "write":
        data = QpData("BRIGHTFIELD_H_E", {"server": {}}, objects(case, count))
        prepared = peak()
        started = time.process_time()
        raw = write_qpdata(data)
        seconds = time.process_time() - started
        path.write_bytes(raw)
    else:
        raw = path.read_bytes()
        prepared = peak()
        started = time.process_time()
        found = read_qpdata(raw)
        seconds = time.process_time() - started
        assert len(found.objects) == count
        assert all(item.geometry is not None for item in found.objects)
    return {
        "what": f"{action} {case}",
        "backend": "native",
        "objects": count,
        "cpu_s": round(seconds, 3),
        "us_per_object": round(1e6 * seconds / count, 2),
        "file_mb": round(len(raw) / 1e6, 1),
        "peak_mib": round(peak()),
        "peak_above_start_mib": round(peak() - at_start),
        "peak_above_input_mib": round(peak() - prepared),
    }


def measure_paquo(case: str, count: int, folder: Path) -> list[dict[str, Any]]:
    """Adding (QuPath saves and the file is counted) and reading through the paquo backend, wall and CPU seconds."""
    slide = folder / "slide.tif"
    tifffile.imwrite(slide, np.full((512, 512, 3), 230, np.uint8), tile=(256, 256), photometric="rgb")
    project = create_project(folder / "project", "paquo")
    image = project.add_image(slide.as_uri(), "slide", size=(512, 512), mpp=0.5, image_type="BRIGHTFIELD_H_E")
    project.save()
    given = objects(case, count)
    rows = []
    for action in ("write", "read"):
        wall, started = time.perf_counter(), time.process_time()
        found = project.add_objects(image, given) if action == "write" else len(image.read_objects())
        assert found == count
        seconds = {"wall_s": round(time.perf_counter() - wall, 3), "cpu_s": round(time.process_time() - started, 3)}
        rows.append(
            {"what": f"{action} {case}", "backend": "paquo", "objects": count} | seconds | {"peak_mib": round(peak())}
        )
    return rows


def measure_project(count: int, folder: Path) -> dict[str, Any]:
    """Opening a project of many images and listing them with names, sizes and metadata; it is made first."""
    project = create_project(folder / "many", "native")
    for i in range(count):
        uri = f"file:///slides/slide%20{i}.svs"
        project.add_image(uri, f"slide {i}", size=(100_000, 80_000), mpp=0.25, metadata={"wsi_state": "todo"})
    project.save()
    started = time.process_time()
    listed = [
        (image.name, image.uri, image.size, image.metadata["wsi_state"])
        for image in open_project(folder / "many", "native", read_only=True).images()
    ]
    seconds = time.process_time() - started
    assert len(set(listed)) == count
    return {"what": "open and list a project", "backend": "native", "images": count, "cpu_s": round(seconds, 3)}


def in_own_process(action: str, case: str, count: int, path: Path) -> Any:
    """One measurement in a new process with one thread."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", action, case, str(count), str(path)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--objects", type=int, nargs="+", default=[50_000], help="how many objects a file holds")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--images", type=int, default=1000, help="how many images the project holds")
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many runs counts")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        action, case, count, path = arguments.one
        if action == "paquo":
            print(json.dumps(measure_paquo(case, int(count), Path(path))))
        elif action == "project":
            print(json.dumps(measure_project(int(count), Path(path))))
        else:
            print(json.dumps(measure(action, case, int(count), Path(path))))
        return
    qupath = find_qupath()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.qpdata"
        for case in arguments.cases:
            for count in arguments.objects:
                for action in ("write", "read"):
                    runs = [in_own_process(action, case, count, path) for _ in range(arguments.repeat)]
                    print(json.dumps(min(runs, key=lambda run: float(run["cpu_s"]))), flush=True)
                for row in _paquo_rows(qupath, case, count, Path(folder)):
                    print(json.dumps(row), flush=True)
        print(json.dumps(in_own_process("project", "-", arguments.images, Path(folder))), flush=True)


def _paquo_rows(qupath: QuPathInfo, case: str, count: int, folder: Path) -> list[dict[str, Any]]:
    if qupath.backend != "paquo":
        not_run = {"backend": "paquo", "objects": count, "not run": qupath.reason}
        return [{"what": f"{action} {case}"} | not_run for action in ("write", "read")]
    place = folder / f"paquo-{case}-{count}"
    place.mkdir()
    rows: list[dict[str, Any]] = in_own_process("paquo", case, count, place)
    return rows


if __name__ == "__main__":
    main()
