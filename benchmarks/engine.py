"""From a slide to maps (zarr) and polygons (GeoJSON): the whole stage, as a user runs it.

    python -m benchmarks.engine SLIDE WEIGHTS|null [--json] [--output FOLDER]

WEIGHTS is a model folder, `baseline`, or a state dict of the bundled U-Net (`.pt`, `.safetensors`), which is given a
card once; `null` is a model that costs almost nothing and shows the engine's own cost. Models, their conversion and the
chosen runtime are kept in the package's cache folder, so a second call is a warm one.

One JSON line. `wall_s` and `cpu_s` are of the whole process and its children, from its start to the last file written,
imports included; `start_cpu_s` is what of it went before the first block, `after_blocks_s` the wall time after
the last one. Where `SLIDE.gt.npz` is (arrays `tissue` and
`tumour` on a grid of `scale` px), `dice` compares with it: cells that an outline touches count as inside, as filling
polygons with OpenCV does; `dice_centres` counts the cells whose centre is inside.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from wsi_pipeline.start import loading

# As the command loads them.
with loading():
    from benchmarks.clock import cpu_now, peak_mb, report
    from wsi_pipeline.cohort import SlideRef
    from wsi_pipeline.config import Config, parse_config
    from wsi_pipeline.files import read_json
    from wsi_pipeline.models import ClassSpec, ModelCard, load_card
    from wsi_pipeline.models.machine import cache_dir
    from wsi_pipeline.progress import LogProgress
    from wsi_pipeline.qupath import read_geojson
    from wsi_pipeline.rundir import RunDir
    from wsi_pipeline.slides import open_slide
    from wsi_pipeline.stages.predict import predict_cohort


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--mpp", type=float, help="µm/px of slide and model, where the slide does not say")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--workers", type=int, help="worker processes instead of threads of this one")
    parser.add_argument("--output", type=Path, help="a new folder to keep the run in")
    parser.add_argument("--json", action="store_true", help="accepted for symmetry; the output always is JSON")
    options = parser.parse_args()
    if options.weights == "null" and options.workers:
        parser.error("`null` is known to this process alone; give `baseline` or weights with --workers")
    slide = options.slide.absolute()
    with tempfile.TemporaryDirectory() as folder:
        output = options.output or Path(folder) / "run"
        if output.exists():
            parser.error(f"--output {output} is there already; what is done would not be measured")
        mpp = options.mpp or stated_mpp(slide)
        with null_model(mpp) if options.weights == "null" else nullcontext(model_of(options.weights, mpp)) as model:
            config = configured(slide, model, mpp, output, runtime=options.runtime, workers=options.workers)
            report(**measure(config, slide))


def stated_mpp(slide: Path) -> float:
    """What the slide itself says, in µm/px: the model is to work on its level 0."""
    with open_slide(SlideRef("slide", str(slide), slide.name)) as opened:
        return opened.mpp


def null_model(mpp: float) -> AbstractContextManager[str]:
    """The model that costs almost nothing, in the place of whatever this process would load."""
    from benchmarks.nullnet import installed

    return installed(mpp)


def model_of(weights: str, mpp: float) -> str:
    """A model path for whatever was given; bare weights get a folder with a card, which is kept."""
    if weights == "baseline":
        return "baseline:stain-density"
    path = Path(weights).absolute()
    if path.is_dir():
        return str(path)
    digest = hashlib.sha256(path.read_bytes() + repr(mpp).encode()).hexdigest()
    folder = cache_dir() / "bench" / digest[:32]
    if not (folder / "card.json").exists():
        from wsi_pipeline.models.unet import HALO, STRIDE, read_unet, save_model

        classes = (
            ClassSpec(name="Background", color=(200, 200, 200), background=True),
            ClassSpec(name="Tumor", color=(200, 0, 0)),
        )
        card = ModelCard(
            name="bench", architecture="unet", mpp=mpp, window=512, halo=HALO, stride=STRIDE, classes=classes
        )
        save_model(folder, read_unet(path), card)
    return str(folder)


def configured(slide: Path | str, model: str, mpp: float, output: Path, *, runtime: str, workers: int | None) -> Config:
    """A configuration that asks for the same work as the naive pipeline: regions above 1,000 px², holes kept."""
    raw = {
        "output": str(output),
        "cohort": {"slides": [str(slide)], "mpp": mpp},
        "model": {"path": model, "runtime": runtime},
        "inference": {"workers": workers},
        "regions": {"min_area_um2": 1000 * mpp**2, "min_hole_um2": 0},
    }
    return parse_config(raw, base=Path.cwd())


class Start(LogProgress):
    """Notes the CPU seconds that were used before the engine's first block, and when the last one was there."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu_s = 0.0
        self.last_s = 0.0

    def advance(self, item: str, done: int, total: int) -> None:
        """The engine tells it of each slide before it hands out the first block, and after each run of blocks."""
        self.cpu_s = self.cpu_s or cpu_now()
        self.last_s = seconds_since_start()


