"""The plan of a handout and its snapshot: what was given to whom, kept apart from the project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict

from wsi_pipeline.config import Planting
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json, sha256_file, write_json
from wsi_pipeline.objects import RGB, PathObject
from wsi_pipeline.qupath.geojson import read_geojson, write_geojson
from wsi_pipeline.rundir import RunDir

SCHEMA_VERSION = 1
BATCH = "batch-1"
# The arm whose images show predictions.
ASSISTED = "assisted"


class PlantedError(BaseModel):
    """What was planted: `true` and `planted` are uuids, `truth` the file with the true object (from the plan's folder).

    A missing object has no `planted`, a fake one no `true`.
    """

    model_config = ConfigDict(frozen=True)

    kind: Planting
    true: str | None = None
    planted: str | None = None
    truth: str | None = None
    sha256: str | None = None


class HandedOutSlide(BaseModel):
    """One image of the batch. `snapshot` counts from the plan's folder, `sha256` is of that file.

    `key` names what was handed out (recipe, mpp, objects). `complete` is false while the project is being written: a
    call that was killed is taken up from there. `previous` is the handout before this one, which an image holds again
    when an older state of it was restored.
    """

    model_config = ConfigDict(frozen=True)

    slide_id: str
    name: str
    uri: str
    entry_id: int | None = None
    width: int
    height: int
    mpp: float
    patient: str | None = None
    run_id: str
    key: str
    snapshot: str
    sha256: str
    objects: int
    complete: bool = True
    previous: HandedOutSlide | None = None
    arm: str = ASSISTED
    position: int | None = None
    repeat: bool = False
    case: str | None = None
    planted: PlantedError | None = None

    @property
    def tag(self) -> str:
        """What the image's metadata calls the slide: its id, or the masked name."""
        return self.case or self.slide_id


class Plan(BaseModel):
    """What a batch is; written before the project is. `project` counts from the run directory."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    batch: str
    rater: str
    arm: str = ASSISTED
    project: str
    slides: tuple[HandedOutSlide, ...]

    @property
    def folder(self) -> str:
        """Its folder in `handout/`, a name that no other batch has."""
        return folder_of(self.batch, self.project)

    def slide(self, slide_id: str) -> HandedOutSlide | None:
        return next((slide for slide in self.slides if slide.slide_id == slide_id), None)

    def with_slide(self, slide: HandedOutSlide) -> Plan:
        """The plan with this slide in the place of the one of its id, or at the end."""
        if self.slide(slide.slide_id) is None:
            return self.model_copy(update={"slides": (*self.slides, slide)})
        changed = tuple(slide if old.slide_id == slide.slide_id else old for old in self.slides)
        return self.model_copy(update={"slides": changed})


def folder_of(batch: str, project: str) -> str:
    """Folder in `handout/` of a batch, named as the project's; in `project/`, of a single rater, as the batch.

    The rater is not asked: who was forgotten (`privacy forget`) has another name, and the folders stay.
    """
    return batch if project.startswith("project/") else PurePosixPath(project).parent.name


def plan_path(run: RunDir, batch: str = BATCH) -> Path:
    return run.handout / batch / "plan.json"


def write_plan(run: RunDir, plan: Plan) -> None:
    value: dict[str, Any] = plan.model_dump(mode="json")
    value["schema"] = value.pop("schema_version")
    write_json(plan_path(run, plan.folder), value)


def read_plan(path: Path) -> Plan:
    """Read a plan.json; older schemas are read, a newer one is refused with `StoreError`."""
    value = read_json(path)
    version = value.pop("schema", None) if isinstance(value, dict) else None
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise StoreError(f"{path} has schema {version}; this program reads up to {SCHEMA_VERSION}: update wsi-pipeline")
    try:
        return Plan.model_validate({**value, "schema_version": version})
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from error


def read_plans(run: RunDir) -> list[Plan]:
    """All batches that were handed out, by name; an empty list before the first handout."""
    return [read_plan(path) for path in sorted(run.handout.glob("*/plan.json"))]


def run_of(project: Path) -> tuple[RunDir | None, Plan | None]:
    """The run directory that a project lies in, and the plan by which it was handed out; None for a project alone."""
    here = project.absolute()
    for folder in list(here.parents)[1:]:
        run = RunDir(folder)
        if not run.handout.is_dir():
            continue
        for plan in read_plans(run):
            if folder / plan.project == here:
                return run, plan
    return None, None


def write_snapshot(
    run: RunDir, batch: str, slide_id: str, key: str, objects: Sequence[PathObject], colors: dict[str, RGB]
) -> tuple[str, str]:
    """Write what is handed out of one slide (level-0 px); returns the file's name and SHA-256.

    The name holds the key of the handout, so that a later one never replaces an older snapshot; where a person's work
    makes another one of the same key, it has a number.
    """
    folder = plan_path(run, batch).parent
    number = 1
    while True:
        name = f"snapshot/{slide_id}.{key}{f'-{number}' if number > 1 else ''}.geojson"
        path = folder / name
        if not path.exists():
            write_geojson(path, objects, colors)
            return name, sha256_file(path)
        with TemporaryDirectory() as scratch:
            same = Path(scratch) / path.name
            write_geojson(same, objects, colors)
            if same.read_bytes() == path.read_bytes():
                return name, sha256_file(path)
        number += 1


def true_object_of(run: RunDir, plan: Plan, slide: HandedOutSlide) -> list[PathObject]:
    """The object that a planted error stands for, in level-0 px; empty for a fake one. Raises as `snapshot_of`."""
    planted = slide.planted
    if planted is None or planted.truth is None or planted.sha256 is None:
        return []
    return _kept(plan_path(run, plan.folder).parent / planted.truth, planted.sha256, slide.slide_id)


def snapshot_of(run: RunDir, plan: Plan, slide: HandedOutSlide) -> list[PathObject]:
    """The objects that were handed out, in level-0 px.

    Raises
    ------
    StoreError
        The snapshot is gone, or is not what was written: corrections could not be told from changes to it.
    """
    return _kept(plan_path(run, plan.folder).parent / slide.snapshot, slide.sha256, slide.slide_id)


def _kept(path: Path, sha256: str, slide_id: str) -> list[PathObject]:
    if not path.exists():
        raise StoreError(f"{slide_id}: the snapshot {path} is gone; restore it from a backup")
    if sha256_file(path) != sha256:
        raise StoreError(f"{slide_id}: the snapshot {path} was changed after the handout; restore it")
    return read_geojson(path)
