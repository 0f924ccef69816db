"""Runs and a person take turns on one image: whatever the order, nothing that the person did is lost or undone."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import shapely
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from shapely import affinity

from wsi_pipeline.objects import META_RUN, Kind, PathObject
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.qupath.shapes import same_region

CELLS = 12
# None of them undoes another: what is as it was handed out again is nobody's work.
EDITS = ["brush", "move", "class", "name", "lock", "delete"]


def _prediction(run: int, cell: int) -> PathObject:
    """What run number `run` finds in a cell of the slide; another run draws it a little otherwise."""
    return PathObject(
        uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run} {cell}")),
        kind=Kind.ANNOTATION,
        geometry=shapely.box(100 * cell, 0, 100 * cell + 60 + run, 50),
        path_class="Tumor",
        measurements={"p": 0.5},
        metadata={META_RUN: f"run-{run}"},
    )


class Review(RuleBasedStateMachine):
    """`people` is what the person left in the image, `deleted` what the person took away."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.people: dict[str, PathObject] = {}
        self.deleted: set[str] = set()
        self.run = 0
        self.snapshot: list[PathObject] = []
        self.drawn = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(cells=st.sets(st.integers(0, CELLS - 1), min_size=1))
    def hand_out(self, cells: set[int]) -> None:
        project = NativeProject.create(self.folder)
        project.add_image("file:///slides/a.svs", "a.svs", size=(2000, 100), mpp=0.5)
        self.snapshot = [_prediction(0, cell) for cell in sorted(cells)]
        project.add_objects(1, self.snapshot)
        project.save()

    @property
    def project(self) -> NativeProject:
        return NativeProject.open(self.folder)

    def _present(self) -> list[PathObject]:
        return self.project.image(1).read_objects()

    def _person_saves(self, objects: list[PathObject]) -> None:
        self.project.save_objects(1, objects)

    @rule(cells=st.sets(st.integers(0, CELLS - 1)))
    def a_new_model_predicts(self, cells: set[int]) -> None:
        incoming = [_prediction(self.run + 1, cell) for cell in sorted(cells)]
        self.project.replace_run_objects(1, f"run-{self.run}", incoming, self.snapshot)
        self.run += 1
        present = {o.uuid for o in self._present()}
        self.snapshot = [o for o in incoming if o.uuid in present]

    @rule()
    def the_same_run_is_handed_out_again(self) -> None:
        before = (self.folder / "data/1/data.qpdata").read_bytes()
        result = self.project.replace_run_objects(1, f"run-{self.run}", self.snapshot, self.snapshot)
        assert result.replaced == 0
        assert (self.folder / "data/1/data.qpdata").read_bytes() == before

    @precondition(lambda self: self._present())
    @rule(data=st.data(), what=st.sampled_from(EDITS))
    def the_person_edits(self, data: st.DataObject, what: str) -> None:
        objects = self._present()
        item = data.draw(st.sampled_from(objects))
        shape = item.geometry
        assert shape is not None
        rest = [o for o in objects if o.uuid != item.uuid]
        if what == "delete":
            self.deleted.add(item.uuid)
            self.people.pop(item.uuid, None)
            self._person_saves(rest)
            return
        changed = {
            "brush": lambda: replace(
                item,
                geometry=shape.union(shapely.box(*shape.bounds[:2], *(shape.bounds[0] + 3, shape.bounds[3] + 1))),
                measurements={},
            ),
            "move": lambda: replace(item, geometry=affinity.translate(shape, 2, 1), measurements={}),
            "class": lambda: replace(item, path_class="Stroma" if item.path_class == "Tumor" else "Necrosis"),
            "name": lambda: replace(item, name=f"{item.name}!"),
            "lock": lambda: replace(item, locked=True),
        }[what]()
        self.people[item.uuid] = changed
        self._person_saves([changed if o.uuid == item.uuid else o for o in objects])

    @rule(x=st.integers(0, 1900))
    def the_person_draws(self, x: int) -> None:
        self.drawn += 1
        new = PathObject(
            uuid=str(uuid.UUID(int=self.drawn)), kind=Kind.ANNOTATION, geometry=shapely.box(x, 60, x + 20, 90)
        )
        self.people[new.uuid] = new
        self._person_saves([*self._present(), new])

    @invariant()
    def nothing_that_a_person_did_is_lost_or_undone(self) -> None:
        if not (self.folder / "project.qpproj").exists():
            return
        present = {o.uuid: o for o in self._present()}
        assert not self.deleted & present.keys()
        for identity, item in self.people.items():
            found = present[identity]
            assert (found.path_class, found.name, found.locked) == (item.path_class, item.name, item.locked)
            assert same_region(found.geometry, item.geometry, 0.02)


Review.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestReview = Review.TestCase
