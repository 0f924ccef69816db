"""Claims about quality: none can be made without what the suggestions alone score and what harm was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityClaim:
    """Quality with and without pre-annotation, beside the two figures without which it says nothing.

    Scores are of one measure (`measure`, such as "F1, IoU 0.5"), each in 0 to 1 and against the same reference.

    Attributes
    ----------
    suggestions
        Score of the untouched suggestions: what nobody's work would have given.
    harm_rate
        Share of right suggestions that were changed away from the truth, 0 to 1; `harmed` of `right`.
    reference
        What the scores are against. Agreement of assisted raters with each other or with the model is not accuracy.

    Raises
    ------
    ValueError
        A score lies outside 0 to 1, no suggestion was right so that harm cannot be told, or a name is empty.
    """

    measure: str
    reference: str
    assisted: float
    manual: float
    suggestions: float
    harmed: int
    right: int

    def __post_init__(self) -> None:
        for name in ("assisted", "manual", "suggestions"):
            value = getattr(self, name)
            if not (np.isfinite(value) and 0 <= value <= 1):
                raise ValueError(f"{name} is {value}: a score lies between 0 and 1")
        if not 0 <= self.harmed <= self.right or self.right == 0:
            raise ValueError(f"{self.harmed} of {self.right} right suggestions were harmed: the rate cannot be told")
        if not self.measure.strip() or not self.reference.strip():
            raise ValueError("a claim names its measure and what it was measured against")

    @property
    def harm_rate(self) -> float:
        """Share of right suggestions that were changed away from the truth."""
        return self.harmed / self.right

    @property
    def gain(self) -> float:
        """Assisted − manual, in units of the score."""
        return self.assisted - self.manual

    @property
    def words(self) -> str:
        """One sentence that cannot be quoted without its qualification."""
        change = "higher" if self.gain > 0 else "lower" if self.gain < 0 else "no different"
        difference = f"{abs(self.gain):.3f} {change}" if self.gain else change
        return (
            f"{self.measure} against {self.reference} is {difference} with pre-annotation ({self.assisted:.3f}, "
            f"without {self.manual:.3f}); the untouched suggestions score {self.suggestions:.3f}, and {self.harmed} of "
            f"{self.right} right suggestions ({self.harm_rate:.1%}) were changed away from the truth."
        )

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "measure": self.measure,
            "reference": self.reference,
            "assisted": self.assisted,
            "manual": self.manual,
            "suggestions": self.suggestions,
            "harmed": self.harmed,
            "right": self.right,
            "harm_rate": self.harm_rate,
            "words": self.words,
        }
