"""How long data.qpdata takes: writing and reading objects without a JVM, one JSON line for each measurement.

    python benchmarks/qpdata.py                          # 50,000 objects of each kind
    python benchmarks/qpdata.py --objects 12500 25000 50000 100000   # is it linear?

Each measurement runs in a process of its own: CPU seconds of one thread, and the peak memory of the process: in all,
above what it needs to start (Python, numpy and shapely imported), and above what it needs when the clock starts (for
reading the bytes of the file, for writing the objects).
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

from wsi_pipeline.objects import Kind, PathObject, Roi
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
        "objects": count,
        "cpu_s": round(seconds, 3),
        "us_per_object": round(1e6 * seconds / count, 2),
        "file_mb": round(len(raw) / 1e6, 1),
        "peak_mib": round(peak()),
        "peak_above_start_mib": round(peak() - at_start),
        "peak_above_input_mib": round(peak() - prepared),
    }


def in_own_process(action: str, case: str, count: int, path: Path) -> dict[str, Any]:
    """One measurement in a new process with one thread."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", action, case, str(count), str(path)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--objects", type=int, nargs="+", default=[50_000], help="how many objects a file holds")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many runs counts")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        action, case, count, path = arguments.one
        print(json.dumps(measure(action, case, int(count), Path(path))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.qpdata"
        for case in arguments.cases:
            for count in arguments.objects:
                for action in ("write", "read"):
                    runs = [in_own_process(action, case, count, path) for _ in range(arguments.repeat)]
                    print(json.dumps(min(runs, key=lambda run: float(run["cpu_s"]))), flush=True)


if __name__ == "__main__":
    main()
