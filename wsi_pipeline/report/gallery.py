"""The slides as pictures: prediction, correction and their difference as layers over the thumbnail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import RGB
from wsi_pipeline.report.facts import CHANGES, GREY, Run, Slide, Status
from wsi_pipeline.report.outlines import DETAIL, UNITS, Frame, Unions, class_unions, difference, path_data
from wsi_pipeline.report.pictures import Picture, Tile, crops, thumbnail
from wsi_pipeline.report.reading import Reader
from wsi_pipeline.report.thrift import Thrift
from wsi_pipeline.rundir import RunDir

# Outlines are never simplified further than this, in picture pixels.
COARSEST = 16.0


@dataclass(frozen=True, slots=True)
class Outline:
    """One path of a layer; `kind` names its look in the style sheet, `color` is CSS for looks by class."""

    kind: str
    label: str
    d: str
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """What one position of the switch shows."""

    key: str
    label: str
    outlines: tuple[Outline, ...]


@dataclass(frozen=True, slots=True)
class Plate:
    """One slide of the gallery."""

    slide: Slide
    picture: Picture | None
    view: tuple[int, int]
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]

    @property
    def counts(self) -> str:
        """What was done to the slide's objects, in words; empty before it was reviewed."""
        review = self.slide.reviewed
        if review is None:
            return ""
        return ", ".join(f"{n} {CHANGES.get(kind, kind)}" for kind, n in _ordered(review.counts) if n)


@dataclass(frozen=True, slots=True)
class Crop:
    """One flagged tile."""

    slide_id: str
    rank: int
    reason: str
    x: int
    y: int
    side_um: float | None
    picture: Picture | None
    view: tuple[int, int]
    frame: tuple[int, int, int, int]
    outlines: tuple[Outline, ...]


class Shapes:
    """Areas of prediction and correction per slide, each file read once."""

    def __init__(self, run: RunDir, reader: Reader) -> None:
        self._run = run
        self._reader = reader
        self._known: dict[str, tuple[Unions | None, Unions | None]] = {}
        self._differences: dict[str, tuple[BaseGeometry, ...] | None] = {}

    def of(self, slide: Slide) -> tuple[Unions | None, Unions | None]:
        """Unions by class in level-0 px: what was handed out (else predicted), and what it was corrected to.

        None for what there is no file of; a correction counts once its slide is at least in progress.
        """
        if slide.slide_id not in self._known:
            self._known[slide.slide_id] = self._before(slide), self._after(slide)
        return self._known[slide.slide_id]

    def difference(self, slide: Slide) -> tuple[BaseGeometry, ...] | None:
        """What was kept, removed and added, in level-0 px; None where prediction or correction is not on file."""
        if slide.slide_id not in self._differences:
            before, after = self.of(slide)
            known = None if before is None or after is None else difference(before, after)
            self._differences[slide.slide_id] = known
        return self._differences[slide.slide_id]

    def _before(self, slide: Slide) -> Unions | None:
        # The corrected outlines are of the reading in metrics.json, whose own snapshot is the last.
        snapshots = [self._run.root / snapshot for snapshot in reversed(slide.snapshots)]
        for path in (*snapshots, self._run.slide(slide.slide_id).regions):
            objects = self._reader.objects(path)
            if objects is not None:
                return class_unions(objects)
        return None

    def _after(self, slide: Slide) -> Unions | None:
        if slide.status not in {Status.REVIEWED, Status.IN_PROGRESS}:
            return None
        objects = self._reader.objects(self._run.review / "corrected" / f"{slide.slide_id}.geojson")
        return None if objects is None else class_unions(objects)


def by_change(slides: Iterable[Slide]) -> list[Slide]:
    """Most changed area first; then what is not reviewed yet, in the order of the cohort."""
    return sorted(slides, key=lambda s: -1.0 if s.reviewed is None else -(s.reviewed.changed_um2 or 0.0) - 2.0)


def plates(run: Run, folder: RunDir, shapes: Shapes, thrift: Thrift, start: int = 0) -> tuple[list[Plate], int]:
    """The slides of one page, from the one numbered `start` in order of change, and how many there are in all."""
    candidates = by_change(s for s in run.slides if s.state == "done")
    shown = candidates[start : start + thrift.plates]
    return [_plate(run, folder, shapes, slide, thrift) for slide in shown], len(candidates)


def _plate(run: Run, folder: RunDir, shapes: Shapes, slide: Slide, thrift: Thrift) -> Plate:
    before, after = shapes.of(slide)
    picture = thumbnail(slide, folder.slide(slide.slide_id), side=thrift.side, quality=thrift.quality)
    notes = [] if picture is None or picture.note is None else [picture.note]
    layers: tuple[Layer, ...] = ()
    if picture is not None:
        finished = slide.reviewed is not None
        detail = DETAIL
        changes = shapes.difference(slide) if finished else None
        layers = _layers(before, after, changes, picture.frame, run.colors, detail, finished=finished)
        while _length(layers) > thrift.path_characters and detail < COARSEST:
            detail *= 2
            layers = _layers(before, after, changes, picture.frame, run.colors, detail, finished=finished)
    if before is None:
        notes.append("No regions on file.")
    if slide.reviewed is None:
        notes.append("Not reviewed yet.")
    elif after is None:
        notes.append("The corrected outlines are not on file.")
    return Plate(slide, picture, (0, 0) if picture is None else picture.frame.view, layers, tuple(notes))


