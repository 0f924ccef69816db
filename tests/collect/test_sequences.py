"""Any order of handouts, edits, new models, moves, restorations, deaths and collections, through real project files.

After every step: nothing that a person drew or changed is lost or altered, and every collection reports exactly the
edits that were made, and adds to the log of what was done exactly what is new.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import HealthCheck, Phase, settings
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
from shapely.geometry.base import BaseGeometry

from tests.collect.sheets import Key, Sheet, iou, shape_of
from tests.handout.made import CLASSES, COSTS, REVIEW, SETTINGS, files_below, objects_of, region, save, slide
from tests.handout.made import set_state as say
from tests.killing import killed_at
from wsi_pipeline import audit
from wsi_pipeline.collect import Change, collect
from wsi_pipeline.collect.images import on_the_snapshots_grid
from wsi_pipeline.collect.trail import digests_of
from wsi_pipeline.files import sha256_file
from wsi_pipeline.handout import hand_out, read_plans
from wsi_pipeline.handout.trail import RELOCATED, RESTORED, relocate_and_note, restore_and_note
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.history import history_of
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import META_SLIDE, REVIEW_VERDICT

Told = tuple[str, Key]
Said = tuple[str, str | None, str | None]
SLIDES = ("s1", "s2")
SPOTS = 4
TILES = 6
# A spot is alone in its column of the slide down to y = 1100; below are the drawings.
SPOT_Y, COLUMN, REACH = 600, 1000, 200
BRIDGE_Y = 1000
DRAWINGS_Y = 1300
PICK = st.integers(0, 40)
WHICH = st.sampled_from(SLIDES)
# Lines of the log that tell of a whole image, and not of what a person did to an object.
OF_FILES = {"handed_out", RESTORED, RELOCATED}
STEP = st.sampled_from([-90, -30, -3, 0, 3, 30, 90])


def spot_x(spot: int) -> int:
    return 400 + COLUMN * spot


class Review(RuleBasedStateMachine):
    """Two slides, their pathologist, models that come and go, and a machine that is switched off at the worst time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.run = RunDir(self.folder / "run")
        self.model = 0
        self.drawn = 0
        self.place = 0
        self.reviewed: set[str] = set()
        self.sheets: dict[str, Sheet] = {}
        self.before: dict[str, Sheet] = {}  # as each image was before the last edit, for undo
        self.states: dict[str, Sheet] = {}  # by id of the copy that would be made of it

    def teardown(self) -> None:
        try:
            self.sound_at_the_end()
        finally:
            self.remove()

    def sound_at_the_end(self) -> None:
        if self.sheets:
            self.hand_out_again()
            self.collect_now()

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    # ---- what models see

    @staticmethod
    def run_id(model: int) -> str:
        return f"{model:016x}"

    def predicted(self, slide_id: str, model: int) -> list[PathObject]:
        """Each model sees most of the spots, larger or smaller, and some in another class."""
        found = []
        for spot in range(SPOTS):
            if (model + spot) % 5 == 4:
                continue
            name = "Stroma" if (model + spot) % 7 == 3 else "Tumor"
            radius = 80 + 3 * (model % 5)
            found.append(region(slide_id, spot_x(spot), SPOT_Y, radius, name, self.run_id(model)))
        return found

    def give(self) -> None:
        slides = [
            slide(
                self.folder,
                s,
                regions=self.predicted(s, self.model),
                flagged=TILES,
                run_id=self.run_id(self.model),
            )
            for s in SLIDES
        ]
        result = hand_out(self.run, SETTINGS, CLASSES, slides)
        assert result.problems == []

    @initialize(dies=st.none() | st.integers(1, 60))
    def first_handout(self, dies: int | None) -> None:
        if dies is not None:
            killed_at(dies, self.give, self.folder)
        self.give()
        self.sheets = {s: Sheet(s) for s in SLIDES}
        self.sync()
        assert all(len(sheet.given) == len(self.predicted(s, 0)) for s, sheet in self.sheets.items())

    # ---- what is in the project, against what should be

    def entry_of(self, slide_id: str) -> int:
        images = NativeProject.open(self.run.project, read_only=True).images()
        return next(image.entry_id for image in images if image.metadata[META_SLIDE] == slide_id)

    def sync(self) -> None:
        """Take over what the pipeline did: it may only have exchanged what nobody had touched, all of it or nothing."""
        for slide_id, sheet in self.sheets.items():
            objects = objects_of(self.run, slide_id)
            now = {o.uuid: o for o in objects if o.kind is Kind.ANNOTATION}
            free = {u for u in sheet.marks if not sheet.is_touched(u)}
            offered = {o.uuid: o for model in (self.model - 1, self.model) for o in self.predicted(slide_id, model)}
            settled = sheet.settled()
            for u in sheet.given.keys() & sheet.marks.keys():
                sheet.marks[u].kept |= u not in free
            for u in sheet.marks.keys() - now.keys():
                assert u in free, f"{slide_id}: what a person had touched is gone"
                del sheet.given[u]
                sheet.remove(u)
            for u in now.keys() - sheet.marks.keys():
                assert u not in sheet.given, f"{slide_id}: what a person had deleted has come back"
                item = offered[u]
                assert all(iou(shape_of(item), shape_of(o)) < 0.5 for o in settled), "a decision was undone"
                sheet.given[u] = item
                sheet.put(item)
            self.remember(slide_id)

    def remember(self, slide_id: str) -> None:
        entry = self.entry_of(slide_id)
        data = self.run.project.parent / "data" / str(entry) / "data.qpdata"
        self.states[f"{entry}-{sha256_file(data)[:16]}"] = self.sheets[slide_id].copy()

    @invariant()
    def no_work_is_lost_or_altered(self) -> None:
        for slide_id, sheet in self.sheets.items():
            objects = objects_of(self.run, slide_id)
            now = {o.uuid: o for o in objects if o.kind is Kind.ANNOTATION}
            assert set(now) == set(sheet.marks)
            for u, mark in sheet.marks.items():
                there, left = now[u], mark.now
                for name in ("path_class", "name", "locked", "parent", "color"):
                    assert getattr(there, name) == getattr(left, name)
                assert dict(there.metadata) == dict(left.metadata)
                assert dict(there.measurements) == pytest.approx(dict(left.measurements))
                assert shapely.hausdorff_distance(shape_of(there), shape_of(left)) < 0.05
            judged = {o.uuid: o.measurements[REVIEW_VERDICT] for o in objects if REVIEW_VERDICT in o.measurements}
            assert judged == sheet.verdicts

    # ---- what a person does

    def pick(self, slide_id: str, at: int, wanted: Callable[[str], bool] = lambda u: True) -> str | None:
        found = [u for u in self.sheets[slide_id].marks if wanted(u)]
        return found[at % len(found)] if found else None

    def begin(self, slide_id: str) -> Sheet:
        self.before[slide_id] = self.sheets[slide_id].copy()
        return self.sheets[slide_id]

    def saved(self, slide_id: str) -> None:
        """QuPath saves the image: all of its objects, tiles with their verdicts too."""
        sheet = self.sheets[slide_id]
        tiles = [o for o in objects_of(self.run, slide_id) if o.kind is not Kind.ANNOTATION]
        judged = [
            replace(o, measurements={**_but_verdict(o), REVIEW_VERDICT: sheet.verdicts[o.uuid]})
            if o.uuid in sheet.verdicts
            else replace(o, measurements=_but_verdict(o))
            for o in tiles
        ]
        save(self.run, [*sheet.objects(), *judged], slide_id)
        self.remember(slide_id)

    def state(self, slide_id: str, word: str) -> None:
        if slide_id not in self.reviewed:
            say(self.run, word, slide_id)

    def is_in_place(self, slide_id: str, u: str) -> bool:
        """Handed out, and still mostly where and what it was: what is made of it then shows where it came from."""
        sheet = self.sheets[slide_id]
        if u not in sheet.given or sheet.children(u):  # a split or merge in QuPath has them lie elsewhere
            return False
        return iou(shape_of(sheet.marks[u].now), shape_of(sheet.given[u])) > 0.7

    @rule(s=WHICH, at=PICK, by=st.sampled_from([12.0, 25.0, 60.0]), adds=st.booleans())
    def brush(self, s: str, at: int, by: float, adds: bool) -> None:
        u = self.pick(s, at)
        if u is None:
            return
        mark = self.sheets[s].marks[u]
        if mark.made_of:
            # A part shrinks, what was merged grows: both still show what they were made of.
            by, adds = min(by, 12.0), len(mark.made_of) > 1
        old = shape_of(mark.now)
        stroke = Point(shapely.get_coordinates(old)[0]).buffer(by)
        shape = old.union(stroke) if adds else old.difference(stroke)
        if shape.geom_type != "Polygon" or shape.area < 0.3 * old.area or not self._stays_apart(u, s, shape):
            return
        if len(mark.made_of) == 1 and shape.area < 0.3 * shape_of(self.sheets[s].given[mark.made_of[0]]).area:
            return
        if u in self.sheets[s].given:
            before = shape_of(self.sheets[s].given[u])
            if iou(_centred(shape), _centred(before)) > 0.98 or iou(shape, before) > 0.98:
                return
        self.begin(s).brush(u, shape)
        self.saved(s)

    @rule(s=WHICH, at=PICK, x=STEP, y=STEP)
    def slip(self, s: str, at: int, x: int, y: int) -> None:
        u = self.pick(s, at, lambda u: not self.sheets[s].marks[u].made_of)
        if u is None or (x, y) == (0, 0):
            return
        old = shape_of(self.sheets[s].marks[u].now)
        if self._stays_apart(u, s, shapely.affinity.translate(old, x, y)):
            self.begin(s).move(u, x, y)
            self.saved(s)

    def _stays_apart(self, u: str, s: str, shape: BaseGeometry) -> bool:
        """No object leaves its column: what lies on a neighbour could be taken for a piece of it."""
        mark = self.sheets[s].marks[u]
        if mark.made_of or u not in self.sheets[s].given:
            x, y, right, bottom = shape_of(mark.now).bounds
            return bool(box(x - 15, y - 15, right + 15, bottom + 15).covers(shape)) and y > DRAWINGS_Y
        middle = shape_of(self.sheets[s].given[u]).centroid
        return bool(middle.buffer(REACH).covers(shape))

    @rule(s=WHICH, at=PICK, name=st.sampled_from(["Stroma", "Tumor", "Ignore*", None]))
    def classify(self, s: str, at: int, name: str | None) -> None:
        u = self.pick(s, at)
        if u is not None:
            self.begin(s).word(u, path_class=name)
            self.saved(s)

    @rule(s=WHICH, at=PICK, what=st.sampled_from(["name", "lock", "describe"]))
    def annotate(self, s: str, at: int, what: str) -> None:
        u = self.pick(s, at)
        if u is None:
            return
        now = self.sheets[s].marks[u].now
        words: dict[str, dict[str, object]] = {
            "name": {"name": "doubtful"},
            "lock": {"locked": not now.locked},
            "describe": {"metadata": {**now.metadata, "ANNOTATION_DESCRIPTION": "see level 2"}},
        }
        self.begin(s).word(u, **words[what])
        self.saved(s)

    @rule(s=WHICH, at=PICK, value=st.sampled_from([1.0, 2.0]))
    def judge_a_tile(self, s: str, at: int, value: float) -> None:
        tiles = sorted((o for o in objects_of(self.run, s) if o.kind is Kind.TILE), key=lambda o: shape_of(o).bounds)
        self.begin(s).verdicts[tiles[at % len(tiles)].uuid] = value
        self.saved(s)

    @rule(s=WHICH, at=PICK)
    def delete(self, s: str, at: int) -> None:
        u = self.pick(s, at)
        if u is None:
            return
        # Somebody who deletes is at work, and the image says so: without state or log it would be a loss.
        self.state(s, "in_progress")
        sheet = self.begin(s)
        for child in sheet.children(u):
            sheet.word(child, parent=None)
        sheet.remove(u)
        self.saved(s)

    @rule(s=WHICH, at=PICK)
    def split(self, s: str, at: int) -> None:
        u = self.pick(s, at, lambda u: self.is_in_place(s, u))
        if u is None:
            return
        item = self.sheets[s].marks[u].now
        x, y, right, bottom = shape_of(item).bounds
        middle = (x + right) / 2
        halves = [
            shape_of(item).intersection(h) for h in (box(x, y, middle - 1, bottom), box(middle + 1, y, right, bottom))
        ]
        before = shape_of(self.sheets[s].given[u])
        if any(h.geom_type != "Polygon" or h.intersection(before).area < 0.6 * h.area for h in halves):
            return
        sheet = self.begin(s)
        sheet.remove(u)
        for half in halves:
            sheet.put(self.new(half, item.path_class), [u])
        self.saved(s)

    @rule(s=WHICH, at=PICK, other=PICK)
    def merge(self, s: str, at: int, other: int) -> None:
        first = self.pick(s, at, lambda u: self.is_in_place(s, u))
        second = self.pick(s, other, lambda u: self.is_in_place(s, u) and u != first)
        if first is None or second is None:
            return
        sheet = self.begin(s)
        parts = [shape_of(sheet.marks[u].now) for u in (first, second)]
        # Below all other spots, so that the bridge covers none of them.
        ends = [part.representative_point() for part in parts]
        low, high = sorted(p.x for p in ends)
        legs = [box(p.x - 5, p.y, p.x + 5, BRIDGE_Y + 10) for p in ends]
        merged = shapely.union_all([*parts, *legs, box(low - 5, BRIDGE_Y, high + 5, BRIDGE_Y + 10)])
        for u in (first, second):
            sheet.remove(u)
        sheet.put(self.new(merged), [first, second])
        self.saved(s)

    def new(self, shape: BaseGeometry, name: str | None = "Tumor", parent: str | None = None) -> PathObject:
        self.drawn += 1
        return PathObject(str(uuid.UUID(int=self.drawn, version=4)), Kind.ANNOTATION, shape, name, parent=parent)

    @rule(s=WHICH)
    def draw(self, s: str) -> None:
        at = self.drawn % 100
        shape = Point(200 + 400 * (at % 9), DRAWINGS_Y + 100 + 140 * (at // 9)).buffer(50)
        self.begin(s).put(self.new(shape, None))
        self.saved(s)

    @rule(s=WHICH, at=PICK)
    def draw_inside(self, s: str, at: int) -> None:
        """A child of a prediction, as QuPath's hierarchy holds it."""
        u = self.pick(s, at, lambda u: u in self.sheets[s].given and not self.sheets[s].children(u))
        if u is None:
            return
        middle = shape_of(self.sheets[s].marks[u].now).representative_point()
        # Below the share of a region that makes what lies in it a piece of it, should the region go later.
        radius = min(8.0, 0.25 * shape_of(self.sheets[s].given[u]).area ** 0.5)
        self.begin(s).put(self.new(middle.buffer(radius), "Necrosis", parent=u))
        self.saved(s)

    @rule(s=WHICH, at=PICK)
    def sliver(self, s: str, at: int) -> None:
        u = self.pick(s, at, lambda u: u in self.sheets[s].given)
        if u is None:
            return
        _, y, right, bottom = shape_of(self.sheets[s].marks[u].now).bounds
        middle = (y + bottom) / 2
        sliver = box(right - 2, middle - 20, right + 20, middle + 20)
        # Beside the region as it was handed out: what lies in it could be a piece of it, should the region go later.
        if sliver.intersection(shape_of(self.sheets[s].given[u])).area < 0.5 * sliver.area:
            self.begin(s).put(self.new(sliver))
            self.saved(s)

    @precondition(lambda self: self.before)
    @rule(s=WHICH)
    def undo(self, s: str) -> None:
        if s in self.before:
            # What was deleted comes back, and somebody was at work: see `delete`.
            self.state(s, "in_progress")
            self.sheets[s] = self.before.pop(s)
            self.saved(s)

    @rule(s=WHICH)
    def finish(self, s: str) -> None:
        self.state(s, "reviewed")
        self.reviewed.add(s)

    # ---- what the pipeline does

    @rule()
    def hand_out_again(self) -> None:
        self.give()
        self.sync_after_handout()
        # And once more: then it changes no byte at all.
        before = files_below(self.run.root)
        self.give()
        assert files_below(self.run.root) == before

    @rule()
    def a_new_model(self) -> None:
        self.model += 1
        self.hand_out_again()

    def sync_after_handout(self) -> None:
        self.before.clear()
        self.sync()
        assert not self.interrupted()
        for slide_id, sheet in self.sheets.items():
            if slide_id in self.reviewed:
                continue
            # What is left out lies where a person has decided: on what was drawn, changed or deleted.
            offered = {o.uuid for o in self.predicted(slide_id, self.model)}
            assert all(m.kept or sheet.is_touched(u) for u, m in sheet.marks.items() if u not in offered)
            settled = sheet.settled()
            for item in self.predicted(slide_id, self.model):
                if item.uuid in sheet.given:
                    continue
                shape = shape_of(item)
                work = [m.now for u, m in sheet.marks.items() if m.kept or sheet.is_touched(u)]
                own = [shape_of(o) for o in work if o.path_class == item.path_class]
                drawn = shapely.union_all(own).intersection(shape).area
                near = [shape_of(o) for o in (*settled, *work)]
                assert drawn > 0.49 * shape.area or any(iou(shape, other) > 0.49 for other in near)

    @rule()
    def the_slides_move(self) -> None:
        self.move_slides(*self.next_place())
        self.sync()

    def next_place(self) -> tuple[str, str]:
        old = self.folder / ("slides" if self.place == 0 else f"place {self.place}")
        self.place += 1
        return str(old), str(self.folder / f"place {self.place}")

    def move_slides(self, old: str, new: str) -> None:
        assert relocate_and_note(self.run.project, old, new)

    @rule(at=PICK)
    def an_older_state_comes_back(self, at: int) -> None:
        copies = history_of(self.run.project)
        if copies:
            copy = copies[at % len(copies)]
            restore_and_note(self.run.project, copy.id)
            self.restored(copy.entry_id, copy.id)

    def restored(self, entry_id: int, copy_id: str) -> None:
        slide_id = next(s for s in SLIDES if self.entry_of(s) == entry_id)
        self.before.pop(slide_id, None)
        # What was lost by it is known to have been meant.
        self.state(slide_id, "in_progress")
        self.sheets[slide_id] = self.states[copy_id].copy()
        self.remember(slide_id)

    @rule(
        what=st.sampled_from(["hand out", "new model", "collect", "relocate", "restore"]),
        act=st.integers(1, 60),
        again=st.booleans(),
        at=PICK,
    )
    def the_machine_dies(self, what: str, act: int, again: bool, at: int) -> None:
        """In the midst of a call; then the same call again, or first other things."""
        if what == "collect":
            lines = self.lines_told()
            killed_at(act, lambda: collect(self.run, REVIEW, COSTS), self.folder)
            said, wanted = self.new_lines(lines)
            assert said.items() <= wanted.items()
        elif what == "relocate":
            old, new = self.next_place()
            killed_at(act, lambda: self.move_slides(old, new), self.folder)
            self.sync()
            slides = NativeProject.open(self.run.project, read_only=True).images()
            if any(old in image.uri.replace("%20", " ") for image in slides):
                self.move_slides(old, new)
            self.sync()
        elif what == "restore":
            copies = history_of(self.run.project)
            if not copies:
                return
            copy = copies[at % len(copies)]
            if not killed_at(act, lambda: restore_and_note(self.run.project, copy.id), self.folder) or again:
                restore_and_note(self.run.project, copy.id)
                self.restored(copy.entry_id, copy.id)
            else:
                self.as_it_was_or(copy.entry_id, copy.id)
        else:
            self.model += what == "new model"
            killed_at(act, self.give, self.folder)
            self.before.clear()
            self.sync()
            if again:
                self.hand_out_again()

    def as_it_was_or(self, entry_id: int, copy_id: str) -> None:
        data = self.run.project.parent / "data" / str(entry_id) / "data.qpdata"
        if copy_id.endswith(sha256_file(data)[:16]):
            self.restored(entry_id, copy_id)

    # ---- what is reported

    def interrupted(self) -> set[str]:
        return {s.slide_id for plan in read_plans(self.run) for s in plan.slides if not s.complete}

    @rule()
    def collect_now(self) -> None:
        before, lines = files_below(self.run.project.parent), self.lines_told()
        result = collect(self.run, REVIEW, COSTS)
        assert files_below(self.run.project.parent) == before, "collecting wrote into the project"
        waiting = self.interrupted()
        assert {alarm.partition(":")[0] for alarm in result.alarms} == waiting
        rows = pq.read_table(self.run.corrections).to_pylist()
        for slide_id, sheet in self.sheets.items():
            own = [row for row in rows if row["slide_id"] == slide_id]
            found = {(row["uuid_before"], row["uuid_after"]): Change(row["change"]) for row in own}
            assert len(found) == len(own)
            assert found == ({} if slide_id in waiting else sheet.expected())
            kept = "accepted" if slide_id in self.reviewed else "not_seen"
            assert all((row["status"] == kept) == (row["change"] == "untouched") for row in own)
            self.areas_add_up(result.metrics["slides"].get(slide_id), own)
        new, wanted = self.new_lines(lines)
        assert new == wanted
        assert audit.verify(self.run.root).problem is None
        lines = self.lines_told()
        collect(self.run, REVIEW, COSTS)
        assert self.lines_told() == lines

    @staticmethod
    def areas_add_up(facts: dict[str, dict[str, dict[str, float]]] | None, own: list[dict[str, float]]) -> None:
        for column in ("area_before_um2", "area_after_um2"):
            total = sum(row[column] for row in own)
            # What a person drew may lie on a newer model's region: the union counts it once.
            if facts is not None:
                assert sum(figures[column] for figures in facts["classes"].values()) <= total * (1 + 1e-6)
            assert np.isfinite(total)

    def new_lines(self, known: int) -> tuple[dict[Told, Said], dict[Told, Said]]:
        """What the log says beyond its first lines, and what it should: each object's change, before and after."""
        lines = [line for line in audit.read(self.run.root) if line["action"] not in OF_FILES]
        told: dict[Told, Said] = {}
        new: dict[Told, Said] = {}
        for number, line in enumerate(lines):
            key = line["image"], (line["facts"]["uuid_before"], line["facts"]["uuid_after"])
            (told if number < known else new)[key] = line["action"], line["before"], line["after"]
            assert line["actor"] == SETTINGS.rater
            assert line["time"]
        assert len(new) == max(0, len(lines) - known)
        told = {key: said for key, said in told.items() if said[0] != "reverted"}
        waiting = self.interrupted()
        now = {key: said for key, said in told.items() if key[0] in waiting}
        for slide_id, sheet in self.sheets.items():
            there = {o.uuid: o for o in on_the_snapshots_grid(objects_of(self.run, slide_id))}
            for (first, second), change in {} if slide_id in waiting else sheet.expected().items():
                if change is not Change.UNTOUCHED:
                    before = digests_of([sheet.given[first]])[0] if first else None
                    after = digests_of([there[second]])[0] if second else None
                    now[slide_id, (first, second)] = (str(change), before, after)
        wanted = {key: said for key, said in now.items() if told.get(key) != said}
        gone = {key: ("reverted", after, before) for key, (_, before, after) in told.items() if key not in now}
        return new, wanted | gone

    def lines_told(self) -> int:
        return sum(line["action"] not in OF_FILES for line in audit.read(self.run.root))


def _but_verdict(item: PathObject) -> dict[str, float]:
    return {name: value for name, value in item.measurements.items() if name != REVIEW_VERDICT}


def _centred(shape: BaseGeometry) -> BaseGeometry:
    x, y, _, _ = shape.bounds
    return shapely.affinity.translate(shape, -x, -y)


QUICK = settings(max_examples=4, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(
    QUICK, max_examples=12, stateful_step_count=80, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.target)
)


def test_after_any_order_of_steps_no_work_is_lost_and_every_edit_is_reported() -> None:
    run_state_machine_as_test(Review, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_long_orders_of_steps_no_work_is_lost_and_every_edit_is_reported() -> None:
    run_state_machine_as_test(Review, settings=LONG)
