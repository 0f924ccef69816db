"""Sound projects and such with one real fault: each is found, named with its remedy, and told by the exit code."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from shapely.affinity import translate

from tests.handout.made import (
    annotations_of,
    brushed,
    files_below,
    handed_out,
    image_of,
    objects_of,
    project_of,
    region,
    save,
    slide,
)
from tests.stages.made import small_slide
from wsi_pipeline.cli.app import run as wsi
from wsi_pipeline.collect.check import CheckedProject, check_project
from wsi_pipeline.collect.check_slide import elsewhere
from wsi_pipeline.errors import ProjectError
from wsi_pipeline.qupath.builders import uri_builder
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.slides import TissueMask

SIZE = (1200, 1000)


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_slide(tmp_path_factory.mktemp("slides") / "s1.tif", width=SIZE[0], height=SIZE[1], mpp=0.5)


@pytest.fixture
def run(tmp_path: Path, slide_file: Path) -> RunDir:
    """One slide with three predictions on its tissue, which is its upper half."""
    target = tmp_path / "slides" / "s1.tif"
    target.parent.mkdir()
    shutil.copy(slide_file, target)
    regions = [region("s1", x, 250) for x in (200, 500, 800)]
    made, result = handed_out(tmp_path, replace(slide(tmp_path, regions=regions), size=SIZE))
    assert result.problems == []
    mask = np.zeros((125, 150), bool)
    mask[:62] = True
    TissueMask(mask, 8.0).save(made.slide("s1").tissue)
    return made


def found(run: RunDir) -> list[tuple[str, str]]:
    """What was found, with cause and remedy as one text; the project is only read."""
    before = files_below(run.root)
    checked = check_project(run.project)
    assert files_below(run.root) == before
    return [(f.what, str(f)) for image in checked.images for f in image.findings]


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


def test_a_sound_project_has_no_finding_and_its_figures(run: RunDir) -> None:
    checked: CheckedProject = check_project(run.project.parent)
    (image,) = checked.images
    assert image.findings == ()
    assert checked.run == run.root
    assert (image.objects, image.handed_out, image.gone, image.slide_seen) == (5, 5, 0, True)
    assert image.on_tissue == (1.0, 1.0)


def test_what_a_reviewer_does_is_no_fault(run: RunDir) -> None:
    first, _, third = annotations_of(run)
    drawn = replace(region("s1", 600, 800), metadata={}, measurements={})
    save(run, [brushed(first), third, drawn, *objects_of(run)[3:]], state="reviewed")
    assert found(run) == []
    (image,) = check_project(run.project).images
    assert (image.objects, image.gone, image.state) == (5, 1, "reviewed")


def test_a_slide_that_moved_is_found_and_relocating_mends_it(run: RunDir) -> None:
    old = run.root.parent / "slides"
    old.rename(old.with_name("other"))
    ((what, text),) = found(run)
    assert what == "slide"
    assert "there is no file" in text
    assert "project relocate" in text
    assert wsi(["project", "relocate", str(run.project), "--map", f"{old}={old.with_name('other')}"]) == 0
    assert found(run) == []


def test_a_slide_that_was_cut_off_is_found(run: RunDir) -> None:
    path = run.root.parent / "slides" / "s1.tif"
    path.write_bytes(path.read_bytes()[:5000])
    assert [what for what, _ in found(run)] == ["slide"]


def test_another_slide_in_its_place_is_found(run: RunDir) -> None:
    small_slide(run.root.parent / "slides" / "s1.tif", width=1000, height=900, mpp=0.25)
    faults = dict(found(run))
    assert set(faults) == {"size", "mpp"}
    assert "1000 x 900 px, 1200 x 1000 px were handed out" in faults["size"]
    assert "0.25 µm/px, it was handed out with 0.5" in faults["mpp"]


def test_a_pixel_size_that_was_set_in_qupath_is_found(run: RunDir) -> None:
    uri = image_of(project_of(run)).uri
    builder = uri_builder(uri, "s1.tif", size=SIZE, mpp=0.25)
    edit_json(run.project, lambda value: value["images"][0].update(serverBuilder=builder))
    ((what, text),) = found(run)
    assert what == "mpp"
    assert "project.qpproj states 0.25 µm/px, it was handed out with 0.5" in text
    builder["metadata"]["pixelCalibration"]["pixelWidth"]["unit"] = "px"
    edit_json(run.project, lambda value: value["images"][0].update(serverBuilder=builder))
    assert "no pixel size in µm" in dict(found(run))["mpp"]


def test_a_size_that_qupath_saw_otherwise_is_found(run: RunDir) -> None:
    summary = run.project.parent / "data" / "1" / "summary.json"
    edit_json(summary, lambda value: value["server"].update(width=600, height=500))
    ((what, text),) = found(run)
    assert what == "size"
    assert "summary.json says 600 x 500 px" in text


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_truncated_file_is_found_with_the_copy_that_can_come_back(run: RunDir, share: float) -> None:
    save(run, [brushed(o) for o in annotations_of(run)] + objects_of(run)[3:])
    save(run, [replace(o, name="seen") for o in objects_of(run)])  # the second save keeps a copy of the first
    data = run.project.parent / "data" / "1" / "data.qpdata"
    raw = data.read_bytes()
    data.write_bytes(raw[: int(len(raw) * share)])
    ((what, text),) = found(run)
    assert what == "objects"
    assert str(data) in text
    remedy = text[text.index("`wsi-pipeline") + 1 : text.rindex("`")]
    assert wsi(shlex.split(remedy)[1:]) == 0
    assert found(run) == []


def test_a_backup_of_a_stopped_save_is_found(run: RunDir) -> None:
    data = run.project.parent / "data" / "1" / "data.qpdata"
    data.rename(data.with_name("data.qpdata.bkp"))
    faults = found(run)
    assert {what for what, _ in faults} == {"objects"}
    assert any("QuPath was stopped" in text or "was stopped while it did" in text for _, text in faults)


def test_objects_that_vanished_are_found_with_their_number(run: RunDir) -> None:
    objects = objects_of(run)
    save(run, objects[1:])
    ((what, text),) = found(run)
    assert what == "count"
    assert "1 of 3 regions are gone" in text
    save(run, [])
    ((what, text),) = found(run)
    assert "all 5 objects that were handed out are gone" in text
    (image,) = check_project(run.project).images
    assert (image.objects, image.handed_out, image.gone) == (0, 5, 5)


def test_an_image_that_was_taken_out_is_found(run: RunDir) -> None:
    edit_json(run.project, lambda value: value["images"].clear())
    ((what, text),) = found(run)
    assert what == "image"
    assert "project.qpproj.backup" in text


def test_a_bow_tie_is_found_by_its_name(run: RunDir) -> None:
    objects = objects_of(run)
    bow = shapely.Polygon([(100, 100), (300, 300), (300, 100), (100, 300)])
    assert not bow.is_valid
    save(run, [*objects, replace(objects[0], uuid="00000000-0000-4000-8000-000000000001", geometry=bow, name="bow")])
    ((what, text),) = found(run)
    assert what == "geometry"
    assert "1 of 6 shapes are not valid for QuPath, first Tumor bow: Self-intersection" in text


def test_a_prediction_that_slipped_off_the_tissue_is_found(run: RunDir) -> None:
    first, *others = objects_of(run)
    assert first.geometry is not None
    save(run, [replace(first, geometry=translate(first.geometry, 0, 500)), *others], state="in_progress")
    ((what, text),) = found(run)
    assert what == "tissue"
    assert "1 of 3 predictions lay on tissue and no longer do" in text
    assert "100.0% then, 66." in text


def test_an_image_that_was_turned_afterwards_is_found(run: RunDir) -> None:
    """The objects stay where QuPath drew them, and so lie elsewhere on the slide."""

    def turn(value: Any) -> None:
        inner = value["images"][0]["serverBuilder"]
        value["images"][0]["serverBuilder"] = {
            "builderType": "rotated",
            "rotation": "ROTATE_180",
            "builder": inner,
            "metadata": uri_builder(inner["uri"], "s1.tif", size=SIZE, mpp=0.5)["metadata"],
        }

    edit_json(run.project, turn)
    assert "tissue" in {what for what, _ in found(run)}


def test_an_object_beyond_the_slide_is_found(run: RunDir) -> None:
    save(run, [*objects_of(run), region("s1", 1190, 900)])
    assert [what for what, _ in found(run)] == ["frame"]


def test_a_project_alone_is_checked_without_its_snapshot(run: RunDir, tmp_path: Path) -> None:
    save(run, [])
    shutil.copytree(run.project.parent, tmp_path / "home" / "project")
    checked = check_project(tmp_path / "home" / "project")
    assert checked.run is None
    assert checked.findings == 0
    (tmp_path / "slides" / "s1.tif").unlink()
    assert check_project(tmp_path / "home" / "project").findings == 1


@pytest.mark.parametrize(
    ("uri", "away"),
    [
        ("file:///Z:/slides/a.svs", True),
        ("file:///z:/a.svs", True),
        ("file://server/share/a.svs", True),
        ("file:////server/share/a.svs", True),
        ("file:///data/Z:/a.svs", False),
        ("file:///data/a.svs", False),
        ("https://host/a.svs", False),
    ],
)
def test_drives_and_shares_of_windows_are_of_another_machine(uri: str, away: bool) -> None:
    assert elsewhere(uri) is away


def test_an_address_of_another_machine_is_said_and_is_no_fault(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    old = run.root.parent / "slides"
    assert wsi(["project", "relocate", str(run.project), "--map", f"{old}=Z:\\slides"]) == 0
    capsys.readouterr()
    assert wsi(["project", "check", str(run.project)]) == 0
    assert "1 slides have addresses of another machine" in capsys.readouterr().out


def test_the_command_says_each_fault_in_a_line_and_ends_with_two(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wsi(["project", "check", str(run.project)]) == 0
    assert capsys.readouterr().out == "1 images, no findings\n"
    save(run, objects_of(run)[1:])
    (run.root.parent / "slides" / "s1.tif").unlink()
    assert wsi(["project", "check", str(run.project.parent)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("s1.tif: ") and "; " in line for line in lines[:2])
    assert wsi(["project", "check", str(run.project), "--json"]) == 2
    value = json.loads(capsys.readouterr().out)
    assert value["findings"] == 2
    assert {f["what"] for f in value["images"][0]["findings"]} == {"slide", "count"}


def test_what_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"holds no \.qpproj"):
        check_project(tmp_path)
