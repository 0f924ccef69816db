"""What only the native backend does: history, saves that stand for QuPath's, other frames, real projects."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import shapely
import tifffile
from hypothesis import HealthCheck, given, settings
from shapely import affinity

from tests.qupath.strategies import equal_numbers, object_lists
from tests.qupath.test_builders import Size
from wsi_pipeline.errors import ProjectChanged, ProjectError, QuPathFormatError
from wsi_pipeline.objects import Kind, PathObject, Roi
from wsi_pipeline.qupath.copying import copy_project
from wsi_pipeline.qupath.data_files import backup_of
from wsi_pipeline.qupath.native.qpdata import QpData
from wsi_pipeline.qupath.native_project import NativeProject, checked_bytes
from wsi_pipeline.qupath.project_file import gson
from wsi_pipeline.qupath.protocol import IDENTITY
from wsi_pipeline.qupath.relocate import relocate
from wsi_pipeline.qupath.shapes import same_region
from wsi_pipeline.qupath.summary import summary_of


def _object(number: int, x: float = 0.0) -> PathObject:
    return PathObject(
        uuid=str(uuid.UUID(int=number)),
        kind=Kind.ANNOTATION,
        geometry=shapely.box(x, 0, x + 8, 10),
        path_class="Tumor",
        metadata={"wsi_run": "r"},
    )


def _project(folder: Path) -> NativeProject:
    project = NativeProject.create(folder)
    project.add_image("file:///slides/a.svs", "a.svs", size=(1000, 800), mpp=0.5, image_type="BRIGHTFIELD_H_E")
    project.save()
    return project


def _rewrite_builder(project: NativeProject, builder: dict[str, Any]) -> NativeProject:
    raw = orjson.loads(project.path.read_bytes())
    raw["images"][0]["serverBuilder"] = builder
    project.path.write_bytes(orjson.dumps(raw))
    return NativeProject.open(project.path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(object_lists)
def test_arbitrary_objects_survive_a_project(tmp_path: Path, objects: list[PathObject]) -> None:
    folder = tmp_path / str(uuid.uuid4())
    _project(folder).save_objects(1, objects)
    read = NativeProject.open(folder, read_only=True).image(1).read_objects()
    assert [o.uuid for o in read] == [o.uuid for o in objects]
    for before, after in zip(objects, read, strict=True):
        for name in ("kind", "path_class", "name", "color", "locked", "parent", "plane", "roi", "nucleus_roi"):
            assert getattr(after, name) == getattr(before, name), name
        assert dict(after.metadata) == dict(before.metadata)
        assert equal_numbers(dict(after.measurements), dict(before.measurements), 1e-6)
        assert before.geometry is not None
        assert after.geometry is not None
        # An ellipse is stored as its box; its outline is made anew.
        tolerance = 0.5 if before.roi is Roi.ELLIPSE else 0.02
        assert after.geometry.bounds == pytest.approx(before.geometry.bounds, abs=0.02)
        assert same_region(before.geometry, after.geometry, tolerance)
        assert same_region(before.nucleus, after.nucleus, 0.02)
    shutil.rmtree(folder)


def test_a_save_in_the_manner_of_qupath_replaces_everything_and_is_kept_before_the_next_write(tmp_path: Path) -> None:
    project = _project(tmp_path)
    project.add_objects(1, [_object(1), _object(2, 20)])
    assert project.save_objects(1, [_object(2, 21), _object(9, 50)]) == 2
    theirs = (tmp_path / "data/1/data.qpdata").read_bytes()
    project.add_objects(1, [_object(10, 70)])
    assert [p.read_bytes() for p in (tmp_path / "history").glob("1-*.qpdata")] == [theirs]
    assert [o.uuid for o in project.image(1).read_objects()] == [_object(n).uuid for n in (2, 9, 10)]


def test_a_stale_view_does_not_save_over_newer_work(tmp_path: Path) -> None:
    project = _project(tmp_path)
    stale = NativeProject.open(tmp_path)
    stale.image(1).read_objects()
    project.add_objects(1, [_object(1)])
    with pytest.raises(ProjectChanged):
        stale.save_objects(1, [])
    # Looking again makes the view fresh.
    assert len(stale.image(1).read_objects()) == 1
    assert stale.save_objects(1, []) == 0


def test_a_write_between_reading_and_writing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QuPath saves while the new file is being made: the only moment in which its work could be lost."""
    project = _project(tmp_path)
    path = tmp_path / "data/1/data.qpdata"

    def slow(data: QpData, image: str) -> bytes:
        path.write_bytes(path.read_bytes() + b"\x00")
        return checked_bytes(data, image)

    monkeypatch.setattr("wsi_pipeline.qupath.native_project.checked_bytes", slow)
    with pytest.raises(ProjectChanged, match=r"a\.svs"):
        project.add_objects(1, [_object(1)])
    assert path.read_bytes().endswith(b"\x00")


