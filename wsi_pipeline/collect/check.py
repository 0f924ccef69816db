"""Is a project sound? Each image's slide, files, objects and frame, against what was handed out. Writes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import shapely

from wsi_pipeline.collect.check_slide import Finding, Recorded, check_shown, check_slide
from wsi_pipeline.collect.guard import ImageLog, loss
from wsi_pipeline.collect.images import find_image, on_the_snapshots_grid
from wsi_pipeline.collect.matching import STORED_PX, match
from wsi_pipeline.collect.times import logs_of
from wsi_pipeline.errors import ProjectError, QuPathFormatError, StoreError
from wsi_pipeline.handout import HandedOutSlide, Plan, handout_held, run_of, snapshot_of, state_of
from wsi_pipeline.handout.frame import share_on_tissue
from wsi_pipeline.measures import Session
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath import ImageData
from wsi_pipeline.qupath.data_files import backup_of
from wsi_pipeline.qupath.frames import moved
from wsi_pipeline.qupath.history import history_of
from wsi_pipeline.qupath.native_project import NativeImage, NativeProject
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.slides import TissueMask

# A prediction that lay mostly on tissue and no longer does has been moved, or its image has another frame.
MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """What was found of one image; `on_tissue` are shares of the predictions' area, at the handout and now."""

    image: str
    entry_id: int | None
    slide_id: str | None
    state: str
    objects: int | None
    handed_out: int | None
    gone: int | None
    slide_seen: bool
    on_tissue: tuple[float, float] | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class CheckedProject:
    """A whole project; `run` is the run directory in which it lies, None where there is none."""

    project: Path
    run: Path | None
    images: tuple[CheckedImage, ...]

    @property
    def findings(self) -> int:
        return sum(len(image.findings) for image in self.images)


def check_project(path: Path) -> CheckedProject:
    """Look at every image of a project. Where it lies in a run, it is compared with what was handed out.

    Raises
    ------
    ProjectError, StoreError
        There is no project that can be read, or the plan of its run is damaged.
    """
    project = NativeProject.open(path, read_only=True)
    run, plan = run_of(project.path)
    sessions = [] if run is None or plan is None else logs_of(run, plan)[0]
    known, missing = _given(project, plan)
    images = [_checked(project, image, known.get(image.entry_id), run, plan, sessions) for image in project.images()]
    gone = Finding("image", "its image is no longer in the project", f"add it again from {project.path.name}.backup")
    images += [
        CheckedImage(s.name, s.entry_id, s.slide_id, "todo", None, s.objects, s.objects, False, None, (gone,))
        for s in missing
    ]
    return CheckedProject(project.path, None if run is None else run.root, tuple(images))


def _given(project: NativeProject, plan: Plan | None) -> tuple[dict[int, HandedOutSlide], list[HandedOutSlide]]:
    """Handed-out slides by the image that shows them, and those that no image shows."""
    known: dict[int, HandedOutSlide] = {}
    missing = []
    for slide in () if plan is None else plan.slides:
        image = find_image(project, slide)
        if image is not None:
            known[image.entry_id] = slide
        elif slide.complete:
            missing.append(slide)
    return known, missing


def _checked(
    project: NativeProject,
    image: NativeImage,
    slide: HandedOutSlide | None,
    run: RunDir | None,
    plan: Plan | None,
    sessions: Sequence[Session],
) -> CheckedImage:
    findings: list[Finding] = []
    called = shlex.quote(str(project.path.parent))
    builder = project.entry(image.entry_id).builder
    folder = project.path.parent / "data" / str(image.entry_id)
    if backup_of(folder / "data.qpdata").exists():
        findings.append(
            Finding(
                "objects",
                f"{backup_of(folder / 'data.qpdata')} is there: QuPath is saving, or was stopped while it did",
                "close QuPath, look at the image, and remove the backup",
            )
        )
    data = objects = None
    try:
        data = project.read_data(image)
    except (ProjectError, QuPathFormatError) as error:
        findings.append(Finding("objects", _without(str(error), image.name), _restore(project.path, image, called)))
    else:
        try:
            objects = [] if data is None else moved(data.objects, image.affine)
        except ProjectError as error:
            findings.append(Finding("frame", _without(str(error), image.name), "nothing of it can be collected before"))
    recorded = None if slide is None else Recorded((slide.width, slide.height), slide.mpp)
    head = None if data is None or data.server_json is None else data.server_json.get("server")
    seen = check_slide(image.name, builder, {"data.qpdata": head}, recorded, called)
    findings += seen.findings
    size = seen.size or (None if recorded is None else recorded.size)
    if size is not None and not any(f.what == "size" for f in findings):
        stated = [("project.qpproj", image.size), ("summary.json", _summary_size(folder / "summary.json"))]
        findings += check_shown(image.name, builder, stated, size)
    gone = on_tissue = None
    if objects is not None:
        findings += _geometries(objects, size if recorded is None else recorded.size)
        if run is not None and plan is not None and slide is not None:
            try:
                held = handout_held(run, plan, slide, ImageData(objects, {} if data is None else data.properties))
                if held.remark is not None:
                    findings.append(Finding("handout", held.remark, _restore(project.path, image, called)))
                before = snapshot_of(run, plan, held.slide or slide)
                findings += _losses(before, objects, image, slide, sessions, project.path)
                present = {o.uuid for o in objects}
                gone = sum(o.uuid not in present for o in before)
                on_tissue, left = _tissue(run, slide, before, objects, called)
                findings += left
            except StoreError as error:
                findings.append(Finding("snapshot", str(error), "nothing of it can be collected before"))
    return CheckedImage(
        image=image.name,
        entry_id=image.entry_id,
        slide_id=None if slide is None else slide.slide_id,
        state=str(state_of(image)),
        objects=None if objects is None else len(objects),
        handed_out=None if slide is None else slide.objects,
        gone=gone,
        slide_seen=seen.looked,
        on_tissue=on_tissue,
        findings=tuple(findings),
    )