def _layers(
    before: Unions | None,
    after: Unions | None,
    changes: tuple[BaseGeometry, ...] | None,
    frame: Frame,
    colors: Mapping[str, RGB],
    detail: float,
    *,
    finished: bool,
) -> tuple[Layer, ...]:
    """Prediction and correction; their difference once the review is finished: before, nothing is kept for good."""
    layers = []
    if changes is not None:
        outlines = [
            Outline(kind, kind, d)
            for kind, shape in zip(("kept", "removed", "added"), changes, strict=True)
            if (d := path_data(shape, frame, detail=detail))
        ]
        layers.append(Layer("difference", "Difference", tuple(outlines)))
    if before is not None:
        layers.append(Layer("prediction", "Prediction", by_class(before, frame, colors, "predicted", detail)))
    if after is not None:
        label = "Correction" if finished else "Correction so far"
        layers.append(Layer("correction", label, by_class(after, frame, colors, "corrected", detail)))
    return tuple(layers)


def by_class(
    unions: Mapping[str, BaseGeometry], frame: Frame, colors: Mapping[str, RGB], kind: str, detail: float = DETAIL
) -> tuple[Outline, ...]:
    """One outline for each class, in the class's colour."""
    return tuple(
        Outline(kind, name, d, css(colors.get(name, GREY)))
        for name in sorted(unions)
        if (d := path_data(unions[name], frame, detail=detail))
    )


def flagged_tiles(run: Run, folder: RunDir, shapes: Shapes, thrift: Thrift) -> list[Crop]:
    """Crops of the tiles to look at first: the first of each slide, then the second, up to `thrift.crops`."""
    by_slide: dict[str, list[Mapping[str, object]]] = {}
    for row in run.flagged:
        by_slide.setdefault(str(row["slide_id"]), []).append(row)
    turns = sorted(
        ((turn, slide_id) for slide_id, rows in by_slide.items() for turn in range(len(rows))), key=lambda t: t[0]
    )[: thrift.crops]
    chosen: dict[str, int] = {}
    for turn, slide_id in turns:
        chosen[slide_id] = turn + 1
    slides = {slide.slide_id: slide for slide in run.slides}
    made = {
        slide_id: crops_of(run, folder, shapes, slides[slide_id], by_slide[slide_id][:count], thrift)
        for slide_id, count in chosen.items()
    }
    return [made[slide_id][turn] for turn, slide_id in turns]


def crops_of(
    run: Run,
    folder: RunDir,
    shapes: Shapes,
    slide: Slide,
    rows: Sequence[Mapping[str, object]],
    thrift: Thrift,
) -> list[Crop]:
    """Pictures of squares (rows with `x, y, width, height, rank, reason`) of one slide, with its outlines."""
    tiles = [Tile(*(_whole(row[key]) for key in ("x", "y", "width", "height"))) for row in rows]
    pictures = crops(slide, folder.slide(slide.slide_id), tiles, side=thrift.crop_side, quality=thrift.quality)
    before, after = shapes.of(slide)
    made = []
    for row, tile, picture in zip(rows, tiles, pictures, strict=True):
        frame = tile.surroundings if picture is None else picture.frame
        outlines = by_class(before or {}, frame, run.colors, "predicted")
        if after is not None:
            outlines += by_class(after, frame, run.colors, "corrected")
        made.append(
            Crop(
                slide_id=slide.slide_id,
                rank=_whole(row["rank"]),
                reason=str(row["reason"]),
                x=tile.x,
                y=tile.y,
                side_um=None if slide.mpp is None else tile.width * slide.mpp,
                picture=picture,
                view=frame.view,
                frame=_rectangle(tile, frame),
                outlines=outlines,
            )
        )
    return made


def _rectangle(tile: Tile, frame: Frame) -> tuple[int, int, int, int]:
    """The tile's own square inside its crop, in path units."""
    factor = frame.scale * UNITS
    values = (tile.x - frame.x, tile.y - frame.y, tile.width, tile.height)
    x, y, width, height = (round(v * factor) for v in values)
    return x, y, width, height


def css(color: RGB) -> str:
    """An RGB colour as the style sheet writes it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _length(layers: Iterable[Layer]) -> int:
    return sum(len(outline.d) for layer in layers for outline in layer.outlines)


def _ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Counts in the order of the page; kinds that it does not know come last."""
    order = list(CHANGES)
    return sorted(counts.items(), key=lambda item: (order.index(item[0]) if item[0] in order else len(order), item[0]))


def _whole(value: object) -> int:
    return int(str(value))
