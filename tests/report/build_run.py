"""Builds a run directory as the other rooms write it: real pictures, polygons and tables, equal for equal seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.files import sha256_bytes, write_json, write_text
from wsi_pipeline.objects import META_RUN, RGB, Kind, PathObject, object_uuid
from wsi_pipeline.qupath.geojson import write_geojson
from wsi_pipeline.regions.tiles import ReviewTile, write_tiles
from wsi_pipeline.report.facts import CHANGES
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import EVENTS

RUN_ID = "5d0c7f31a9e24b86"
SIZE = (2560, 1792)  # level-0 px
MPP = 0.5
COLORS: Mapping[str, RGB] = {"Tumor": (200, 0, 0), "Stroma": (150, 200, 150)}
TOLERANCE_UM = 2.0
THUMBNAIL = 640


@dataclass(frozen=True, slots=True)
class Recipe:
    """What kind of run to build. Slides are numbered from 0; sets hold their numbers."""

    slides: int = 6
    classes: tuple[str, ...] = ("Tumor",)
    source: str = "measured"
    failed: frozenset[int] = frozenset()
    queued: frozenset[int] = frozenset()
    todo: frozenset[int] = frozenset()
    in_progress: frozenset[int] = frozenset()
    reachable: frozenset[int] = frozenset()
    names: Mapping[int, str] | None = None
    timed: bool = True
    cost: bool = True
    collected: bool = True
    alarmed: frozenset[int] = frozenset()
    oddities: tuple[str, ...] = ()
    learned: bool = False
    pictures: bool = True
    picture_size: tuple[int, int] = (640, 448)
    seed: int = 7
    raters: tuple[str, ...] = ("rater-1",)
    weeks: int = 0
    saving: Mapping[str, Any] | None = None
    confidence: Mapping[str, Any] | None = None
    privacy: Mapping[str, Any] | None = None

    def rater(self, number: int) -> str:
        return self.raters[number % len(self.raters)]

    def batch(self, number: int) -> str:
        return f"batch-{number % len(self.raters) + 1}"

    def slide_id(self, number: int) -> str:
        return (self.names or {}).get(number, f"case-{number:03d}-{sha256_bytes(str(number).encode())[:8]}")


def build_run(root: Path, recipe: Recipe | None = None) -> RunDir:
    """Write everything below `root`, which is made."""
    recipe = recipe or Recipe()
    run = RunDir(root)
    records: dict[str, Any] = {}
    reviews: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for number in range(recipe.slides):
        slide_id = recipe.slide_id(number)
        records[slide_id] = _record(run, recipe, number)
        if number in recipe.failed | recipe.queued:
            continue
        before = _predicted(recipe, number, slide_id)
        _write_slide(run, recipe, number, slide_id, before)
        if not recipe.collected or number in recipe.alarmed:
            continue
        reviewed = number not in recipe.todo | recipe.in_progress
        changes = _corrected(recipe, number, before) if reviewed else [(o, o, "untouched") for o in before]
        after = [new for _, new, _ in changes if new is not None]
        write_geojson(run.review / "corrected" / f"{slide_id}.geojson", after, COLORS)
        reviews[slide_id] = _review(recipe, number, before, after, changes, reviewed)
        rows += [_row(recipe, number, change, reviewed) for change in changes]
    write_json(run.run_json, _run_json(recipe, records))
    predicted = [s for s, r in records.items() if r["state"] == "done"]
    if recipe.collected:
        _write_handout(run, recipe, predicted)
        write_json(run.metrics, _metrics(recipe, reviews))
        _write_rows(run.corrections, rows)
        if recipe.timed:
            _write_time(run, recipe, reviews)
    if recipe.learned:
        write_json(run.root / "learning" / "promotion.json", _learning(recipe))
    return run


def tissue_picture(width: int, height: int, seed: int, *, tumour: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """A picture with the colours of H&E: glass, pink tissue, blue nuclei, denser where `tumour` is; uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    coarse = ndimage.zoom(rng.normal(size=(6, 8)), (height / 6, width / 8), order=3)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    tissue = np.clip((1.05 - np.hypot(x * 1.1, y * 1.15) + 0.16 * coarse) * 12, 0, 1)
    grain = ndimage.gaussian_filter(rng.normal(size=(height, width)), max(width / 320, 0.7))
    nuclei = ndimage.gaussian_filter(rng.random((height, width)), max(width / 700, 0.5))
    dense = np.full((height, width), 0.9) if tumour is None else np.where(tumour, 0.55, 0.93)
    blue = np.clip((nuclei - np.quantile(nuclei, dense.mean())) * 25 + np.where(dense < 0.7, 0.45, 0), 0, 1)
    pink = np.array([226, 160, 196]) + 18 * (grain / grain.std())[..., None]
    purple = np.array([112, 74, 150])
    stained = pink * (1 - blue[..., None]) + purple * blue[..., None]
    glass = np.array([244, 242, 243])
    picture = glass * (1 - tissue[..., None]) + stained * tissue[..., None]
    rounded: NDArray[np.uint8] = np.clip(picture, 0, 255).astype(np.uint8)
    return rounded


