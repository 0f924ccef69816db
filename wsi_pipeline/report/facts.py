"""What a run directory knows, as frozen records. Nothing is computed here and no gap is filled."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from wsi_pipeline.objects import RGB
from wsi_pipeline.report.numbers import counted, known
from wsi_pipeline.report.reading import mapping, text, texts
from wsi_pipeline.states import ImageState, Source

# What the collection calls objects without a class.
UNCLASSIFIED = "Unclassified"
GREY: RGB = (120, 120, 120)

# In the order of the page: from what was left alone to what was made anew.
CHANGES: Mapping[str, str] = {
    "untouched": "kept as predicted",
    "moved": "moved",
    "edited": "outline edited",
    "reclassified": "class changed",
    "split": "split",
    "merged": "merged",
    "deleted": "deleted",
    "added": "added by hand",
}


class Status(StrEnum):
    """How far one slide has come, in the words of the page, from finished to not begun."""

    REVIEWED = "reviewed"
    IN_PROGRESS = "in progress"
    TODO = "to do"
    PREDICTED = "not handed out"
    QUEUED = "not predicted"
    LEFT_OUT = "left out"
    FAILED = "failed"

    @property
    def order(self) -> int:
        return list(Status).index(self)


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Prediction against correction for one class; areas in µm², None where a measure is not defined.

    `predictable` tells whether the model knows the class: where it does not, agreement with it means nothing.
    """

    name: str
    predictable: bool
    area_before: float | None
    area_after: float | None
    kept: float | None
    removed: float | None
    added: float | None
    dice: float | None
    iou: float | None
    surface_dice: float | None
    hd95_um: float | None

    @classmethod
    def of(cls, name: str, raw: Mapping[str, Any], known_classes: Collection[str]) -> ClassFigures:
        return cls(
            name=name,
            predictable=name in known_classes if known_classes else name != UNCLASSIFIED,
            area_before=known(raw.get("area_before_um2")),
            area_after=known(raw.get("area_after_um2")),
            kept=known(raw.get("kept_um2")),
            removed=known(raw.get("removed_um2")),
            added=known(raw.get("added_um2")),
            dice=known(raw.get("dice")),
            iou=known(raw.get("iou")),
            surface_dice=known(raw.get("surface_dice")),
            hd95_um=known(raw.get("hd95_um")),
        )


@dataclass(frozen=True, slots=True)
class Review:
    """What metrics.json says about one slide."""

    reviewed: bool
    state: str | None
    counts: Mapping[str, int]
    classes: tuple[ClassFigures, ...]
    active_s: float | None
    time_source: str | None
    unclassified: int
    rater: str | None
    batch: str | None
    arm: str | None
    tiles: tuple[int, int] | None = None
    """Review tiles that were judged, and that the image shows; None where nobody counted them, or it shows none."""

    @classmethod
    def of(cls, raw: Mapping[str, Any], known_classes: Collection[str]) -> Review:
        judged, shown = (_count(mapping(raw.get("tiles")).get(key)) or 0 for key in ("judged", "shown"))
        return cls(
            reviewed=raw.get("reviewed") is True,
            state=text(raw.get("state")),
            counts=counts_of(raw.get("counts")),
            classes=classes_of(raw.get("classes"), known_classes),
            active_s=known(raw.get("active_s")),
            time_source=text(raw.get("time_source")),
            unclassified=_count(raw.get("unclassified")) or 0,
            rater=text(raw.get("rater")),
            batch=text(raw.get("batch")),
            arm=text(raw.get("arm")),
            tiles=(judged, shown) if shown else None,
        )

    def total(self, field: str) -> float | None:
        """Sum of an area over the classes; None when no class has it."""
        return total(getattr(c, field) for c in self.classes)

    def lowest(self, field: str) -> float | None:
        """The lowest value of a measure over the classes that the model knows; None where none has it."""
        values = (getattr(c, field) for c in self.classes if c.predictable)
        return min((v for v in values if v is not None), default=None)

    @property
    def changed_um2(self) -> float | None:
        """Area removed plus area added, over all classes."""
        return total((self.total("removed"), self.total("added")))


