"""A slide on an object store beside the same one on a local disk: bytes fetched, and time with and without latency.

    python -m benchmarks.remote [--size 8192] [--latency-ms 30] [--weights null] [--repeats 3] [--folder build/bench]

The store is an S3 server (moto) on the loopback; a line before it counts bytes and adds latency to each answer. One
process does the whole stage, maps and polygons written. `wall_s` and `cpu_s` leave out imports and the making of
clients, on both sides alike; the least of all repeats counts. `bytes_ratio` is all that came from the store (headers of
HTTP and of the slide, coarse levels, tiles that were fetched twice) beside the tiles that were used, each once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.clock import cpu_now, report
from benchmarks.comparison import draw
from benchmarks.engine import configured, model_of, null_model
from benchmarks.object_store import Line, environment, object_store

MPP = 0.5
BUCKET = "bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--latency-ms", type=float, default=30.0)
    parser.add_argument("--weights", default="null")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        one(options.one, options.weights)
        return
    slide = options.folder.absolute() / f"slide-{options.size}.tif"
    if not Path(f"{slide}.gt.npz").exists():
        draw(slide, options.size)
    compare(slide, options.weights, options.latency_ms / 1000, options.repeats)


def compare(slide: Path, weights: str, latency_s: float, repeats: int) -> None:
    """In turns, so that what else runs on the machine meets all alike."""
    there = f"s3://{BUCKET}/{slide.name}"
    runs: dict[str, list[dict[str, Any]]] = {"local": [], "s3": [], f"s3, {1000 * latency_s:.0f} ms": []}
    with object_store() as line:
        upload(line, slide)
        for _ in range(repeats):
            for name, found in runs.items():
                line.latency_s = latency_s if name.endswith("ms") else 0.0
                line.sent = line.requests = 0
                took = outcome(str(slide) if name == "local" else there, weights, line)
                found.append({**took, "sent": line.sent, "requests": line.requests})
    local = runs["local"]
    for name, found in runs.items():
        best, least = found[0], {key: min(took[key] for took in found) for key in ("wall_s", "cpu_s")}
        fetched = {}
        if name != "local":
            fetched = {
                "requests": best["requests"],
                "fetched_mb": max(took["sent"] for took in found) / 1e6,
                "bytes_ratio": max(took["sent"] / took["tile_bytes"] for took in found),
                **{
                    f"{key.removesuffix('_s')}_ratio": least[key] / min(took[key] for took in local)
                    for key in ("wall_s", "cpu_s")
                },
            }
        report(run=f"remote, {name}", tiles_mb=best["tile_bytes"] / 1e6, **least, **fetched)


def upload(line: Line, slide: Path) -> None:
    """In a process of its own, which knows where the store is."""
    code = (
        "import sys, fsspec\n"
        f"s3 = fsspec.filesystem('s3'); s3.mkdir({BUCKET!r}); s3.put(sys.argv[1], {f'{BUCKET}/{slide.name}'!r})"
    )
    subprocess.run([sys.executable, "-c", code, str(slide)], env=environment(line), check=True)


def outcome(uri: str, weights: str, line: Line) -> dict[str, Any]:
    """What a run in a process of its own says."""
    command = [sys.executable, "-m", "benchmarks.remote", "--one", uri, "--weights", weights]
    done = subprocess.run(command, env=environment(line), check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(uri: str, weights: str) -> None:
    """The whole stage on one slide, and the bytes of the tiles that it used."""
    import tiffslide  # noqa: F401 - costs time

    from wsi_pipeline.rundir import RunDir
    from wsi_pipeline.slides.sources import ByteSource
    from wsi_pipeline.stages.predict import predict_cohort

    # What the process does once: imports, a client of the store.
    ByteSource(uri).close()
    with (
        tempfile.TemporaryDirectory() as folder,
        used_tiles() as used,
        null_model(MPP) if weights == "null" else nullcontext(model_of(weights, MPP)) as model,
    ):
        config = configured(uri, model, MPP, Path(folder) / "run", runtime="auto", workers=None)
        cpu, wall = cpu_now(), time.perf_counter()
        result = predict_cohort(config)
        cpu_s, wall_s = cpu_now() - cpu, time.perf_counter() - wall
        if result.failed:
            raise SystemExit(f"{RunDir(config.output).run_json}: {result.reasons}")
    report(wall_s=wall_s, cpu_s=cpu_s, tile_bytes=sum(used.values()))


@contextmanager
def used_tiles() -> Iterator[dict[tuple[int, int], int]]:
    """The bytes of each tile (level, number) that was decoded while the block runs."""
    from wsi_pipeline.slides.tiffs import TiledLevel

    used: dict[tuple[int, int], int] = {}
    made = TiledLevel._made

    def noted(level: TiledLevel, job: tuple[int, bytes]) -> Any:
        used[level.index, job[0]] = len(job[1])
        return made(level, job)

    with patch.object(TiledLevel, "_made", noted):
        yield used


if __name__ == "__main__":
    main()
