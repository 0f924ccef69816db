"""A study from end to end on real files: two raters, both arms, masked names, planted errors, wash-out, collect."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation
from shapely import Point

from tests.stages.made import files_of, small_slide, write_config
from wsi_pipeline.config import load_config
from wsi_pipeline.errors import ConfigError, StoreError
from wsi_pipeline.files import read_json
from wsi_pipeline.handout import Plan, planted_in, read_plans, read_study, snapshot_of
from wsi_pipeline.objects import META_RUN, Kind, PathObject
from wsi_pipeline.privacy.forget import forget_rater
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.report.gallery import Shapes
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.report.reading import Reader
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.slides import TissueMask
from wsi_pipeline.stages.collect import collect_run
from wsi_pipeline.stages.handout import hand_out_run, planned, states_of
from wsi_pipeline.stages.learn import corrected_slides
from wsi_pipeline.stages.predict import predict_cohort
from wsi_pipeline.stages.status import status_of
from wsi_pipeline.states import EVENTS, META_ARM, META_FLAGS, META_PRIORITY, META_SLIDE, META_STATE

pytestmark = pytest.mark.slow

STUDY: dict[str, Any] = {
    "backend": "native",
    "raters": ["anna", "ben"],
    "arms": ["assisted", "manual"],
    "blind": True,
    "planted": {"share": 0.5, "kinds": ["missing", "fake", "boundary"]},
    "guideline": "rules.md",
}


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides that are predicted, and nothing else."""
    folder = tmp_path_factory.mktemp("study")
    slides = [small_slide(folder / f"patient-{name}.tif", mpp=0.5, seed=i) for i, name in enumerate("abcd")]
    predict_cohort(load_config(write_config(folder, slides)))
    return folder


def study(predicted: Path, folder: Path, **handout: Any) -> Any:
    """The configuration of a study on a copy of the run."""
    shutil.copytree(predicted / "run", folder / "run")
    (folder / "rules.md").write_text("Necrosis is Necrosis.")
    slides = sorted(predicted.glob("*.tif"))
    return load_config(write_config(folder, slides, handout={**STUDY, **handout}))


class Told:
    """What a stage said of its progress."""

    def __init__(self) -> None:
        self.title, self.total, self.ended = "", 0, False
        self.items: list[str] = []

    def begin(self, title: str, total: int) -> None:
        self.title, self.total = title, total

    def advance(self, item: str, done: int, total: int) -> None:
        raise AssertionError("an image is read in one piece")

    def finish(self, item: str, note: str) -> None:
        assert note == "", "hundreds of images have no line each"
        self.items.append(item)

    def end(self) -> None:
        self.ended = True


def plans_of(run: RunDir) -> list[Plan]:
    return [plan for plan in read_plans(run)]


def test_the_plan_is_written_first_and_running_again_changes_no_byte(predicted: Path, tmp_path: Path) -> None:
    config = study(predicted, tmp_path)
    before, new = planned(config)
    assert (before.design, len(new)) == (None, 4)
    assert not (config.output / "handout").exists()
    first = hand_out_run(config)
    assert first.problems == []
    assert [line.split(":")[0] for line in first.waiting] == ["batch-2-anna", "batch-2-ben"]
    run = RunDir(config.output)
    record = read_json(run.run_json)
    assert len(record["handout"]["plan_sha256"]) == 64
    assert (run.root / "projects/batch-1-anna/GUIDELINE.md").read_text() == "Necrosis is Necrosis."
    card = (run.root / "projects/batch-1-ben/HOW_TO_REVIEW.md").read_text()
    assert "wrong on purpose" in card
    assert "masked" in card
    there = files_of(run)
    hand_out_run(config)
    assert files_of(run) == there
    assert planned(config)[1] == []


def test_images_of_the_manual_arm_hold_nothing_of_the_model(predicted: Path, tmp_path: Path) -> None:
    config = study(predicted, tmp_path)
    hand_out_run(config)
    run = RunDir(config.output)
    seen = 0
    for plan in plans_of(run):
        project = NativeProject.open(run.root / plan.project, read_only=True)
        for image in project.images():
            assert image.name.startswith("case-")
            assert image.name == image.metadata[META_SLIDE]
            # QuPath 0.6 would ask to save every image, were it to find the file's name there.
            assert project.entry(image.entry_id).builder["metadata"]["name"] == image.name
            assert "patient" not in orjson.dumps(dict(image.metadata)).decode()
            assert META_PRIORITY not in image.metadata
            if image.metadata[META_ARM] == "assisted":
                assert image.read_objects()
                continue
            seen += 1
            assert image.read_objects() == []
            assert META_FLAGS not in image.metadata
            folder = project.path.parent / "data" / str(image.entry_id)
            data = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
            for word in (META_RUN, "Haematoxylin-dense", "baseline", "Review"):
                assert word.encode() not in data
    assert seen == 4