@dataclass(frozen=True, slots=True)
class Summary:
    """What prediction found on one slide; areas in mm²."""

    tissue_mm2: float | None
    regions: int | None
    vertices: int | None
    area_mm2: Mapping[str, float]
    blocks: Mapping[str, int]
    flags: tuple[str, ...]
    tiles_flagged: int | None

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Summary:
        areas = mapping(raw.get("area_mm2"))
        return cls(
            tissue_mm2=known(raw.get("tissue_mm2")),
            regions=_count(raw.get("regions")),
            vertices=_count(raw.get("vertices")),
            area_mm2={str(k): value for k, v in areas.items() if (value := known(v)) is not None},
            blocks=counts_of(raw.get("blocks")),
            flags=texts(raw.get("flags")),
            tiles_flagged=_count(raw.get("tiles_flagged")),
        )


@dataclass(frozen=True, slots=True)
class Slide:
    """One slide of the cohort: size in level-0 px, mpp in µm per px.

    `snapshots` are what was handed out of it, as paths from the run directory, that of the reading in `review` last;
    `alarm` is why the collection left it out.
    """

    slide_id: str
    name: str
    state: str
    reason: str | None
    uri: str | None
    width: int | None
    height: int | None
    mpp: float | None
    mpp_source: str | None
    patient: str | None
    site: str | None
    scanner: str | None
    tissue: str | None
    summary: Summary | None
    review: Review | None
    snapshots: tuple[str, ...]
    alarm: str | None
    handed_out: date | None

    @property
    def status(self) -> Status:
        if self.state == "failed":
            return Status.FAILED
        if self.alarm is not None:
            return Status.LEFT_OUT
        if self.review is not None and self.review.reviewed:
            return Status.REVIEWED
        if self.review is not None and self.review.state == ImageState.IN_PROGRESS:
            return Status.IN_PROGRESS
        if self.snapshots or self.review is not None:
            return Status.TODO
        return Status.PREDICTED if self.state == "done" else Status.QUEUED

    @property
    def reviewed(self) -> Review | None:
        """The review, once it is finished: before, an untouched object has not been judged."""
        return self.review if self.status is Status.REVIEWED else None