def test_a_damaged_file_with_a_backup_says_so(tmp_path: Path) -> None:
    project = _project(tmp_path)
    path = tmp_path / "data/1/data.qpdata"
    shutil.copy(path, backup_of(path))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(QuPathFormatError, match=r"data\.qpdata\.bkp is beside it"):
        project.image(1).read_objects()


def test_an_image_that_was_added_and_never_saved_leaves_no_objects_to_the_next(tmp_path: Path) -> None:
    project = _project(tmp_path)
    lost = project.add_image("file:///slides/b.svs", "b.svs", size=(10, 10), mpp=0.5)
    project.add_objects(lost, [_object(1)])
    again = NativeProject.open(tmp_path)  # as after a crash: project.qpproj knows nothing of it
    image = again.add_image("file:///slides/b.svs", "b.svs", size=(10, 10), mpp=0.5)
    assert image.entry_id == lost.entry_id + 1
    assert image.read_objects() == []


def test_objects_are_placed_in_the_frame_in_which_qupath_shows_the_slide(tmp_path: Path) -> None:
    project = _project(tmp_path)
    plain = {"builderType": "uri", "uri": "file:///slides/a.svs", "metadata": {"width": 1000, "height": 800}}
    view = _rewrite_builder(project, {"builderType": "rotated", "rotation": "ROTATE_90", "builder": plain})
    view.add_objects(1, [_object(1, 100)])
    assert view.image(1).read_objects()[0].geometry.equals(_object(1, 100).geometry)  # type: ignore[union-attr]
    stored = _rewrite_builder(project, plain).image(1).read_objects()[0].geometry
    # Turned clockwise: what is at the left of the top edge comes to the top of the right edge.
    assert stored is not None
    assert stored.bounds == (800 - 10, 100, 800, 108)


def test_objects_on_a_cropped_slide_are_shifted_both_ways(tmp_path: Path) -> None:
    project = _project(tmp_path)
    plain = {"builderType": "uri", "uri": "file:///slides/a.svs"}
    region = {"x": 30, "y": 40, "width": 500, "height": 500}
    view = _rewrite_builder(project, {"builderType": "cropped", "region": region, "builder": plain})
    view.add_objects(1, [_object(1, 100)])
    stored = _rewrite_builder(project, plain).image(1).read_objects()[0].geometry
    assert stored is not None
    assert stored.equals(affinity.translate(shapely.box(100, 0, 108, 10), -30, -40))


def test_an_image_in_an_unknown_frame_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    project = _project(tmp_path)
    project.add_image("file:///slides/b.svs", "b.svs", size=(10, 10), mpp=0.5)
    project.save()
    inner = {"builderType": "uri", "uri": "file:///slides/a.svs"}
    view = _rewrite_builder(project, {"builderType": "warped", "builder": inner})
    for call in (view.image(1).read_objects, lambda: view.add_objects(1, [_object(1)])):
        with pytest.raises(ProjectError, match=r"a\.svs: .*`warped`"):
            call()
    assert view.image(2).read_objects() == []
    view.set_metadata(1, {"seen": "yes"})
    view.save()
    assert orjson.loads(view.path.read_bytes())["images"][0]["serverBuilder"]["builderType"] == "warped"