def test_a_wash_out_is_waited_for_unless_somebody_says_why_not(predicted: Path, tmp_path: Path) -> None:
    config = study(predicted, tmp_path)
    hand_out_run(config)
    with pytest.raises(ConfigError, match="wash-out of 14 days"):
        hand_out_run(config, only=["batch-2-anna"])
    with pytest.raises(ConfigError, match="no batch batch-9"):
        hand_out_run(config, only=["batch-9"])
    hand_out_run(config, only=["batch-2-anna"], force="pilot")
    run = RunDir(config.output)
    states = states_of(config, read_study(run))
    assert states["batch-1-anna"] == states["batch-2-anna"] == "handed out"
    assert states["batch-2-ben"].startswith("wash-out of 14 days")
    assert read_json(run.handout / "batch-2-anna" / "handed_out.json")["forced"].startswith("pilot (wash-out")
    assert not (run.root / "projects/batch-2-ben").exists()
    # Ben's first batch was given out, and last worked on, long ago.
    given = run.handout / "batch-1-ben" / "handed_out.json"
    ago = datetime.now(UTC) - timedelta(days=15)
    given.write_bytes(orjson.dumps({**read_json(given), "at": ago.isoformat()}))
    log = run.root / "projects/batch-1-ben" / EVENTS / "ben-1.jsonl"
    log.write_text(f'{{"type":"header","t":{int((ago + timedelta(days=5)).timestamp() * 1000)}}}\n')
    assert "batch-2-ben" in hand_out_run(config).waiting[0]
    log.unlink()
    assert hand_out_run(config).waiting == []
    assert (run.root / "projects/batch-2-ben/project.qpproj").exists()


def test_without_raters_there_is_no_batch_to_choose(predicted: Path, tmp_path: Path) -> None:
    shutil.copytree(predicted / "run", tmp_path / "run")
    config = load_config(write_config(tmp_path, sorted(predicted.glob("*.tif")), handout={"backend": "native"}))
    with pytest.raises(ConfigError, match=r"no batch batch-1 to choose: the configuration names no `handout\.raters`"):
        hand_out_run(config, only=["batch-1"])
    assert not RunDir(config.output).project.exists()


def test_what_two_raters_did_comes_back_by_rater_and_what_was_planted_is_repaired(
    predicted: Path, tmp_path: Path
) -> None:
    config = study(predicted, tmp_path)
    hand_out_run(config)
    run = RunDir(config.output)
    drawn: dict[tuple[str, str], str] = {}
    for number, plan in enumerate(plans_of(run)):
        project = NativeProject.open(run.root / plan.project)
        for slide in plan.slides:
            image = next(i for i in project.images() if i.metadata[META_SLIDE] == slide.case)
            if slide.arm == "manual":
                uuid = f"22222222-2222-4222-8222-{number:04d}{image.entry_id:08d}"
                mine = PathObject(uuid, Kind.ANNOTATION, Point(300, 300).buffer(50), "Tumor")
                project.save_objects(image, [mine])
                drawn[plan.rater, slide.slide_id] = uuid
            project.set_metadata(image, {META_STATE: "reviewed"})
        project.save()
    told = Told()
    result = collect_run(config, progress=told)
    assert (told.title, told.total, told.ended) == ("collect", 8, True)
    assert sorted(told.items) == sorted(slide.slide_id for plan in plans_of(run) for slide in plan.slides)
    assert result.alarms == ()
    images = result.metrics["images"]
    assert len(images) == 8
    assert {(i["rater"], i["slide_id"]) for i in images if i["arm"] == "manual"} == set(drawn)
    rows = pq.read_table(run.corrections).to_pylist()
    assert {(r["rater"], r["slide_id"]): r["uuid_after"] for r in rows if r["arm"] == "manual"} == drawn
    assert all(r["position"] in (1, 2, 3, 4) and r["batch"] == "batch-1" for r in rows)
    assert result.metrics["totals"]["counts"]["added"] == 0, "drawing from scratch corrects no prediction"
    planted = 0
    for plan in plans_of(run):
        for slide in plan.slides:
            error = planted_in(run, plan, slide)
            if error is None:
                continue
            planted += 1
            kept = read_geojson(run.review / "corrected" / plan.folder / f"{slide.slide_id}.geojson")
            uuids = {o.uuid for o in kept}
            assert error.true is None or error.true.uuid in uuids
            assert error.planted is None or error.planted.uuid not in uuids
            shown = {o.uuid for o in snapshot_of(run, plan, slide)}
            assert error.true is None or error.true.uuid not in shown
            (facts,) = (i for i in images if (i["rater"], i["slide_id"]) == (plan.rater, slide.slide_id))
            assert facts["planted"] == {"kind": error.kind, "caught": False}
    assert planted > 0
    errors = result.metrics["planted"]
    assert (errors["planted"], errors["caught"]) == (planted, 0)
    assert sum(own["planted"] for own in errors["kinds"].values()) == planted
    changed = {name: n for name, n in result.metrics["totals"]["counts"].items() if name != "untouched" and n}
    assert changed == {}
    shapes = Shapes(run, Reader(run.root))
    for reading in load_run(run).slides:
        assert reading.review is not None
        assert reading.snapshots[-1].split("/")[1] == f"{reading.review.batch}-{reading.review.rater}"
        if result.metrics["slides"][reading.slide_id]["planted"] is None:
            changes = shapes.difference(reading)
            assert changes is not None
            same, gone, added = (part.area for part in changes)
            assert same > 0
            assert gone + added < 1e-3 * same, "nothing was changed in the reading that is shown"
    split = corrected_slides(config)
    taught = {s.ref.slide_id for s in (*split.train, *split.held_out)}
    assert taught == {i for i, facts in result.metrics["slides"].items() if facts["planted"] is None}
    assert result.summary.startswith("4 of 4 slides reviewed"), "each was assisted for one of the two raters"
    status = status_of(run)
    assert {s.review for s in status.slides} == {"reviewed"}
    assert [(b.batch, b.rater, b.images) for b in status.batches] == [
        (plan.folder, plan.rater, {"reviewed": len(plan.slides)}) for plan in plans_of(run)
    ]
    assert status.images == {"reviewed": len(images)}
    before = files_of(run, below="review")
    collect_run(config)
    assert files_of(run, below="review") == before
    # Who is forgotten takes no work along: the folders of the handout keep their names.
    forgotten = forget_rater(run, "anna", config.review).name
    again = collect_run(config)
    assert again.alarms == ()
    assert again.metrics["totals"] == result.metrics["totals"]
    assert {i["rater"] for i in again.metrics["images"]} == {forgotten, "ben"}
    assert [b.rater for b in status_of(run).batches] == [forgotten, "ben"]