@dataclass(frozen=True, slots=True)
class Reading:
    """One image of one rater in one batch; `monday` is that of the week of the rater's last own action in it."""

    slide_id: str
    review: Review
    monday: date | None
    handed_out: date | None

    @property
    def status(self) -> Status:
        if self.review.reviewed:
            return Status.REVIEWED
        return Status.IN_PROGRESS if self.review.state == ImageState.IN_PROGRESS else Status.TODO

    @property
    def assisted(self) -> bool:
        return self.review.arm != "manual"


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run directory.

    `raters` are their real names, which never reach the page: see `pseudonyms`. `last_touched` is the day of the last
    own action of the rater on each slide, by the event logs; `touched_readings` is the same by slide, batch and rater.
    `batch_days` says when a batch was handed out, by its name and rater.
    """

    name: str
    run_id: str
    model: Mapping[str, Any]
    runtime: Mapping[str, Any]
    versions: Mapping[str, str]
    config: Mapping[str, Any]
    colors: Mapping[str, RGB]
    slides: tuple[Slide, ...]
    metrics: Mapping[str, Any]
    sources: Mapping[str, str]
    raters: tuple[str, ...]
    dates: tuple[str, ...]
    last_touched: Mapping[str, date]
    touched_readings: Mapping[tuple[str, str, str], date]
    batch_days: Mapping[tuple[str, str], date]
    purpose: str
    show_raters: bool
    notes: tuple[str, ...]
    learning: Mapping[str, Mapping[str, Any]]
    flagged: tuple[Mapping[str, Any], ...]
    files: Mapping[str, str]
    problems: tuple[str, ...]

    @property
    def reviewed(self) -> tuple[Slide, ...]:
        return tuple(s for s in self.slides if s.reviewed is not None)

    @property
    def reviewed_words(self) -> str:
        """What sums are over: `12 reviewed slides`, in a study the readings of the assisted arm."""
        if not self.is_study:
            return counted(len(self.reviewed), "reviewed slide")
        readings = [r for r in self.readings if r.review.reviewed and r.assisted]
        slides = len({reading.slide_id for reading in readings})
        return f"{counted(len(readings), 'reviewed, assisted reading')} of {counted(slides, 'slide')}"

    @property
    def simulated(self) -> tuple[str, ...]:
        """What of this run was simulated."""
        return tuple(what for what, source in self.sources.items() if source == Source.SIMULATED)

    @property
    def source(self) -> str:
        """Where the corrections come from."""
        return self.sources.get("corrections", "not stated")

    @property
    def weeks(self) -> dict[str, date]:
        """The Monday of the week in which each slide was last worked on."""
        return {slide_id: day - timedelta(days=day.weekday()) for slide_id, day in self.last_touched.items()}

    @property
    def pseudonyms(self) -> dict[str, str]:
        """`Rater A`, `Rater B`, ...: in an order that says nothing about the name."""
        ordered = sorted(self.raters, key=lambda name: hashlib.sha256(f"{self.run_id}\n{name}".encode()).digest())
        return {name: f"Rater {_letters(number)}" for number, name in enumerate(ordered)}

    @property
    def tolerance_um(self) -> float | None:
        return known(self.metrics.get("tolerance_um"))

    @property
    def time(self) -> Mapping[str, Any]:
        return mapping(self.metrics.get("time"))

    @property
    def cost(self) -> Mapping[str, Any]:
        return mapping(self.metrics.get("cost"))

    @property
    def saving(self) -> Mapping[str, Any]:
        return mapping(self.metrics.get("saving"))

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Every image that was handed out and collected, in all arms; in a study a slide has several."""
        images = self.metrics.get("images")
        classes = model_classes(self.model)
        return tuple(self._reading(mapping(raw), classes) for raw in (images if isinstance(images, list) else ()))

    def _reading(self, raw: Mapping[str, Any], known_classes: Collection[str]) -> Reading:
        slide_id = text(raw.get("slide_id")) or ""
        review = Review.of(raw, known_classes)
        batch, rater = review.batch or "", review.rater or ""
        day = self.touched_readings.get((slide_id, batch, rater))
        monday = None if day is None else day - timedelta(days=day.weekday())
        return Reading(slide_id, review, monday, self.batch_days.get((batch, rater)))

    @property
    def is_study(self) -> bool:
        """Whether slides were handed out more than once: then readings are what is done or left, not slides."""
        readings = self.readings
        return len(readings) > len({reading.slide_id for reading in readings})

    @property
    def model_id(self) -> str | None:
        return text(self.model.get("id"))

    @property
    def model_name(self) -> str | None:
        return text(self.model.get("name")) or self.model_id

    def setting(self, section: str, key: str) -> Any:
        """One value of the configuration that the run was made with."""
        return mapping(self.config.get(section)).get(key)


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    head, last = divmod(number, 26)
    return (_letters(head - 1) if head else "") + chr(ord("A") + last)


def counts_of(raw: object) -> dict[str, int]:
    """A mapping of names to whole numbers; what is none is left out."""
    return {str(k): count for k, v in mapping(raw).items() if (count := _count(v)) is not None}


def classes_of(raw: object, known_classes: Collection[str]) -> tuple[ClassFigures, ...]:
    """Figures per class, in the order of the file; `known_classes` are those that the model predicts."""
    return tuple(ClassFigures.of(str(name), mapping(values), known_classes) for name, values in mapping(raw).items())


def model_classes(model: Mapping[str, Any]) -> dict[str, RGB]:
    """Names and colours of the classes that the model predicts; empty where run.json does not tell."""
    colors: dict[str, RGB] = {}
    for entry in map(mapping, model.get("classes") or ()):
        name, color = text(entry.get("name")), entry.get("color")
        if name and not entry.get("background") and isinstance(color, list) and len(color) == 3:
            colors[name] = (int(color[0]), int(color[1]), int(color[2]))
    return colors


def total(values: Any) -> float | None:
    """Sum of what is there; None when nothing is."""
    present = [v for v in values if v is not None]
    return sum(present) if present else None


def _count(value: object) -> int | None:
    number = known(value)
    return None if number is None else round(number)
