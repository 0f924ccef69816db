"""One image of a batch: its snapshot, its objects in the project, and what a call that was killed left behind.

Order: snapshot and plan first (`complete` false), then the project, then the plan again. At every moment the plan, the
snapshots and the project together tell what was handed out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.files import sha256_bytes
from wsi_pipeline.handout.held import handout_held, marker_of
from wsi_pipeline.handout.plan import HandedOutSlide, Plan, PlantedError, snapshot_of, write_plan, write_snapshot
from wsi_pipeline.handout.planted import PlantedObjects
from wsi_pipeline.handout.settled import without_settled
from wsi_pipeline.objects import RGB, PathObject
from wsi_pipeline.qupath import Project, ProjectImage
from wsi_pipeline.qupath.data_files import DataFiles
from wsi_pipeline.qupath.frames import plan_replacement, untouched_uuids
from wsi_pipeline.qupath.history import keep_now
from wsi_pipeline.qupath.lease import refuse_while_open
from wsi_pipeline.qupath.protocol import LevelLike
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.slides import TissueMask
from wsi_pipeline.states import META_STATE, PROPERTY_HANDOUT, ImageState
from wsi_pipeline.tiling import Bounds


@dataclass(frozen=True, slots=True)
class HandoutSlide:
    """One slide that is ready to be handed out; lengths and `objects` in level-0 px."""

    slide_id: str
    name: str
    uri: str
    size: tuple[int, int]
    mpp: float
    mpp_source: str
    levels: Sequence[LevelLike]
    crop: Bounds | None
    patient: str | None
    run_id: str
    objects: Sequence[PathObject]
    thumbnail: NDArray[np.uint8] | None
    flags: Sequence[str] = ()
    tissue: TissueMask | None = None
    arm: str = "assisted"
    position: int | None = None
    repeat: bool = False
    case: str | None = None
    planted: PlantedObjects | None = None

    @property
    def tag(self) -> str:
        """What the image's metadata calls the slide: its id, or the masked name."""
        return self.case or self.slide_id

    @property
    def key(self) -> str:
        """Sixteen hex digits of what is handed out: recipe, resolution and objects."""
        parts = (self.run_id, repr(self.mpp), *sorted(o.uuid for o in self.objects))
        return sha256_bytes("\n".join(parts).encode())[:16]


@dataclass(slots=True)
class HandoutResult:
    """What is in the project now, what a person should know, and which slides could not be handed out."""

    project: Path
    images: int = 0
    objects: int = 0
    added: int = 0
    replaced: int = 0
    budget: dict[str, list[str]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    projects: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, batch: str, done: HandoutResult) -> None:
        """Take in what came of one batch of several."""
        self.projects.append(done.project)
        self.images += done.images
        self.objects += done.objects
        self.added += done.added
        self.replaced += done.replaced
        self.budget.update(done.budget)
        self.warnings += [f"{batch}: {text}" for text in done.warnings]
        self.problems += [f"{batch}: {text}" for text in done.problems]