@pytest.mark.testdata
@pytest.mark.parametrize("name", ["q044", "q051", "q060"])
def test_adding_to_a_real_project_leaves_everything_else_as_it_is(testdata: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(testdata / "qupath" / name / "project", tmp_path / "p", copy_function=shutil.copyfile)
    for path in [tmp_path / "p", *(tmp_path / "p").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    project = NativeProject.open(tmp_path / "p")
    original = (tmp_path / "p/data/1/data.qpdata").read_bytes()
    untouched = (tmp_path / "p/data/2/data.qpdata").read_bytes()
    before = project.image(1).read_objects()
    assert len(before) == 33
    assert project.add_objects(1, [_object(1)]) == 1
    project.save()
    after = NativeProject.open(tmp_path / "p", read_only=True)
    read = after.image(1).read_objects()
    assert [o.uuid for o in read] == [*(o.uuid for o in before), _object(1).uuid]
    for old, new in zip(before, read, strict=False):
        assert old.geometry is not None
        assert new.geometry is not None
        assert new.geometry.equals_exact(old.geometry, 0)
        assert (new.roi, new.path_class, new.name, new.parent) == (old.roi, old.path_class, old.name, old.parent)
        assert equal_numbers(dict(new.measurements), dict(old.measurements))
    assert after.image(1).image_type == "BRIGHTFIELD_H_E"
    assert after.read_data(after.image(1)).stains == project.read_data(project.image(1)).stains  # type: ignore[union-attr]
    assert (tmp_path / "p/data/2/data.qpdata").read_bytes() == untouched
    assert [p.read_bytes() for p in (tmp_path / "p/history").glob("*.qpdata")] == [original]


@pytest.mark.testdata
def test_a_large_project_is_listed_without_reading_objects(testdata: Path) -> None:
    project = NativeProject.open(testdata / "qupath" / "tcga-coad_434_v0.3.2.qpproj", read_only=True)
    assert len(project.images()) == 434
    assert all(image.size is not None and image.uri.startswith("file:/I:/") for image in project.images())
    wanted = project.images()[7]
    assert project.find(uri=wanted.uri) is wanted


@pytest.mark.testdata
def test_the_project_file_has_the_keys_and_values_that_qupath_writes(testdata: Path, tmp_path: Path) -> None:
    real = orjson.loads((testdata / "qupath/q060/project/project.qpproj").read_bytes())
    entry = real["images"][0]
    slide = entry["serverBuilder"]["metadata"]
    project = NativeProject.create(tmp_path)
    project.path_classes = NativeProject.open(testdata / "qupath/q060/project", read_only=True).path_classes
    project.add_image(
        entry["serverBuilder"]["uri"],
        entry["imageName"],
        size=(slide["width"], slide["height"]),
        mpp=0.5,
        mpp_source="config",
        image_type="brightfield_h_e",
        metadata=entry["metadata"],
    )
    project.save()
    ours = orjson.loads(project.path.read_bytes())
    assert list(ours) == list(real)
    made = ours["images"][0]
    # No reader is named, so that QuPath takes any that opens the file.
    del entry["serverBuilder"]["providerClassName"]
    assert list(made) == list(entry)
    assert orjson.dumps(made["serverBuilder"]) == orjson.dumps(entry["serverBuilder"])
    assert made["metadata"] == entry["metadata"]
    assert uuid.UUID(made["randomizedName"])
    server = orjson.loads((testdata / "qupath/q060/project/data/1/server.json").read_bytes())
    del server["providerClassName"]
    assert (tmp_path / "data/1/server.json").read_bytes() == gson(server)
    classes = "classifiers/classes.json"
    assert (tmp_path / classes).read_bytes() == (testdata / "qupath/q060/project" / classes).read_bytes()
    assert sorted(p.name for p in (tmp_path / "data/1").iterdir()) == ["data.qpdata", "server.json", "summary.json"]


@pytest.mark.testdata
def test_a_summary_is_what_qupath_wrote_of_the_same_objects(testdata: Path) -> None:
    for path in sorted((testdata / "qupath").rglob("summary.json")):
        project = NativeProject.open(path.parents[2], read_only=True)
        if path.parent.name not in {str(image.entry_id) for image in project.images()}:
            continue  # of an image that was removed
        said = orjson.loads(path.read_bytes())
        data = project.read_data(project.image(int(path.parent.name)))
        assert data is not None
        assert summary_of(data.objects, data.image_type, said["server"], said["timestamp"]) == said


# ---- names: QuPath 0.6 asks to save an image whose metadata have another name than its entry


def _slide(folder: Path, name: str, **stated: Any) -> Path:
    path = folder / name
    folder.mkdir(exist_ok=True)
    pixels = np.full((400, 600, 3), 230, np.uint8)
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", compression="jpeg", metadata=None, **stated)
    return path


def _metadata_of(project: NativeProject, entry: int = 1) -> dict[str, Any] | None:
    project.save()
    found: dict[str, Any] | None = orjson.loads(project.path.read_bytes())["images"][entry - 1]["serverBuilder"].get(
        "metadata"
    )
    return found


SVS = "Aperio Image Library v11.2.1\r\n600x400 (128x128) JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990"
LEVELS = (Size(600, 400, 1.0),)


@pytest.mark.parametrize("name", ["a.svs", "ünï 壊死.svs"])
def test_an_image_under_the_name_of_its_file_leaves_everything_to_the_file(tmp_path: Path, name: str) -> None:
    project = NativeProject.create(tmp_path / "project")
    slide = _slide(tmp_path / "slides", name, description=SVS)
    project.add_image(str(slide), name, size=(600, 400), mpp=0.499, levels=LEVELS)
    assert _metadata_of(project) is None


def test_an_image_under_another_name_has_it_in_its_metadata_with_what_the_file_states(tmp_path: Path) -> None:
    project = NativeProject.create(tmp_path / "project")
    slide = _slide(tmp_path / "slides", "a.svs", description=SVS)
    image = project.add_image(str(slide), "case-1", size=(600, 400), mpp=0.499, levels=LEVELS)
    metadata = _metadata_of(project)
    assert metadata is not None
    assert (metadata["name"], metadata["width"], metadata["height"]) == ("case-1", 600, 400)
    assert metadata["magnification"] == 20.0
    assert metadata["pixelCalibration"]["pixelWidth"] == {"value": 0.499, "unit": "µm"}
    assert (metadata["preferredTileWidth"], metadata["preferredTileHeight"]) == (128, 128)
    assert metadata["levels"] == [{"downsample": 1.0, "width": 600, "height": 400}]
    assert (image.size, image.affine) == ((600, 400), IDENTITY)
    # Every name is told by the same one, so that QuPath finds nothing changed, and no other says what is masked.
    entry = orjson.loads(project.path.read_bytes())["images"][0]
    assert entry["imageName"] == metadata["name"]
    server = orjson.loads((project.path.parent / "data" / "1" / "server.json").read_bytes())
    assert server == entry["serverBuilder"]


def test_a_given_resolution_takes_the_place_of_the_files_own(tmp_path: Path) -> None:
    project = NativeProject.create(tmp_path / "project")
    slide = _slide(tmp_path / "slides", "a.svs", description=SVS)
    project.add_image(str(slide), "case-1", size=(600, 400), mpp=0.25, mpp_source="config", levels=LEVELS)
    metadata = _metadata_of(project)
    assert metadata is not None
    assert metadata["name"] == "case-1"
    assert metadata["pixelCalibration"]["pixelWidth"]["value"] == 0.25


@pytest.mark.parametrize("case", ["not here", "another size", "no levels", "remote"])
def test_what_is_not_known_of_a_slide_is_left_to_its_file(tmp_path: Path, case: str) -> None:
    """Wrong metadata would be worse than a question: QuPath believes them."""
    project = NativeProject.create(tmp_path / "project")
    slide = _slide(tmp_path / "slides", "a.svs", description=SVS)
    uri = {"not here": "/nowhere/a.svs", "remote": "https://host/a.svs"}.get(case, str(slide))
    size = (601, 400) if case == "another size" else (600, 400)
    project.add_image(uri, "case-1", size=size, mpp=0.499, levels=() if case == "no levels" else LEVELS)
    assert _metadata_of(project) is None


def test_names_agree_after_a_copy_and_a_relocation(tmp_path: Path) -> None:
    project = NativeProject.create(tmp_path / "project")
    slide = _slide(tmp_path / "slides", "a.svs", description=SVS)
    project.add_image(str(slide), "case-1", size=(600, 400), mpp=0.499, levels=LEVELS)
    project.save()
    copy_project(project.path, tmp_path / "copy")
    relocate(tmp_path / "copy", str(tmp_path / "slides"), "/elsewhere")
    (entry,) = orjson.loads((tmp_path / "copy" / "project.qpproj").read_bytes())["images"]
    assert entry["serverBuilder"]["uri"] == "file:///elsewhere/a.svs"
    assert entry["serverBuilder"]["metadata"]["name"] == entry["imageName"] == "case-1"


def test_a_slide_on_a_drive_of_the_raters_is_asked_where_this_machine_reads_it(tmp_path: Path) -> None:
    project = NativeProject.create(tmp_path / "project")
    slide = _slide(tmp_path / "slides", "a.svs", description=SVS)
    for entry, here in enumerate((str(slide), slide.as_uri(), "s3://bucket/a.svs"), start=1):
        uri = f"file:///Z:/slides/{entry}.svs"
        project.add_image(uri, f"case-{entry}", size=(600, 400), mpp=0.499, levels=LEVELS, here=here)
        metadata = _metadata_of(project, entry)
        stated = None if metadata is None else (metadata["name"], metadata["magnification"])
        assert stated == (None if here.startswith("s3:") else (f"case-{entry}", 20.0))
        assert project.image(entry).uri == uri
