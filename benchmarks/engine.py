"""From a slide to polygons with a U-Net: the whole stage, as a user runs it.

    python -m benchmarks.engine SLIDE WEIGHTS [--json]

WEIGHTS is a state dict of the bundled U-Net (`.pt` or `.safetensors`), a model folder, or `baseline`. Where
`SLIDE.gt.npz` is (arrays `tissue` and `tumour` on a grid of `scale` px), Dice against it is given. CPU seconds are of
this process, from after the imports; runtime and converted model are cached by a first call.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from benchmarks.clock import clock, peak_mb, report
from wsi_pipeline.config import parse_config
from wsi_pipeline.files import read_json
from wsi_pipeline.models import ClassSpec, ModelCard
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.raster import fill
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.predict import predict_cohort
from wsi_pipeline.tiling import Bounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--mpp", type=float, default=0.5, help="µm/px of slide and model")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--json", action="store_true", help="accepted for symmetry; the output always is JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = model_of(options.weights, Path(folder) / "model", options.mpp)
        report(**measure(options.slide.absolute(), model, options.mpp, options.runtime, Path(folder) / "run"))


def model_of(weights: str, folder: Path, mpp: float) -> str:
    """A model path for whatever was given."""
    if weights == "baseline":
        return "baseline:stain-density"
    if Path(weights).is_dir():
        return str(Path(weights).absolute())
    from wsi_pipeline.models.unet import HALO, STRIDE, read_unet, save_model

    net = read_unet(Path(weights))
    classes = (
        ClassSpec(name="Background", color=(200, 200, 200), background=True),
        ClassSpec(name="Tumor", color=(200, 0, 0)),
    )
    card = ModelCard(name="bench", architecture="unet", mpp=mpp, window=512, halo=HALO, stride=STRIDE, classes=classes)
    save_model(folder, net, card)
    return str(folder)


def measure(slide: Path, model: str, mpp: float, runtime: str, output: Path) -> dict[str, Any]:
    config = parse_config(
        {
            "output": str(output),
            "cohort": {"slides": [str(slide)], "mpp": mpp},
            "model": {"path": model, "runtime": runtime},
            "regions": {"min_area_um2": 250},
        },
        base=Path.cwd(),
    )
    with clock() as took:
        predict_cohort(config)
    run = RunDir(output)
    record = read_json(run.run_json)
    (slide_id,) = record["slides"]
    if record["slides"][slide_id]["state"] != "done":
        raise SystemExit(record["slides"][slide_id]["reason"])
    folder = run.slide(slide_id)
    summary = read_json(folder.summary)
    shapes = [o.geometry for o in read_geojson(folder.regions) if o.geometry is not None]
    result: dict[str, Any] = {
        "run": f"wsi-pipeline-{record['runtime']['runtime']}",
        "wall_s": took.wall_s,
        "cpu_s": took.cpu_s,
        "polygons": len(shapes),
        "vertices": int(shapely.get_num_coordinates(shapes).sum()),
        "holes": int(shapely.get_num_interior_rings(shapes).sum()),
        "peak_mb": peak_mb(),
    }
    truth = slide.with_name(slide.name + ".gt.npz")
    tissue_mpx = summary["tissue_mm2"] / summary["mpp"] ** 2
    if truth.exists():
        known = np.load(truth)
        scale = int(known["scale"])
        tumour, tissue = known["tumour"], known["tissue"]
        tissue_mpx = float(tissue.mean()) * summary["width"] * summary["height"] / 1e6
        marked = fill(shapes, Bounds(0, 0, tumour.shape[1], tumour.shape[0]), scale)
        result["dice"] = 2.0 * float((marked & tumour).sum()) / max(1, int(marked.sum() + tumour.sum()))
    return {**result, "tissue_mpx": tissue_mpx, "cpu_s_per_mpx": took.cpu_s / max(tissue_mpx, 1e-9)}


if __name__ == "__main__":
    main()
