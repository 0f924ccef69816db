"""The benchmark of the engine says what it promises, warm runs load no torch, and its null model is the naive one's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from shapely import Polygon, box
from shapely.geometry import mapping

from benchmarks import comparison, naive, nullnet
from benchmarks.engine import compared, model_of, touched
from wsi_pipeline.models.unet import UNet

ROOT = Path(nullnet.__file__).parents[1]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    comparison.draw(path, 1024)
    return path


def spoken(*arguments: str, code: str = "") -> dict[str, object]:
    """The JSON line of the benchmark in a process of its own; `code` runs after it."""
    script = (
        f"import sys; sys.argv = ['engine', *{list(arguments)!r}]\nfrom benchmarks.engine import main\nmain()\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found: dict[str, object] = json.loads(line)
    return found


def test_one_line_says_what_was_done_and_what_it_took(slide: Path, tmp_path: Path) -> None:
    found = spoken(str(slide), "null", "--json", "--output", str(tmp_path / "run"))
    assert {"run", "tissue_mpx", "wall_s", "cpu_s", "start_cpu_s", "peak_mb", "vertices", "holes"} <= set(found)
    with np.load(f"{slide}.gt.npz") as truth:
        assert found["tissue_mpx"] == pytest.approx(truth["tissue"].mean() * 1024**2 / 1e6, abs=1e-3)
    assert int(str(found["polygons"])) > 0
    assert 0 < float(str(found["start_cpu_s"])) < float(str(found["cpu_s"]))
    (folder,) = (tmp_path / "run" / "slides").iterdir()
    assert (folder / "prediction.zarr" / "zarr.json").exists()
    assert (folder / "regions.geojson").exists()


@pytest.mark.slow
def test_a_warm_run_of_bare_weights_loads_no_torch(slide: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "unet.pt"
    torch.save(UNet(4).state_dict(), weights)
    arguments = (str(slide), str(weights), "--runtime", "openvino")
    spoken(*arguments)
    spoken(
        *arguments,
        code="found = {'torch', 'pandas', 'pyarrow.compute'} & set(sys.modules); assert not found, sorted(found)",
    )


def test_bare_weights_get_a_folder_that_is_kept(tmp_path: Path) -> None:
    weights = tmp_path / "unet.pt"
    torch.save(UNet(2).state_dict(), weights)
    folder = Path(model_of(str(weights), 0.5))
    before = (folder / "card.json").stat().st_mtime_ns
    assert model_of(str(weights), 0.5) == str(folder)
    assert (folder / "card.json").stat().st_mtime_ns == before
    assert model_of(str(weights), 0.25) != str(folder)


def test_the_null_models_of_both_sides_are_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    images[0, :32, :32] = (100, 60, 130)
    ours = nullnet.NullNet(nullnet.null_card(0.5)).predict(images).probability[:, 0]
    with torch.inference_mode():
        logits = naive.NullNet()(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    theirs = 255 * torch.softmax(logits, 1)[:, 1].numpy()
    assert np.abs(ours - theirs).max() <= 0.51
    assert ours[0, 0, 0] > 200


def test_the_score_does_not_depend_on_the_number_of_vertices() -> None:
    square = Polygon([(40, 40), (200, 40), (200, 120), (40, 120)], [[(80, 60), (120, 60), (120, 100), (80, 100)]])
    dense = square.segmentize(5)
    assert (touched([square], (16, 16), 16) == touched([dense], (16, 16), 16)).mean() > 0.98


def test_without_a_truth_there_is_no_score(tmp_path: Path) -> None:
    assert compared(tmp_path / "slide.tif", []) == (None, {"dice": None, "dice_centres": None})


def test_agreement_is_of_all_that_is_inside(tmp_path: Path) -> None:
    def written(name: str, *shapes: Polygon) -> Path:
        features = [{"type": "Feature", "geometry": mapping(shape), "properties": {}} for shape in shapes]
        path = tmp_path / name
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return path

    # The same square, once as two halves that overlap; beside it one that is a third larger.
    halves = written("halves", box(0, 0, 6, 10), box(4, 0, 10, 10))
    assert comparison.agreement(halves, written("whole", box(0, 0, 10, 10))) == pytest.approx(1)
    assert comparison.agreement(halves, written("larger", box(0, 0, 15, 10))) == pytest.approx(2 / 3)
    crossed = written("crossed", Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]))
    assert comparison.agreement(crossed, halves) == pytest.approx(0.5)
    assert comparison.agreement(written("none"), written("nothing")) == 1


@pytest.mark.slow
def test_the_network_that_is_compared_tells_tumour_from_stroma(tmp_path: Path) -> None:
    slide, weights = tmp_path / "slide.tif", tmp_path / "unet.pt"
    comparison.draw(slide, 4096)
    comparison.train(slide, weights)
    assert float(str(spoken(str(slide), str(weights), "--runtime", "torch")["dice_centres"])) > 0.97


def test_otsu_parts_two_heaps() -> None:
    values = np.concatenate([np.full(500, 10), np.full(300, 12), np.full(400, 200)]).astype(np.uint8)
    assert 12 <= naive.otsu(values) < 200


def test_naive_outlines_have_holes_and_no_crumbs() -> None:
    probability = np.zeros((200, 200), np.float32)
    probability[20:120, 30:130] = 1
    probability[50:90, 60:100] = 0
    probability[150:160, 150:160] = 1
    (found,) = naive.outlines(probability)
    assert found.bounds == (29.5, 19.5, 129.5, 119.5) or found.area == pytest.approx(100 * 100 - 40 * 40, rel=0.02)
    assert len(found.interiors) == 1