def measure(config: Config, slide: Path) -> dict[str, Any]:
    """Predict, and what it took and gave."""
    start = Start()
    predict_cohort(config, progress=start)
    cpu_s, wall_s, peak = cpu_now(), seconds_since_start(), peak_mb()
    run = RunDir(config.output)
    record = read_json(run.run_json)
    (slide_id,) = record["slides"]
    if record["slides"][slide_id]["state"] != "done":
        raise SystemExit(record["slides"][slide_id]["reason"])
    import shapely

    folder = run.slide(slide_id)
    summary = read_json(folder.summary)
    shapes = [o.geometry for o in read_geojson(folder.regions) if o.geometry is not None]
    tissue_mpx, scores = compared(slide, shapes)
    if tissue_mpx is None:
        tissue_mpx = summary["tissue_mm2"] / summary["mpp"] ** 2
    return {
        "run": f"wsi-pipeline-{record['runtime']['runtime']}",
        "size": max(summary["width"], summary["height"]),
        "tissue_mpx": tissue_mpx,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "cpu_s_per_mpx": cpu_s / max(tissue_mpx, 1e-9),
        "start_cpu_s": start.cpu_s,
        "after_blocks_s": wall_s - start.last_s,
        "peak_mb": peak,
        "polygons": len(shapes),
        "vertices": int(shapely.get_num_coordinates(shapes).sum()),
        "holes": int(shapely.get_num_interior_rings(shapes).sum()),
        **scores,
        "model": load_card(config.model.path).name if config.model.path != "baseline:null" else "null",
    }


def seconds_since_start() -> float:
    """Wall seconds since this process began."""
    import psutil

    return time.time() - psutil.Process(os.getpid()).create_time()


def compared(slide: Path, shapes: list[Any]) -> tuple[float | None, dict[str, float | None]]:
    """Mpx of true tissue, and the Dice scores; None where there is no truth."""
    truth = slide.with_name(slide.name + ".gt.npz")
    if not truth.exists():
        return None, {"dice": None, "dice_centres": None}
    import numpy as np

    from wsi_pipeline.raster import fill
    from wsi_pipeline.tiling import Bounds

    with np.load(truth) as known:
        scale, tumour, tissue = int(known["scale"]), known["tumour"].astype(bool), known["tissue"].astype(bool)
    height, width = tumour.shape

    def dice(marked: Any) -> float:
        return 2.0 * float((marked & tumour).sum()) / max(1, int(marked.sum() + tumour.sum()))

    centres = fill(shapes, Bounds(0, 0, width, height), scale)
    return float(tissue.mean()) * width * height * scale**2 / 1e6, {
        "dice": dice(touched(shapes, (height, width), scale)),
        "dice_centres": dice(centres),
    }


def touched(shapes: list[Any], size: tuple[int, int], scale: int) -> Any:
    """Cells inside or on the rounded outline, holes likewise taken out: bool (height, width).

    Outlines are walked in steps of a cell, so that the score does not depend on how many vertices they have.
    """
    import numpy as np
    import shapely
    from PIL import Image, ImageDraw

    image = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(image)
    for shape in shapely.segmentize(shapes, scale):
        for ring, value in ((shape.exterior, 1), *((hole, 0) for hole in shape.interiors)):
            points = np.rint(np.asarray(ring.coords) / scale - 0.5).astype(int)
            draw.polygon([(int(x), int(y)) for x, y in points], fill=value, outline=value)
    return np.asarray(image)


if __name__ == "__main__":
    main()