@dataclass(slots=True)
class Batch:
    """A batch while a call works on it."""

    run: RunDir
    plan: Plan
    project: Project
    colors: dict[str, RGB]
    result: HandoutResult

    def record(self, entry: HandedOutSlide) -> HandedOutSlide:
        """Write down what was, or is about to be, handed out of a slide."""
        if self.plan.slide(entry.slide_id) != entry:
            self.plan = self.plan.with_slide(entry)
            write_plan(self.run, self.plan)
        return entry

    def begin(self, slide: HandoutSlide, uri: str) -> HandedOutSlide:
        """The record of a slide that is not in the project yet, with its snapshot on disk."""
        return self.record(self._entry(slide, uri, slide.objects))

    def bring_up_to_date(self, slide: HandoutSlide, image: ProjectImage) -> bool:
        """Bring the objects into the project, new or in the place of older ones that nobody touched.

        Returns
        -------
        Whether anything was written.
        """
        known = self.plan.slide(slide.slide_id)
        if known is None:
            raise ProjectError(
                "is in the project, but not in the plan; if it was forgotten, remove its image in QuPath, "
                "else restore plan.json from a backup"
            )
        held = handout_held(self.run, self.plan, known, image.read())
        if held.remark is not None:
            self.result.warnings.append(f"{slide.slide_id}: {held.remark}")
        if held.slide is None:
            return self._first(slide, image, known.uri)
        there = held.slide.model_copy(update={"entry_id": image.entry_id})
        if there.key == slide.key:
            self._stays(there)
            return False
        return self._renewed(slide, image, there)

    def _stays(self, there: HandedOutSlide) -> None:
        """Write down that the project holds this handout, be it an older one that was restored."""
        newest = self._newest(there)
        self.record(there if newest is None else there.model_copy(update={"previous": newest}))

    def _newest(self, there: HandedOutSlide) -> HandedOutSlide | None:
        """What was handed out last, where the project holds something older; calls that wrote nothing do not count."""
        known = self.plan.slide(there.slide_id)
        while known is not None and not known.complete and known.snapshot != there.snapshot:
            known = known.previous
        return None if known is None or known.snapshot == there.snapshot else known

    def _first(self, slide: HandoutSlide, image: ProjectImage, uri: str) -> bool:
        entry = self.record(self._entry(slide, uri, slide.objects))
        added = self.project.add_objects(image, slide.objects, properties=_mark(entry))
        if added != len(slide.objects):
            raise ProjectError(f"{added} of {len(slide.objects)} objects were added; look at the image in QuPath")
        self._complete(entry, image)
        return True

    def _renewed(self, slide: HandoutSlide, image: ProjectImage, there: HandedOutSlide) -> bool:
        """Put predictions that changed in the place of those that nobody touched, unless somebody has reviewed."""
        if there.mpp != slide.mpp:
            raise ProjectError(
                f"was handed out with {there.mpp:g} µm/px and has {slide.mpp:g} now; QuPath would keep the old "
                "calibration: hand out into a new `output`"
            )
        if state_of(image).is_reviewed:
            self._stays(there)
            self.result.warnings.append(f"{slide.slide_id}: is reviewed already, keeps what was handed out before")
            return False
        old, now = snapshot_of(self.run, self.plan, there), image.read_objects()
        incoming = self._unsettled(slide, there, now, old)
        change = plan_replacement(now, there.run_id, incoming, old)
        # What goes leaves the snapshot with it; what a person touched or deleted stays there, to be compared with.
        snapshot = [o for o in old if o.uuid not in change.going]
        known = {o.uuid for o in snapshot}
        snapshot += [o for o in change.new if o.uuid not in known]
        if change.going or change.new:
            # QuPath would write over it at its next save.
            refuse_while_open(self.project.path.parent, ours=True)
        # Where nothing is exchanged, the image stands at the same snapshot as before, and so does its mark.
        same = None if change.going or change.new else there
        entry = self.record(self._entry(slide, there.uri, snapshot, previous=self._newest(there) or there, same=same))
        if change.going or change.new:
            # Whoever wrote it: what a new model replaces can be brought back.
            keep_now(DataFiles(self.project.path.parent), image.entry_id, image.name)
        mark = None if same else _mark(entry)
        done = self.project.replace_run_objects(image, there.run_id, incoming, old, properties=mark)
        self._complete(entry, image)
        self.result.replaced += done.replaced
        if done.kept:
            self.result.warnings.append(f"{slide.slide_id}: {done.kept} predictions that a person touched were kept")
        return True

    def _unsettled(
        self, slide: HandoutSlide, there: HandedOutSlide, now: Sequence[PathObject], old: Sequence[PathObject]
    ) -> list[PathObject]:
        """The slide's predictions without those that lie where a person has decided already."""
        given = {o.uuid: o for o in slide.objects}
        going = plan_replacement(now, there.run_id, slide.objects, old).going
        alone = going | untouched_uuids(now, given, given)
        present = {o.uuid for o in now}
        coming = without_settled(
            [o for o in slide.objects if o.uuid not in present],
            work=[o for o in now if o.uuid not in alone],
            decided=[o for o in old if o.uuid not in alone],
        )
        left_out = len(given.keys() - present) - len(coming)
        if left_out:
            self.result.warnings.append(
                f"{slide.slide_id}: {left_out} predictions lie where a person has worked: left out"
            )
        return [o for o in slide.objects if o.uuid in present] + coming

    def _complete(self, entry: HandedOutSlide, image: ProjectImage) -> None:
        done = {"entry_id": image.entry_id, "complete": True}
        self.record(entry.model_copy(update=done))

    def _entry(
        self,
        slide: HandoutSlide,
        uri: str,
        objects: Sequence[PathObject],
        previous: HandedOutSlide | None = None,
        same: HandedOutSlide | None = None,
    ) -> HandedOutSlide:
        """Write the snapshot, unless it is the same as that of `same`, and say what the plan has to know of it."""
        if same is not None:
            name, sha256 = same.snapshot, same.sha256
        else:
            name, sha256 = write_snapshot(self.run, self.plan.folder, slide.slide_id, slide.key, objects, self.colors)
        return HandedOutSlide(
            slide_id=slide.slide_id,
            name=slide.name,
            uri=uri,
            entry_id=previous.entry_id if previous else None,
            width=slide.size[0],
            height=slide.size[1],
            mpp=slide.mpp,
            patient=slide.patient,
            run_id=slide.run_id,
            key=slide.key,
            snapshot=name,
            sha256=sha256,
            objects=len(objects),
            complete=False,
            previous=previous,
            arm=slide.arm,
            position=slide.position,
            repeat=slide.repeat,
            case=slide.case,
            planted=None if slide.planted is None else self._truth(slide, slide.planted),
        )

    def _truth(self, slide: HandoutSlide, planted: PlantedObjects) -> PlantedError:
        """Keep the true object beside the snapshot, and say what was planted."""
        true, fake = planted.true, planted.planted
        found = PlantedError(
            kind=planted.kind, true=None if true is None else true.uuid, planted=None if fake is None else fake.uuid
        )
        if true is None:
            return found
        key = f"{slide.key}.true"
        name, sha256 = write_snapshot(self.run, self.plan.folder, slide.slide_id, key, [true], self.colors)
        return found.model_copy(update={"truth": name, "sha256": sha256})


def _mark(entry: HandedOutSlide) -> dict[str, str]:
    return {PROPERTY_HANDOUT: marker_of(entry)}


def state_of(image: ProjectImage) -> ImageState:
    """The review state; a word that is none of ours counts as in progress."""
    word = image.metadata.get(META_STATE, ImageState.TODO).strip().lower()
    return ImageState(word) if word in list(ImageState) else ImageState.IN_PROGRESS
