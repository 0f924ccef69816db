"""How well a model did on a slide, as areas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wsi_pipeline.states import Source


@dataclass(frozen=True, slots=True)
class Overlap:
    """Areas of one class on one slide, in µm²: marked rightly, wrongly, and missed.

    Ratios are None where they are not defined (nothing there and nothing marked).
    """

    hit: float = 0.0
    wrong: float = 0.0
    missed: float = 0.0

    @property
    def truth(self) -> float:
        return self.hit + self.missed

    @property
    def dice(self) -> float | None:
        return _ratio(2 * self.hit, 2 * self.hit + self.wrong + self.missed)

    @property
    def iou(self) -> float | None:
        return _ratio(self.hit, self.hit + self.wrong + self.missed)

    @property
    def precision(self) -> float | None:
        return _ratio(self.hit, self.hit + self.wrong)

    @property
    def recall(self) -> float | None:
        return _ratio(self.hit, self.hit + self.missed)

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.hit + other.hit, self.wrong + other.wrong, self.missed + other.missed)

    def to_json(self) -> dict[str, float | None]:
        """The areas and the ratios."""
        return {**asdict(self), "dice": self.dice, "iou": self.iou, "precision": self.precision, "recall": self.recall}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


@dataclass(frozen=True, slots=True)
class SlideScore:
    """What a model did on one slide.

    Attributes
    ----------
    group
        The patient, where known, else the slide: slides of one patient are not independent.
    area_um2
        Known area that was looked at; NaN where nobody has counted it.
    classes
        By class name.
    """

    slide_id: str
    group: str
    area_um2: float
    classes: Mapping[str, Overlap]
    source: Source = Source.MEASURED

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice of the classes for which it is defined."""
        known = [overlap.dice for overlap in self.classes.values() if overlap.dice is not None]
        return sum(known) / len(known) if known else None

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "slide_id": self.slide_id,
            "group": self.group,
            "area_um2": self.area_um2,
            "source": str(self.source),
            "mean_dice": self.mean_dice,
            "classes": {name: overlap.to_json() for name, overlap in self.classes.items()},
        }
