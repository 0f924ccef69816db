"""The stage `predict`, from slides to run.json: same map however it is cut, resume, one bad slide, figures."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

import wsi_pipeline
from tests.inference.make import damage_tile
from tests.models.nets import contrasty_unet, tumor_card
from tests.stages.made import CLASS, MODEL, files_of, record_of, run_of, small_slide, states_of, write_config
from wsi_pipeline.cli.app import run
from wsi_pipeline.cohort import load_cohort
from wsi_pipeline.config import load_config
from wsi_pipeline.errors import ConfigError, StoreError
from wsi_pipeline.models import load_card
from wsi_pipeline.models.segmenter import BINARY_ENTROPY
from wsi_pipeline.models.unet import save_model
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.slides import open_slide
from wsi_pipeline.spent import read_spent
from wsi_pipeline.stages.predict import Outcome, predict_cohort
from wsi_pipeline.synthetic.slide import make_slide


def predict(config: Path, **how: Any) -> Outcome:
    """`wsi-pipeline predict` without its command line."""
    return predict_cohort(load_config(config), **how)


def only_slide(config: Path) -> str:
    (slide_id,) = record_of(config)["slides"]
    return str(slide_id)


def summary_of(config: Path, slide_id: str) -> Any:
    return orjson.loads(run_of(config).slide(slide_id).summary.read_bytes())


def maps_of(config: Path, slide_id: str) -> NDArray[np.int16]:
    """int16 (C + 1, H, W): probabilities, then uncertainty."""
    found = wsi_pipeline.open_prediction(run_of(config).root, slide_id)
    maps = [*found.probability.compute(scheduler="sync"), found.uncertainty.compute(scheduler="sync")]
    return np.stack(maps).astype(np.int16)


def assert_same_maps(one: NDArray[np.int16], other: NDArray[np.int16], *, within: int) -> None:
    """Probabilities within so many steps of 1/255. A two-sided uncertainty follows from the stored probability."""
    assert np.abs(one[:-1] - other[:-1]).max() <= within
    for maps in (one, other):
        assert (maps[-1] == BINARY_ENTROPY[maps[:-1]].max(axis=0) * maps[:-1].any(axis=0)).all()


def union_of(config: Path, slide_id: str) -> BaseGeometry:
    regions = read_geojson(run_of(config).slide(slide_id).regions)
    return unary_union([region.geometry for region in regions])


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random network with contrast, working at 1 µm/px."""
    folder = tmp_path_factory.mktemp("unet")
    save_model(folder, contrasty_unet(), tumor_card(mpp=1.0))
    return str(folder)