def test_a_plan_never_changes_and_only_grows(predicted: Path, tmp_path: Path) -> None:
    config = study(predicted, tmp_path)
    run = RunDir(config.output)
    record = read_json(run.run_json)
    late = sorted(record["slides"])[0]
    run.run_json.write_bytes(
        orjson.dumps({**record, "slides": {k: v for k, v in record["slides"].items() if k != late}})
    )
    hand_out_run(config)
    first = (run.handout / "plan-001.json").read_bytes()
    grown = {**read_json(run.run_json), "slides": record["slides"]}
    run.run_json.write_bytes(orjson.dumps(grown))
    hand_out_run(config)
    assert (run.handout / "plan-001.json").read_bytes() == first
    added = read_json(run.handout / "plan-002.json")
    assert {c["slide_id"] for b in added["batches"] for c in b["cases"]} == {late}
    assert (run.root / "projects/batch-3-anna/project.qpproj").exists()
    other = config.model_copy(update={"handout": config.handout.model_copy(update={"seed": 7})})
    with pytest.raises(ConfigError, match="`seed` is 7"):
        hand_out_run(other)
    (run.handout / "plan-001.json").write_bytes(first + b" ")
    with pytest.raises(StoreError, match="restore"):
        hand_out_run(config)


@pytest.mark.parametrize("blind", [True, False])
def test_thumbnails_show_tissue_and_nothing_beside_it(predicted: Path, tmp_path: Path, blind: bool) -> None:
    config = study(predicted, tmp_path, blind=blind)
    run = RunDir(config.output)
    # What is written on the glass: dark, beside the tissue.
    written = {}
    for slide_id in read_json(run.run_json)["slides"]:
        with Image.open(run.slide(slide_id).thumbnail) as image:
            pixels = np.array(image.convert("RGB"))
        mask = TissueMask.load(run.slide(slide_id).tissue).mask
        tissue = np.asarray(Image.fromarray(mask).resize(pixels.shape[1::-1], Image.Resampling.NEAREST))
        pixels[~tissue] = 40
        Image.fromarray(pixels).save(run.slide(slide_id).thumbnail, quality=95)
        written[slide_id] = tissue
    assert hand_out_run(config).problems == []
    seen = 0
    for plan in plans_of(run):
        for slide in plan.slides:
            path = (run.root / plan.project).parent / "data" / str(slide.entry_id) / "thumbnail.jpg"
            with Image.open(path) as image:
                shown = np.asarray(image.convert("L"))
            tissue = written[slide.slide_id]
            # JPEG blurs over a block.
            near = binary_dilation(tissue, iterations=8)
            assert 0.02 < tissue.mean() < 0.98
            assert shown[~near].min() > 230
            assert shown[tissue].mean() < 230
            seen += 1
    assert seen >= 4
