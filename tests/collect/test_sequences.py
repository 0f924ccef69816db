"""Any order of handouts, edits, new models, states and collections, through real project files.

After every step: nothing that a person drew or changed is lost or altered, and collecting reports exactly the edits
that were made.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from shapely import Point, box
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from tests.handout.made import CLASSES, COSTS, REVIEW, SETTINGS, annotations_of, files_below, region, save, slide, tiles
from wsi_pipeline import audit
from wsi_pipeline.collect import Change, collect
from wsi_pipeline.handout import hand_out
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.history import history_of, restore
from wsi_pipeline.qupath.relocate import relocate
from wsi_pipeline.rundir import RunDir

SPOTS = 8
Key = tuple[str | None, str | None]


class Review(RuleBasedStateMachine):
    """One slide, its pathologist, and models that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.run = RunDir(self.folder / "run")
        self.model = 0
        self.drawn = 0
        self.reviewed = False
        self.left: dict[str, PathObject] = {}  # what a person left in the project, by uuid
        self.untouched: dict[str, PathObject] = {}  # what nobody has touched of what was handed out
        self.deleted: list[PathObject] = []
        self.expected: dict[Key, Change] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @property
    def run_id(self) -> str:
        return f"{self.model:016x}"

    def predicted(self) -> list[PathObject]:
        """Each model sees the same spots, a little larger."""
        return [region("s1", 250.0 + 450 * i, 500, 80 + 3 * self.model, run_id=self.run_id) for i in range(SPOTS)]

    def give(self) -> None:
        given = slide(self.folder, regions=self.predicted(), run_id=self.run_id)
        result = hand_out(self.run, SETTINGS, CLASSES, [given])
        assert result.problems == []

    @initialize()
    def first_handout(self) -> None:
        self.give()
        self.untouched = {o.uuid: o for o in self.predicted()}

    # ---- what a person does

    def pick(self, at: int) -> PathObject:
        return list(self.untouched.values())[at % len(self.untouched)]

    def new(self, shape: BaseGeometry, name: str | None = "Tumor") -> PathObject:
        self.drawn += 1
        return PathObject(str(uuid.UUID(int=self.drawn, version=4)), Kind.ANNOTATION, shape, name)

    def act(self, change: Change, gone: list[PathObject], come: list[PathObject]) -> None:
        """Do it in the project, as QuPath saves it, and note what collecting must say."""
        removed = {o.uuid for o in gone}
        objects = [o for o in annotations_of(self.run) if o.uuid not in removed]
        save(self.run, [*objects, *come, *tiles("s1", 2, self.handed_run)])
        for item in gone:
            del self.untouched[item.uuid]
        self.left |= {o.uuid: o for o in come}
        before: list[str | None] = [o.uuid for o in gone]
        after: list[str | None] = [o.uuid for o in come]
        pairs = [(a, b) for a in before or [None] for b in after or [None]]
        self.expected |= dict.fromkeys(pairs, change)

    handed_run = f"{0:016x}"

    @precondition(lambda self: self.untouched)
    @rule(at=st.integers(0, 9), by=st.floats(10, 60), adds=st.booleans())
    def brush(self, at: int, by: float, adds: bool) -> None:
        item = self.pick(at)
        assert item.geometry is not None
        stroke = Point(shapely.get_coordinates(item.geometry)[0]).buffer(by)
        shape = item.geometry.union(stroke) if adds else item.geometry.difference(stroke)
        self.act(Change.EDITED, [item], [replace(item, geometry=shape, measurements={})])

    @precondition(lambda self: self.untouched)
    @rule(at=st.integers(0, 9), x=st.floats(3, 90), y=st.floats(-90, 90))
    def slip(self, at: int, x: float, y: float) -> None:
        item = self.pick(at)
        assert item.geometry is not None
        self.act(Change.MOVED, [item], [replace(item, geometry=translate(item.geometry, x, y), measurements={})])

    @precondition(lambda self: self.untouched)
    @rule(at=st.integers(0, 9), name=st.sampled_from(["Stroma", "Ignore*", None]))
    def classify(self, at: int, name: str | None) -> None:
        item = self.pick(at)
        self.act(Change.RECLASSIFIED, [item], [replace(item, path_class=name)])

    @precondition(lambda self: self.untouched)
    @rule(at=st.integers(0, 9))
    def delete(self, at: int) -> None:
        # Somebody who deletes is at work, and the image says so: without state or log it would be a loss.
        self.state("in_progress")
        item = self.pick(at)
        self.deleted.append(item)
        self.act(Change.DELETED, [item], [])

    @precondition(lambda self: self.untouched)
    @rule(at=st.integers(0, 9))
    def split(self, at: int) -> None:
        item = self.pick(at)
        assert item.geometry is not None
        x, y, right, bottom = item.geometry.bounds
        middle = (x + right) / 2
        halves = box(x, y, middle - 1, bottom), box(middle + 1, y, right, bottom)
        self.act(Change.SPLIT, [item], [self.new(item.geometry.intersection(half)) for half in halves])

    @precondition(lambda self: len(self.untouched) > 1)
    @rule(at=st.integers(0, 9))
    def merge(self, at: int) -> None:
        first = self.pick(at)
        second = next(o for o in self.untouched.values() if o is not first)
        parts = [o.geometry for o in (first, second) if o.geometry is not None]
        # Below all other spots, so that the bridge covers none of them.
        ends = [part.centroid.x for part in parts]
        below = box(min(ends) - 5, 900, max(ends) + 5, 910)
        legs = [box(x - 5, 500, x + 5, 910) for x in ends]
        self.act(Change.MERGED, [first, second], [self.new(shapely.union_all([*parts, below, *legs]))])

    @rule(x=st.floats(100, 3800))
    def draw(self, x: float) -> None:
        shape = Point(x, 1500 + 200 * self.drawn).buffer(50)
        self.act(Change.ADDED, [], [self.new(shape, None)])

    @precondition(lambda self: self.untouched)
    @rule(at=st.integers(0, 9))
    def sliver(self, at: int) -> None:
        item = self.pick(at)
        assert item.geometry is not None
        right = item.geometry.bounds[2]
        self.act(Change.ADDED, [], [self.new(box(right - 2, 480, right + 20, 520))])

    def state(self, word: str) -> None:
        from tests.handout.made import set_state

        if not self.reviewed:
            set_state(self.run, word)

    @rule()
    def finish(self) -> None:
        self.state("reviewed")
        self.reviewed = True

    # ---- what the pipeline does

    @rule()
    def hand_out_again(self) -> None:
        def but_copies() -> dict[str, bytes]:
            # Copies that a person's save left get their twins, and old ones go.
            return {name: data for name, data in files_below(self.run.root).items() if "/history/" not in name}

        before = but_copies()
        self.give()
        if self.handed_run == self.run_id:
            assert but_copies() == before

    @rule()
    def a_new_model(self) -> None:
        self.model += 1
        self.give()
        if self.reviewed:
            return
        now = {o.uuid for o in annotations_of(self.run)}
        self.untouched = {o.uuid: o for o in self.predicted() if o.uuid in now}
        self.handed_run = self.run_id
        # What is left out lies where a person has decided: on what was drawn, changed or deleted.
        work = shapely.union_all([o.geometry for o in (*self.left.values(), *self.deleted)])
        for item in self.predicted():
            if item.uuid not in now:
                assert item.geometry is not None
                assert item.geometry.intersection(work).area > 0.49 * item.geometry.area

    place = 0

    @rule()
    def the_slides_move(self) -> None:
        before = {o.uuid: o for o in annotations_of(self.run)}
        old = self.folder / ("slides" if self.place == 0 else f"place {self.place}")
        self.place += 1
        assert relocate(self.run.project, str(old), str(self.folder / f"place {self.place}"))
        assert {o.uuid: o for o in annotations_of(self.run)} == before

    @rule(share=st.floats(0.01, 0.99))
    def a_writer_is_killed(self, share: float) -> None:
        """Between write and rename, and while it appends to the log of what was done."""
        data = self.run.project.parent / "data" / "1" / "data.qpdata"
        raw = data.read_bytes()
        data.with_name(f"{data.name}.4194305.partial").write_bytes(raw[: int(len(raw) * share)])
        with (self.run.root / audit.NAME).open("ab") as log:
            log.write(b'{"action":"edi')

    @rule()
    def an_older_state_comes_back_and_goes(self) -> None:
        copies = [c for c in history_of(self.run.project) if c.entry_id == 1]
        if not copies:
            return
        now = annotations_of(self.run)
        done = restore(self.run.project, copies[0].id)
        if done[0].kept is not None:
            restore(self.run.project, done[0].kept)
        assert annotations_of(self.run) == now

    @invariant()
    def no_work_is_lost_or_altered(self) -> None:
        if not self.run.project.exists():
            return
        now = {o.uuid: o for o in annotations_of(self.run)}
        assert set(now) == set(self.left) | set(self.untouched)
        for item in self.left.values():
            there = now[item.uuid]
            assert (there.path_class, there.name) == (item.path_class, item.name)
            assert shapely.hausdorff_distance(there.geometry, item.geometry) < 0.05

    @invariant()
    def collecting_reports_exactly_the_edits(self) -> None:
        if not self.run.project.exists():
            return
        before = files_below(self.run.project.parent)
        result = collect(self.run, REVIEW, COSTS)
        assert files_below(self.run.project.parent) == before
        assert result.alarms == ()
        rows = pq.read_table(self.run.corrections).to_pylist()
        found = {(row["uuid_before"], row["uuid_after"]): Change(row["change"]) for row in rows}
        wanted = self.expected | {(u, u): Change.UNTOUCHED for u in self.untouched}
        assert found == wanted
        log: dict[Key, str] = {}
        lines = audit.read(self.run.root)
        for line in lines:
            if line["action"] != "handed_out":
                log[line["facts"]["uuid_before"], line["facts"]["uuid_after"]] = line["action"]
        assert {key: action for key, action in log.items() if action != "reverted"} == self.expected
        collect(self.run, REVIEW, COSTS)
        assert audit.read(self.run.root) == lines
        kept = "accepted" if self.reviewed else "not_seen"
        assert all((row["status"] == kept) == (row["change"] == "untouched") for row in rows)
        facts = result.metrics["slides"]["s1"]["classes"]
        for column in ("area_before_um2", "area_after_um2"):
            total = sum(row[column] for row in rows)
            # What a person drew may lie on a newer model's region: the union counts it once.
            assert sum(figures[column] for figures in facts.values()) <= total * (1 + 1e-6)
            assert np.isfinite(total)


QUICK = settings(max_examples=5, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=25, stateful_step_count=20)


def test_after_any_order_of_steps_no_work_is_lost_and_every_edit_is_reported() -> None:
    run_state_machine_as_test(Review, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_many_long_orders_of_steps_no_work_is_lost_and_every_edit_is_reported() -> None:
    run_state_machine_as_test(Review, settings=LONG)