@pytest.fixture(scope="module")
def done(slides: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a run that is through; not to be changed."""
    config = write_config(tmp_path_factory.mktemp("done"), slides)
    assert predict(config) == Outcome(done=2, failed=0, queued=0, reasons={})
    return config


CUTS: list[dict[str, Any]] = [
    {"block": 256, "window": 256},
    {"block": 384, "window": 512},
    {"block": 1024, "window": 768},
]


@pytest.mark.parametrize("which", [0, 1], ids=["whole downsample", "downsample of 2.38"])
@pytest.mark.parametrize("runtime", ["baseline", "torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_the_map_does_not_depend_on_blocks_and_windows(
    runtime: str, which: int, slides: tuple[Path, Path], unet: str, tmp_path: Path
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    model: Mapping[str, Any] = {"path": MODEL} if runtime == "baseline" else {"path": unet, "runtime": runtime}
    first: NDArray[np.int16] | None = None
    for number, cut in enumerate(CUTS):
        config = write_config(tmp_path / str(number), [slides[which]], model=model, inference=cut)
        assert predict(config).done == 1
        slide_id = only_slide(config)
        maps, regions = maps_of(config, slide_id), union_of(config, slide_id)
        if first is None:
            first, outline = maps, regions
            assert (maps[0] > 128).any()
            assert regions.area > 1_000
            continue
        # Integers all the way give the same integers.
        assert_same_maps(maps, first, within=0 if runtime == "baseline" else 1)
        assert shapely.symmetric_difference(regions, outline).area < 1e-3 * outline.area


@pytest.mark.slow
def test_the_map_does_not_depend_on_the_workers(slides: tuple[Path, Path], unet: str, tmp_path: Path) -> None:
    found = []
    for workers in (None, 1, 2):
        config = write_config(
            tmp_path / str(workers), slides, model={"path": unet, "runtime": "torch"}, inference={"workers": workers}
        )
        assert predict(config).done == 2
        found.append({slide_id: maps_of(config, slide_id) for slide_id in record_of(config)["slides"]})
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for key, maps in found[0].items():
            assert_same_maps(other[key], maps, within=1)


def test_running_twice_changes_no_byte_and_touches_no_file_of_a_slide(done: Path) -> None:
    before = files_of(run_of(done))
    times = {path: path.stat().st_mtime_ns for path in run_of(done).root.glob("slides/**/*")}
    assert predict(done) == Outcome(done=2, failed=0, queued=0, reasons={})
    assert files_of(run_of(done)) == before
    assert {path: path.stat().st_mtime_ns for path in run_of(done).root.glob("slides/**/*")} == times


def test_what_predicting_took_is_noted_once_and_adds_up(slides: tuple[Path, Path], tmp_path: Path) -> None:
    config, start = write_config(tmp_path, slides), time.perf_counter()
    predict(config)
    whole = time.perf_counter() - start
    spent = read_spent(run_of(config).compute_log)
    ids = {ref.slide_id for ref in load_cohort(load_config(config)).slides}
    assert {item.slide_id for item in spent} == {*ids, None}
    assert {(item.stage, item.device, item.units) for item in spent} == {("predict", "cpu", 1)}
    assert 0.2 * whole < sum(item.wall_s for item in spent) <= whole
    assert sum(item.cpu_s or 0.0 for item in spent) > 0
    predict(config)
    assert read_spent(run_of(config).compute_log) == spent, "nothing was predicted"


def test_run_json_says_what_was_run_on_what(done: Path, slides: tuple[Path, Path]) -> None:
    record = record_of(done)
    card = load_card(MODEL)
    assert record["schema"] == 1
    assert record["model"]["id"] == card.model_id
    assert record["model"]["sha256"] == card.sha256
    assert record["model"]["classes"] == [{"name": CLASS, "color": [120, 60, 160]}]
    assert record["runtime"] == {"device": "cpu", "runtime": "numpy", "precision": "integer"}
    assert record["config"]["model"]["path"] == MODEL
    assert record["versions"]["wsi-pipeline"] == wsi_pipeline.__version__
    sizes = {slide["uri"]: (slide["width"], slide["height"], slide["mpp"]) for slide in record["slides"].values()}
    assert sizes == {str(slides[0]): (1200, 1000, 0.5), str(slides[1]): (1100, 1300, 0.42)}
    assert all(slide["mpp_source"] == "file" for slide in record["slides"].values())


def test_the_summary_agrees_with_the_files_beside_it(done: Path) -> None:
    for slide_id, slide in record_of(done)["slides"].items():
        folder, summary = run_of(done).slide(slide_id), summary_of(done, slide_id)
        regions = read_geojson(folder.regions)
        mm2 = sum(region.geometry.area for region in regions if region.geometry) * slide["mpp"] ** 2 / 1e6
        assert summary["regions"] == len(regions) > 0
        assert summary["area_mm2"] == {CLASS: pytest.approx(mm2, abs=1e-4)}
        assert summary["tiles_flagged"] == pq.read_table(folder.tiles)["flagged"].to_pylist().count(True)
        assert (summary["width"], summary["height"]) == (slide["width"], slide["height"])
        assert summary["downsample"] == pytest.approx(1.0 / slide["mpp"])
        assert sum(summary["blocks"].values()) == np.prod([-(-s // 256) for s in maps_of(done, slide_id).shape[1:]])
        assert summary["blocks"]["failed"] == 0
        assert summary["flags"] == []
        assert folder.overview.stat().st_size > 10_000


def test_the_tissue_of_the_summary_is_that_of_the_slide(tmp_path: Path) -> None:
    truth = make_slide(tmp_path / "slide.tif", width=3000, height=2600, tile=256, smallest=256, seed=5)
    config = write_config(tmp_path, ["slide.tif"], tissue={"margin_um": 0})
    assert predict(config).done == 1
    found = summary_of(config, only_slide(config))["tissue_mm2"]
    assert found == pytest.approx(truth.tissue.area * 0.25 / 1e6, rel=0.2)


def test_a_slide_that_should_be_doubted_has_a_flag_in_plain_words(tmp_path: Path) -> None:
    small_slide(tmp_path / "glass.tif", tissue_share=0.0)
    small_slide(tmp_path / "tissue.tif")
    config = write_config(tmp_path, ["glass.tif", "tissue.tif"], model=MODEL.replace("0.05", "-1"))
    assert predict(config).done == 2
    flags = {
        slide["name"]: summary_of(config, slide_id)["flags"] for slide_id, slide in record_of(config)["slides"].items()
    }
    assert flags["glass.tif"] == ["hardly any tissue found (0.000 mm²)"]
    assert any(flag.endswith(f" % of the tissue predicted {CLASS}") for flag in flags["tissue.tif"])
    # Everything is marked, also beyond the tissue: that is no share of it.
    assert max(int(flag.split(" %")[0]) for flag in flags["tissue.tif"]) <= 100


def test_a_run_does_not_begin_in_a_folder_that_holds_something_else(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "run" / "slides"
    mine.mkdir(parents=True)
    shutil.copy(slides[0], mine / "a.tif")
    (tmp_path / "run" / "notes.md").write_text("mine")
    config = write_config(tmp_path, [mine / "*.tif"])
    before = sorted(tmp_path.rglob("*"))
    for command in (["run", str(config)], ["run", str(config), "--dry-run"], ["predict", str(config)]):
        assert run(command) == 1
        assert "holds no run, but other folders (slides); a run needs a folder of its own" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="other folders"):
        predict(config)
    assert sorted(tmp_path.rglob("*")) == before
    # Files alone are in nobody's way, nor is what an early kill left.
    mine.rename(tmp_path / "slides")
    (tmp_path / "run" / "log").mkdir()
    assert predict(write_config(tmp_path, [tmp_path / "slides" / "a.tif"])).done == 1
    assert (tmp_path / "run" / "notes.md").read_text() == "mine"


def test_another_model_makes_the_predictions_anew(done: Path, slides: tuple[Path, Path], tmp_path: Path) -> None:
    config = write_config(tmp_path, slides)
    predict(config)
    first = record_of(config)
    before = files_of(run_of(config), below="slides")
    assert before == files_of(run_of(done), below="slides")
    write_config(tmp_path, slides, model=MODEL.replace("0.05", "0.08"))
    assert predict(config).done == 2
    after = record_of(config)
    assert after["run_id"] != first["run_id"]
    assert after["model"]["id"] != first["model"]["id"]
    changed = files_of(run_of(config), below="slides")
    for slide_id in after["slides"]:
        name = f"slides/{slide_id}/regions.geojson"
        assert changed[name] != before[name]
        assert summary_of(config, slide_id)["run_id"] == after["run_id"]
    write_config(tmp_path, slides)
    assert predict(config).done == 2
    assert files_of(run_of(config), below="slides") == before


def test_other_regions_are_drawn_from_the_maps_that_are_there(slides: tuple[Path, Path], tmp_path: Path) -> None:
    config = write_config(tmp_path, [slides[0]])
    predict(config)
    slide_id = only_slide(config)
    shards = sorted(run_of(config).slide(slide_id).prediction.glob("probability/c/**/*"))
    times = [path.stat().st_mtime_ns for path in shards]
    area = summary_of(config, slide_id)["area_mm2"][CLASS]
    write_config(tmp_path, [slides[0]], regions={"threshold": 0.8})
    assert predict(config).done == 1
    assert summary_of(config, slide_id)["area_mm2"][CLASS] < area
    assert [path.stat().st_mtime_ns for path in shards] == times


def test_other_review_tiles_change_no_region(slides: tuple[Path, Path], tmp_path: Path) -> None:
    config = write_config(tmp_path, [slides[0]])
    predict(config)
    before, slide_id = files_of(run_of(config)), only_slide(config)
    write_config(tmp_path, [slides[0]], review={"tile_um": 128, "max_tiles": 3})
    assert predict(config).done == 1
    assert summary_of(config, slide_id)["tiles_flagged"] == 3
    after = files_of(run_of(config))
    changed = {Path(name).name for name, data in after.items() if before[name] != data}
    assert changed == {"run.json", "summary.json", "tiles.parquet", "queue.csv"}


def test_an_mpp_that_is_taken_back_does_not_stay(slides: tuple[Path, Path], tmp_path: Path) -> None:
    config = write_config(tmp_path, [slides[0]], cohort={"mpp": 0.4})
    predict(config)
    slide_id = only_slide(config)
    assert summary_of(config, slide_id)["mpp"] == 0.4
    write_config(tmp_path, [slides[0]])
    assert predict(config).done == 1
    assert summary_of(config, slide_id)["mpp"] == 0.5
    assert record_of(config)["slides"][slide_id]["mpp_source"] == "file"


def test_what_a_manifest_says_of_a_slide_that_is_done_is_taken_over(slides: tuple[Path, Path], tmp_path: Path) -> None:
    manifest = tmp_path / "cohort.csv"
    config = write_config(tmp_path, [], cohort={"manifest": "cohort.csv"})
    manifest.write_text(f"slide_id,uri,patient\ns1,{slides[0]},P1\n")
    predict(config)
    before = files_of(run_of(config), below="slides")
    manifest.write_text(f"slide_id,uri,patient,site\ns1,{slides[0]},P2,North\n")
    predict(config)
    slide = record_of(config)["slides"]["s1"]
    assert (slide["state"], slide["patient"], slide["site"]) == ("done", "P2", "North")
    assert files_of(run_of(config), below="slides") == before


def test_what_is_known_of_a_slide_stays_while_its_file_is_gone(slides: tuple[Path, Path], tmp_path: Path) -> None:
    there = tmp_path / "there.tif"
    shutil.copy(slides[0], there)
    config = write_config(tmp_path, [], cohort={"manifest": "cohort.csv"})
    (tmp_path / "cohort.csv").write_text("slide_id,uri,patient\ns1,there.tif,P1\n")
    predict(config)
    before = record_of(config)["slides"]["s1"]
    there.rename(tmp_path / "away.tif")
    assert predict(config).failed == 1
    gone = record_of(config)["slides"]["s1"]
    assert "there is no file" in gone["reason"]
    assert {**gone, "state": "done", "reason": None} == before
    (tmp_path / "away.tif").rename(there)
    assert predict(config).done == 1
    assert record_of(config)["slides"]["s1"] == before


def test_a_slide_that_was_finished_but_not_yet_noted_counts_after_all(
    slides: tuple[Path, Path], tmp_path: Path
) -> None:
    # run.json is saved every few seconds: a kill may come after a slide's last file and before that.
    config = write_config(tmp_path, slides)
    predict(config)
    before = files_of(run_of(config))
    record = record_of(config)
    for slide in record["slides"].values():
        slide.update({"state": "queued", "width": None, "height": None, "mpp": None, "mpp_source": None})
    run_of(config).run_json.write_bytes(orjson.dumps(record))
    assert predict(config) == Outcome(done=2, failed=0, queued=0, reasons={})
    assert files_of(run_of(config)) == before
    run_of(config).run_json.unlink()
    assert predict(config).done == 2
    assert files_of(run_of(config)) == before


def test_a_slide_that_lost_its_summary_is_done_again(slides: tuple[Path, Path], tmp_path: Path) -> None:
    config = write_config(tmp_path, [slides[0]])
    predict(config)
    before, folder = files_of(run_of(config)), run_of(config).slide(only_slide(config))
    for damage in ("", "[]"):
        folder.summary.write_text(damage)
        assert predict(config).done == 1
        assert files_of(run_of(config)) == before


def test_what_a_kill_left_half_written_is_cleared_away(slides: tuple[Path, Path], tmp_path: Path) -> None:
    config = write_config(tmp_path, [slides[0]])
    predict(config)
    before = files_of(run_of(config))
    folder = run_of(config).slide(only_slide(config))
    folder.summary.unlink()
    for path in (run_of(config).run_json, folder.summary, folder.tiles):
        path.with_name(f"{path.name}.1234.partial").write_text("{")
    predict(config)
    assert files_of(run_of(config)) == before


def test_limit_and_slides_choose_what_is_done(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, slides)
    assert run(["predict", str(config), "--limit", "1"]) == 0
    assert "1 slides done, 0 failed, 1 left" in capsys.readouterr().out
    assert states_of(config) == {"even.tif": "done", "odd.tif": "queued"}
    odd = next(key for key, slide in record_of(config)["slides"].items() if slide["name"] == "odd.tif")
    assert run(["predict", str(config), "--slides", odd, "--slides", odd]) == 0
    assert states_of(config) == {"even.tif": "done", "odd.tif": "done"}
    with pytest.raises(ConfigError, match="--slides nobody: there is no such slide"):
        predict(config, only=["nobody"])
    assert predict(config, limit=1).done == 2


def test_a_slide_with_a_damaged_tile_fails_and_is_completed_once_it_is_mended(tmp_path: Path) -> None:
    model = MODEL.replace("mpp=1", "mpp=0.5")
    small_slide(tmp_path / "whole.tif", width=700, height=600)
    # So large that the overview is made from level 1: only the model reads the damaged tile.
    damaged = small_slide(tmp_path / "damaged.tif", width=3300, height=700)
    config = write_config(tmp_path, ["damaged.tif", "whole.tif"], model=model)
    assert predict(config).done == 2
    alone = files_of(run_of(config))
    run_of(config).root.rename(tmp_path / "alone")

    good = damage_tile(damaged, x=1650, y=350)
    outcome = predict(config)
    assert (outcome.done, outcome.failed) == (1, 1)
    ((slide_id, reason),) = outcome.reasons.items()
    assert slide_id.startswith("damaged-")
    assert "blocks could not be predicted" in reason
    assert "mend the file, or the store that it lies on, and run again" in reason
    # What is wrong is said, and not only where it could be looked up.
    assert re.search(r"\(row \d, column \d: cannot be read at level 0, .*: tile 6,1 of level 0 .*; see log/\)", reason)
    summary = summary_of(config, slide_id)
    assert summary["blocks"]["failed"] > 0
    assert summary["blocks"]["done"] > 0
    assert summary["flags"][0].endswith("blocks could not be read or computed: no prediction there")

    damaged.write_bytes(good)
    assert predict(config) == Outcome(done=2, failed=0, queued=0, reasons={})
    assert files_of(run_of(config)) == alone


def test_a_dry_run_writes_nothing(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.svs").write_text("no slide")
    config = write_config(tmp_path, [*slides, "text.svs"])
    before = sorted(tmp_path.rglob("*"))
    assert run(["run", str(config), "--dry-run"]) == 2
    out = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert "in all under a minute on this machine" in out
    assert " MB on disk" in out
    assert "cannot be done: text-" in out
    for slide in slides:
        assert f"\n{slide.stem}-" in out


def test_a_run_json_that_is_damaged_or_newer_is_refused_and_left_alone(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, [slides[0]])
    predict(config)
    path = run_of(config).run_json
    good = path.read_text()
    newer = orjson.dumps({**record_of(config), "schema": 2}).decode()
    for text, words in ((good[:100], "is not valid JSON"), (newer, "reads up to 1: update"), ("[]", "is damaged")):
        path.write_text(text)
        with pytest.raises(StoreError, match=words):
            predict(config)
        for command in ("predict", "status", "handout"):
            capsys.readouterr()
            assert run([command, str(config)]) == 1
            errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error ")]
            assert len(errors) == 1
            assert str(path) in errors[0]
        assert path.read_text() == text


def test_regions_lie_on_the_slide_in_level_0_pixels(done: Path) -> None:
    for slide_id, slide in record_of(done)["slides"].items():
        whole = shapely.box(0, 0, slide["width"], slide["height"])
        regions = read_geojson(run_of(done).slide(slide_id).regions)
        assert all(whole.covers(region.geometry) and region.geometry.is_valid for region in regions)  # type: ignore[union-attr]
        # Dense nuclei are dark: inside of the regions the slide is darker than in the tissue around them.
        from wsi_pipeline.cohort import SlideRef
        from wsi_pipeline.raster import fill
        from wsi_pipeline.tiling import Bounds

        with open_slide(SlideRef(slide_id, slide["uri"], slide["name"])) as opened:
            d = 4.0
            bounds = Bounds(0, 0, int(slide["width"] / d), int(slide["height"] / d))
            grey = opened.read(bounds, d).mean(axis=2)
        inside = fill(union_of(done, slide_id), bounds, d)
        assert grey[inside].mean() < grey[~inside & (grey < 225)].mean() - 5