def _blob(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> BaseGeometry:
    """A round shape with a wavy outline."""
    angles = np.linspace(0, 2 * math.pi, 120, endpoint=False)
    waves = sum(rng.normal(0, 0.16 / k) * np.cos(k * angles + rng.uniform(0, 2 * math.pi)) for k in range(2, 7))
    r = radius * (1 + waves)
    shape = Polygon(np.column_stack([centre[0] + r * np.cos(angles), centre[1] + r * np.sin(angles)]))
    return shape if shape.is_valid else shape.convex_hull


def _predicted(recipe: Recipe, number: int, slide_id: str) -> list[PathObject]:
    rng = np.random.default_rng((recipe.seed, number))
    width, height = SIZE
    shapes: list[tuple[str, BaseGeometry]] = []
    for _ in range(int(rng.integers(5, 11))):
        centre = (width * rng.uniform(0.22, 0.78), height * rng.uniform(0.22, 0.78))
        radius = float(rng.uniform(60, 260))
        shape: BaseGeometry = _blob(rng, centre, radius)
        if radius > 180:
            shape = shape.difference(_blob(rng, centre, radius / 4))
        name = recipe.classes[int(rng.integers(len(recipe.classes)))]
        if all(shape.distance(other) > 12 for _, other in shapes):
            shapes.append((name, shape))
    return [_object(slide_id, name, shape) for name, shape in shapes]


def _object(slide_id: str, name: str, shape: BaseGeometry) -> PathObject:
    shape = shapely.set_precision(shape, 0.01)
    return PathObject(
        uuid=object_uuid(RUN_ID, slide_id, name, shape),
        kind=Kind.ANNOTATION,
        geometry=shape,
        path_class=name,
        metadata={META_RUN: RUN_ID},
    )


Change = tuple[PathObject | None, PathObject | None, str]


def _corrected(recipe: Recipe, number: int, before: Sequence[PathObject]) -> list[Change]:
    """What a reviewer did to each object, and one added by hand on every second slide."""
    rng = np.random.default_rng((recipe.seed, number, 1))
    changes: list[Change] = []
    for item in before:
        draw = rng.random()
        shape = item.geometry
        assert shape is not None
        if draw < 0.45:
            changes.append((item, item, "untouched"))
        elif draw < 0.8:
            x, y = shapely.get_coordinates(shape.boundary)[int(rng.integers(20))]
            bite = _blob(rng, (float(x), float(y)), float(rng.uniform(30, 110)))
            edited = shape.union(bite) if rng.random() < 0.5 else shape.difference(bite)
            parts = [p for p in shapely.get_parts(edited) if p.area > 500]
            new = shapely.set_precision(shapely.union_all(parts), 0.01)
            changes.append((item, replace(item, geometry=new), "edited"))
        elif draw < 0.87 and len(recipe.classes) > 1:
            other = next(c for c in recipe.classes if c != item.path_class)
            changes.append((item, replace(item, path_class=other), "reclassified"))
        else:
            changes.append((item, None, "deleted"))
    if number % 2 == 0:
        shape = _blob(rng, (SIZE[0] * 0.5, SIZE[1] * 0.18), 90.0)
        changes.append((None, _object(f"{number}-by-hand", recipe.classes[0], shape), "added"))
    return changes


def _record(run: RunDir, recipe: Recipe, number: int) -> dict[str, Any]:
    slide_id = recipe.slide_id(number)
    state = "failed" if number in recipe.failed else "queued" if number in recipe.queued else "done"
    reason = (
        f"{slide_id}: the pyramid is truncated after 3 of 9 levels; copy the slide again" if state == "failed" else None
    )
    folder = run.root.parent / "slides"
    return {
        "state": state,
        "reason": reason,
        "uri": str(folder / f"{slide_id}.tif"),
        "name": f"{slide_id}.tif",
        "width": SIZE[0],
        "height": SIZE[1],
        "mpp": MPP,
        "mpp_source": "config" if number % 5 == 4 else "file",
        "patient": f"P{number // 2 + 1:02d}",
        "site": "North",
        "scanner": None,
    }


def _write_slide(run: RunDir, recipe: Recipe, number: int, slide_id: str, before: Sequence[PathObject]) -> None:
    folder = run.slide(slide_id)
    write_geojson(folder.regions, before, COLORS)
    areas: dict[str, float] = {name: 0.0 for name in recipe.classes}
    for item in before:
        assert item.geometry is not None
        areas[str(item.path_class)] += item.geometry.area * MPP**2 / 1e6
    tiles = _tiles(recipe, number, slide_id)
    write_tiles(folder.tiles, tiles)
    summary = {
        "schema": 1,
        "slide_id": slide_id,
        "width": SIZE[0],
        "height": SIZE[1],
        "mpp": MPP,
        "downsample": 2.0,
        "tissue_mm2": 0.71 + 0.013 * number,
        "regions": len(before),
        "vertices": int(sum(shapely.get_num_coordinates(o.geometry) for o in before)),
        "area_mm2": areas,
        "blocks": {"done": 3, "background": 1, "failed": 1 if number == 3 else 0},
        "flags": ["41 % of the predicted area lies on glass"] if number == 3 else [],
        "tiles_flagged": sum(t.flagged for t in tiles),
    }
    write_json(folder.summary, summary)
    if recipe.pictures:
        _write_pictures(run, recipe, number, slide_id, before)


def _write_pictures(run: RunDir, recipe: Recipe, number: int, slide_id: str, before: Iterable[PathObject]) -> None:
    width, height = recipe.picture_size
    scale = width / SIZE[0]
    union = shapely.union_all([o.geometry for o in before])
    y, x = np.mgrid[0:height:4, 0:width:4]
    inside = shapely.contains_xy(union, x / scale, y / scale)
    tumour = np.kron(inside, np.ones((4, 4), bool))[:height, :width]
    picture = tissue_picture(width, height, number, tumour=tumour)
    folder = run.slide(slide_id)
    image = Image.fromarray(picture)
    thumbnail = image.resize((THUMBNAIL, THUMBNAIL * SIZE[1] // SIZE[0]))
    folder.thumbnail.parent.mkdir(parents=True, exist_ok=True)
    thumbnail.save(folder.thumbnail, quality=85)
    thumbnail.save(folder.overview)
    if number in recipe.reachable:
        path = run.root.parent / "slides" / f"{slide_id}.tif"
        path.parent.mkdir(exist_ok=True)
        write_tiff(path, np.asarray(image.resize(SIZE)))


def write_tiff(path: Path, pixels: NDArray[np.uint8]) -> None:
    """A tiled JPEG TIFF that states its mpp."""
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        photometric="rgb",
        compression="jpeg",
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit=3,
    )


def _tiles(recipe: Recipe, number: int, slide_id: str) -> list[ReviewTile]:
    rng = np.random.default_rng((recipe.seed, number, 2))
    side = 512
    reasons = ("border unclear", "all Tumor, but not surely", "nothing predicted, yet Tumor is possible")
    tiles = []
    for rank in range(1, 9):
        unsure = 0.7 - 0.06 * rank
        tiles.append(
            ReviewTile(
                slide_id=slide_id,
                x=int(rng.integers(500, SIZE[0] - 500 - side)),
                y=int(rng.integers(400, SIZE[1] - 400 - side)),
                width=side,
                height=side,
                tissue_share=0.9,
                predicted_share=0.4,
                mean_probability=0.45,
                mean_uncertainty=unsure,
                score=0.9 * unsure,
                rank=rank,
                flagged=rank <= 4,
                reason=f"{reasons[rank % 3]} (uncertainty {100 * unsure:.0f} %)",
            )
        )
    return tiles


def _class_figures(name: str, before: Iterable[PathObject], after: Iterable[PathObject]) -> dict[str, float | None]:
    old, new = (shapely.union_all([o.geometry for o in objects if o.path_class == name]) for objects in (before, after))
    um2 = MPP**2
    kept = old.intersection(new).area * um2
    a, b = old.area * um2, new.area * um2
    reach = TOLERANCE_UM / MPP
    length = old.length + new.length
    near = 0.0
    if not old.is_empty and not new.is_empty:
        near = old.boundary.intersection(new.boundary.buffer(reach)).length
        near += new.boundary.intersection(old.boundary.buffer(reach)).length
    return {
        "area_before_um2": a,
        "area_after_um2": b,
        "kept_um2": kept,
        "removed_um2": a - kept,
        "added_um2": b - kept,
        "dice": 2 * kept / (a + b) if a + b else None,
        "iou": kept / (a + b - kept) if a + b else None,
        "surface_dice": near / length if length else None,
        "hd95_um": 3.4 if length else None,
    }


def _review(
    recipe: Recipe,
    number: int,
    before: Sequence[PathObject],
    after: Sequence[PathObject],
    changes: Sequence[Change],
    reviewed: bool,
) -> dict[str, Any]:
    kinds = [kind for _, _, kind in changes]
    state = "reviewed" if reviewed else "in_progress" if number in recipe.in_progress else "todo"
    return {
        "rater": recipe.rater(number),
        "batch": recipe.batch(number),
        "reviewed": reviewed,
        "state": state,
        "counts": {kind: kinds.count(kind) for kind in CHANGES},
        "tiles": {"shown": 12, "judged": 12 if reviewed else 5 if state == "in_progress" else 0, "flagged": 0},
        "unclassified": 0,
        "classes": {name: _class_figures(name, before, after) for name in recipe.classes},
        "active_s": 140.0 + 61.5 * (number % 5) if recipe.timed and reviewed and number != 2 else None,
        "time_source": ("simulated" if recipe.source == "simulated" else "events") if recipe.timed else None,
    }


_AREAS = ("area_before_um2", "area_after_um2", "kept_um2", "removed_um2", "added_um2")


def _metrics(recipe: Recipe, reviews: Mapping[str, Any]) -> dict[str, Any]:
    done = [r for r in reviews.values() if r["reviewed"]]
    counts: dict[str, int] = {}
    for review in done:
        for kind, n in review["counts"].items():
            counts[kind] = counts.get(kind, 0) + n
    classes = {}
    for name in recipe.classes:
        sums = {key: sum(r["classes"][name][key] for r in done) for key in _AREAS}
        whole = sums["area_before_um2"] + sums["area_after_um2"]
        kept = sums["kept_um2"]
        classes[name] = {
            **sums,
            "dice": 2 * kept / whole if whole else None,
            "iou": kept / (whole - kept) if whole else None,
            "surface_dice": None,
            "hd95_um": None,
        }
    active = sum(r["active_s"] or 0 for r in done)
    timed = sum(r["active_s"] is not None for r in done)
    time: dict[str, Any] = {"status": "not measured", "reason": "no event log was found in the project"}
    cost: dict[str, Any] = {"status": "not measured", "reason": "it needs a measured time"}
    if recipe.timed:
        time_source = "simulated" if recipe.source == "simulated" else "events"
        time = {
            "source": recipe.source,
            "time_source": time_source,
            "rule": "timeline-1, gaps capped at 300 s",
            "active_s": active,
            "active_s_cap60": active * 0.8,
            "active_s_cap100": active * 0.9,
            "slides": timed,
            "coverage": timed / max(len(done), 1),
        }
    if recipe.timed and recipe.cost:
        cost = {
            "source": "rates of the configuration, active time of the raters",
            "currency": "EUR",
            "total": active / 3600 * 90,
            "per_slide": active / 3600 * 90 / max(timed, 1),
            "slides_with_time": timed,
            "slides_reviewed": len(done),
            "included": ["pathologist"],
            "not_included": ["compute", "set-up", "storage"],
        }
    return {
        "schema": 1,
        "run_id": RUN_ID,
        "source": recipe.source,
        "tolerance_um": TOLERANCE_UM,
        "slides": dict(reviews),
        "totals": {"slides": len(reviews), "reviewed": len(done), "counts": counts, "classes": classes},
        "time": time,
        "cost": cost,
        "confidence": dict(recipe.confidence or {}),
        "saving": dict(recipe.saving)
        if recipe.saving
        else {
            "status": "not measured",
            "reason": "no slide was annotated without pre-annotations (there is no control arm)",
        },
        "alarms": [
            f"{recipe.slide_id(n)}: all 9 objects that were handed out are gone; restore it with `project restore`"
            for n in sorted(recipe.alarmed)
        ],
        "flags": list(recipe.oddities),
    }


def _row(recipe: Recipe, number: int, change: Change, reviewed: bool) -> dict[str, Any]:
    slide_id = recipe.slide_id(number)
    old, new, kind = change
    a = 0.0 if old is None or old.geometry is None else old.geometry.area * MPP**2
    b = 0.0 if new is None or new.geometry is None else new.geometry.area * MPP**2
    kept = 0.0
    if old is not None and new is not None and old.geometry is not None and new.geometry is not None:
        kept = old.geometry.intersection(new.geometry).area * MPP**2
    return {
        "slide_id": slide_id,
        "patient": "P01",
        "batch": recipe.batch(number),
        "rater": recipe.rater(number),
        "source": recipe.source,
        "reviewed": reviewed,
        "uuid_before": None if old is None else old.uuid,
        "uuid_after": None if new is None else new.uuid,
        "class_before": None if old is None else old.path_class,
        "class_after": None if new is None else new.path_class,
        "change": kind,
        "status": "changed" if kind != "untouched" else "accepted" if reviewed else "not_seen",
        "area_before_um2": a,
        "area_after_um2": b,
        "kept_um2": kept,
        "removed_um2": a - kept,
        "added_um2": b - kept,
        "iou": kept / (a + b - kept),
        "dice": 2 * kept / (a + b),
        "surface_dice": None,
        "hd95_um": None,
    }


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    table = pa.Table.from_pylist([dict(row) for row in rows]).replace_schema_metadata({"schema": "1"})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _write_time(run: RunDir, recipe: Recipe, reviews: Mapping[str, Any]) -> None:
    rows = [
        {
            "slide_id": slide_id,
            "batch": review["batch"],
            "rater": review["rater"],
            "active_s": review["active_s"],
            "visits": 1,
            "time_source": review["time_source"],
            "source": recipe.source,
            "rule": "timeline-1",
        }
        for slide_id, review in reviews.items()
        if review["active_s"] is not None
    ]
    _write_rows(run.time, rows)


def _write_handout(run: RunDir, recipe: Recipe, slides: Sequence[str]) -> None:
    """A batch for each rater: the first in `project/`, the others in folders of their own."""
    numbers = {recipe.slide_id(number): number for number in range(recipe.slides)}
    for index, rater in enumerate(recipe.raters):
        name = f"batch-{index + 1}"
        own = [slide_id for slide_id in slides if recipe.rater(numbers[slide_id]) == rater]
        project = run.project if index == 0 else run.root / "projects" / f"{name}-{rater}" / "project.qpproj"
        _write_batch(run, recipe, name, rater, project, own)
        if recipe.timed:
            reviewed = [s for s in own if numbers[s] not in recipe.todo] if recipe.weeks else own
            _write_log(project.parent / EVENTS / f"{rater}-0.jsonl", rater, reviewed, own, recipe)


def _write_batch(run: RunDir, recipe: Recipe, name: str, rater: str, project: Path, slides: Sequence[str]) -> None:
    batch = run.handout / name
    for slide_id in slides:
        source = run.slide(slide_id).regions
        target = batch / "snapshot" / f"{slide_id}.{RUN_ID}.geojson"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    plan = {
        "schema": 1,
        "batch": name,
        "rater": rater,
        "arm": "assisted",
        "project": project.relative_to(run.root).as_posix(),
        "slides": [
            {"slide_id": slide_id, "entry_id": i, "run_id": RUN_ID, "snapshot": f"snapshot/{slide_id}.{RUN_ID}.geojson"}
            for i, slide_id in enumerate(slides, start=1)
        ],
    }
    if recipe.weeks:
        plan["handed_out"] = "2026-04-27"
    write_json(batch / "plan.json", plan)


def _write_log(path: Path, rater: str, visited: Sequence[str], slides: Sequence[str], recipe: Recipe) -> None:
    """An event log from 12 May 2026 on, an hour's visit to each slide, over two days or the weeks of the recipe."""
    start = datetime(2026, 5, 12, 8, 30, tzinfo=UTC)
    span = 7.0 * recipe.weeks if recipe.weeks else 2.0
    lines: list[dict[str, Any]] = [{"type": "header", "schema": 1, "rater": rater, "qupath": "0.6.0"}]
    if recipe.source == "simulated":
        lines[0]["source"] = "simulated"
    steps = len(visited) if recipe.weeks else max(len(visited), 2)
    for i in range(steps):
        t = start + timedelta(days=span * i / max(steps - 1, 1))
        entry = slides.index(visited[i]) + 1 if i < len(visited) else i + 1
        for seq, kind in enumerate(("open", "edit", "save", "close")):
            moment = round((t + timedelta(minutes=15 * seq)).timestamp() * 1000)
            lines.append({"seq": 4 * i + seq, "t": moment, "type": kind, "image": str(entry)})
    write_text(path, "\n".join(orjson.dumps(line).decode() for line in lines) + "\n")


def _learning(recipe: Recipe) -> dict[str, Any]:
    """A decision as `learning.promote` makes it, with the scores as `learning.evaluate` gives them."""
    rng = np.random.default_rng((recipe.seed, 3))
    old = [round(float(v), 4) for v in rng.uniform(0.6, 0.9, 6)]
    new = [round(v + float(rng.normal(0.03, 0.03)), 4) for v in old]
    differences = np.subtract(new, old)
    mean, half = float(differences.mean()), 2.571 * float(differences.std(ddof=1)) / math.sqrt(6)

    def scores(values: Sequence[float]) -> list[dict[str, Any]]:
        return [{"slide_id": f"held-out-{i}", "group": f"H{i}", "mean_dice": v} for i, v in enumerate(values)]

    return {
        "schema": 1,
        "decision": {
            "promote": mean > half,
            "verdict": "better" if mean > half else "no difference shown",
            "difference": mean,
            "low": mean - half,
            "high": mean + half,
            "level": 0.95,
            "groups": 6,
            "improved": int((differences > 0).sum()),
            "unit": "patients",
            "old_model": "tumour-unet@3fa9c01d27be",
            "new_model": "tumour-unet-2@90c2aa7b1e44",
            "old_dice": float(np.mean(old)),
            "new_dice": float(np.mean(new)),
            "left_out": {"held-out-9": "tumour-unet-2@90c2aa7b1e44 was trained on it"},
            "source": recipe.source,
            "reason": "The old model stays until an interval excludes zero.",
        },
        "old": scores(old),
        "new": scores(new),
        "notes": ["Neighbouring pictures may come from one patient."],
    }


def _run_json(recipe: Recipe, records: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "run_id": RUN_ID,
        "config": {
            "regions": {"threshold": 0.5, "min_area_um2": 2000.0, "min_hole_um2": 1000.0, "simplify_um": 0.5},
            "review": {"tile_um": 256.0, "max_tiles": 40, "tolerance_um": TOLERANCE_UM, "idle_s": 300.0},
            "costs": {"currency": "EUR", "pathologist_per_hour": 90.0, "manual_minutes_per_slide": None},
            "privacy": dict(recipe.privacy or {}),
        },
        "versions": {"wsi-pipeline": "0.1.0", "python": "3.11.9", "shapely": "2.1.1", "torch": "2.8.0"},
        "model": {
            "id": "tumour-unet@3fa9c01d27be",
            "sha256": "3fa9c01d27be" + "0" * 52,
            "name": "tumour-unet",
            "classes": [{"name": name, "color": list(COLORS[name]), "background": False} for name in recipe.classes],
        },
        "runtime": {"device": "cpu", "runtime": "openvino", "precision": "float32"},
        "slides": dict(records),
    }
