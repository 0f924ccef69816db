"""What it costs to tell which tiles are unlike the training slides: the same slide and weights with and without.

    python -m benchmarks.unlike SLIDE WEIGHTS [--mpp 0.5] [--rounds 3]

Three cards for the same weights: without statistics, with those of colour and sharpness, with those of the network's
features too, all measured on the slide itself. Each predicts the slide in a process of its own, one after the other in
each round, after one that measures the runtime and converts the network. `share` is what the features add to the
CPU seconds of a run with colour and sharpness, `share_of_all` both together to one without; the maps must be the same
byte for byte.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks.clock import report
from benchmarks.comparison import outcome
from benchmarks.engine import model_of, stated_mpp
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import Tissue
from wsi_pipeline.files import write_json
from wsi_pipeline.learning.familiar import familiar_of
from wsi_pipeline.learning.samples import Tile
from wsi_pipeline.learning.tiles import tissue_squares
from wsi_pipeline.models import load_card
from wsi_pipeline.models.structure import write_structure
from wsi_pipeline.models.unet import read_unet
from wsi_pipeline.regions import read_tiles
from wsi_pipeline.slides import open_slide, working_downsample

PLAIN, LOOK, BOTH = "without", "colour and sharpness", "and features"
SIDE, MOST = 256, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--mpp", type=float, help="of the model, where not the slide's own")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    slide = options.slide.absolute()
    with tempfile.TemporaryDirectory() as folder:
        models = cards(Path(model_of(options.weights, options.mpp or stated_mpp(slide))), slide, Path(folder))
        spent: dict[str, list[float]] = {name: [] for name in models}
        maps, strange = {}, {}
        for turn in range(options.rounds + 1):
            for name, model in models.items():
                output = Path(folder) / "runs" / f"{turn} {name}"
                found = outcome("benchmarks.engine", str(slide), str(model), "--output", str(output))
                if turn:
                    spent[name].append(found["cpu_s"])
                maps[name], strange[name] = contents(output), counts(output)
                shutil.rmtree(output)
    cpu = {name: statistics.median(values) for name, values in spent.items()}
    report(
        run="tiles unlike the training slides",
        rounds=options.rounds,
        **{f"cpu_s {name}": value for name, value in cpu.items()},
        share=statistics.median(b / a - 1 for a, b in zip(spent[LOOK], spent[BOTH], strict=True)),
        share_of_all=statistics.median(b / a - 1 for a, b in zip(spent[PLAIN], spent[BOTH], strict=True)),
        same_maps=maps[PLAIN] == maps[LOOK] == maps[BOTH],
        **strange[BOTH],
    )


def cards(model: Path, slide: Path, folder: Path) -> dict[str, Path]:
    """Folders of one model with three cards."""
    card = load_card(model)
    with open_slide(SlideRef("slide", str(slide), slide.name)) as opened:
        downsample = working_downsample(opened, card.mpp)
        squares = tissue_squares(opened, Tissue(), SIDE, downsample)
        step = max(1, len(squares) // MOST)
        images = [opened.read(place, downsample) for place in squares[::step]]
    net = read_unet(model / "model.safetensors")
    # Three parts of the slide stand for slides: the statistics are to be there, not to be right.
    familiar = familiar_of([Tile(f"part {i % 3}", "", im, im[..., 0]) for i, im in enumerate(images)], net)
    found = {}
    for name in (PLAIN, LOOK, BOTH):
        own = folder / "models" / name
        own.mkdir(parents=True)
        shutil.copy(model / "model.safetensors", own)
        update = {
            "appearance": None if name == PLAIN else familiar.appearance,
            "structure": write_structure(own, familiar.structure) if name == BOTH else None,
        }
        write_json(own / "card.json", card.model_copy(update=update).dump())
        found[name] = own
    return found


def contents(run: Path) -> dict[str, bytes]:
    """The maps of a run: every file of its prediction store but its description, which holds the run's times."""
    (store,) = (run / "slides").glob("*/prediction.zarr")
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if is_chunk(p)}


def is_chunk(path: Path) -> bool:
    return path.is_file() and not path.name.endswith(".json")


def counts(run: Path) -> dict[str, int]:
    (path,) = (run / "slides").glob("*/tiles.parquet")
    tiles = read_tiles(path)
    return {
        "tiles": len(tiles),
        "strange_appearance": sum(t.strange_appearance is True for t in tiles),
        "strange_structure": sum(t.strange_structure is True for t in tiles),
    }


if __name__ == "__main__":
    main()