def _losses(
    before: Sequence[PathObject],
    objects: Sequence[PathObject],
    image: NativeImage,
    slide: HandedOutSlide,
    sessions: Sequence[Session],
    project: Path,
) -> Iterator[Finding]:
    if not slide.complete:
        yield Finding("count", "its handout was interrupted", "run `wsi-pipeline handout` again")
        return
    after = on_the_snapshots_grid(objects)
    log = ImageLog.of(sessions, image.entry_id)
    text = loss(before, after, match(before, after), state_of(image), log, image.entry_id, project)
    if text is not None:
        cause, _, remedy = text.partition("; ")
        yield Finding("count", cause, remedy)


def _geometries(objects: Sequence[PathObject], size: tuple[int, int] | None) -> Iterator[Finding]:
    """Shapes that QuPath cannot work with, and such that lie beyond the slide."""
    shaped = [o for o in objects if o.geometry is not None]
    shapes = np.array([*(o.geometry for o in shaped), None], dtype=object)[:-1]
    if not len(shapes):
        return
    with np.errstate(all="ignore"):
        empty = shapely.is_empty(shapes) | ~np.isfinite(shapely.bounds(shapes)).all(axis=1)
        valid = shapely.is_valid(shapes) & ~empty
    bad = np.flatnonzero(~valid).tolist()
    if bad:
        first = shaped[bad[0]]
        why = "empty or not finite" if empty[bad[0]] else shapely.is_valid_reason(shapes[bad[0]])
        yield Finding(
            "geometry",
            f"{len(bad)} of {len(shaped)} shapes are not valid for QuPath, first {_called(first)}: {why}",
            "go over the outline with the brush, or draw it anew",
        )
    if size is None:
        return
    frame = shapely.box(-1, -1, size[0] + 1, size[1] + 1)
    shapely.prepare(frame)
    beyond = np.flatnonzero(valid & ~shapely.covers(frame, shapely.envelope(shapes))).tolist()
    if beyond:
        yield Finding(
            "frame",
            f"{len(beyond)} of {len(shaped)} objects reach beyond the slide, first {_called(shaped[beyond[0]])}",
            "look whether QuPath shows the slide rotated, flipped or cropped otherwise than at the handout",
        )


def _tissue(
    run: RunDir, slide: HandedOutSlide, before: Sequence[PathObject], objects: Sequence[PathObject], called: str
) -> tuple[tuple[float, float] | None, list[Finding]]:
    """Shares of the predictions on tissue then and now, and those that have left it."""
    path = run.slide(slide.slide_id).tissue
    given = {o.uuid: o for o in before if o.kind is Kind.ANNOTATION}
    now = [o for o in objects if o.uuid in given and o.geometry is not None]
    if not path.exists() or not now:
        return None, []
    tissue = TissueMask.load(path)
    shares = share_on_tissue([given[o.uuid] for o in now], tissue), share_on_tissue(now, tissue)
    left = [
        o
        for o in now
        if not shapely.equals_exact(o.geometry, given[o.uuid].geometry, STORED_PX)
        and share_on_tissue([o], tissue) < MOSTLY <= share_on_tissue([given[o.uuid]], tissue)
    ]
    if not left:
        return shares, []
    return shares, [
        Finding(
            "tissue",
            f"{len(left)} of {len(now)} predictions lay on tissue and no longer do, first {_called(left[0])} "
            f"(of all their area {shares[0]:.1%} then, {shares[1]:.1%} now)",
            "look at them: moved by accident, or the image is turned; "
            f"`wsi-pipeline project history {called}` lists what can be restored",
        )
    ]


def _restore(project: Path, image: NativeImage, called: str) -> str:
    copies = [c for c in history_of(project) if c.entry_id == image.entry_id]
    if copies:
        return f"run `wsi-pipeline project restore {called} --at {copies[-1].id}`"
    return f"restore data/{image.entry_id}/data.qpdata from snapshots/ or a backup"


def _summary_size(path: Path) -> tuple[int, int] | None:
    """The size that QuPath wrote when it saved; None where there is no such file or it is damaged."""
    try:
        value: Any = orjson.loads(path.read_bytes())
        return int(value["server"]["width"]), int(value["server"]["height"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def _called(item: PathObject) -> str:
    return f"{item.path_class or 'unclassified'} {item.name or item.uuid[:8]}"


def _without(text: str, name: str) -> str:
    return text.removeprefix(f"{name}: ")
