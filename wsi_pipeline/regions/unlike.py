"""How unlike the training slides a place is: in colour and sharpness, and in what the network makes of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unlike:
    """Distances of a place from the training slides over their thresholds; None where nobody knows.

    Attributes
    ----------
    appearance
        Of colour, contrast and sharpness; above 1 is strange.
    word
        In which of these it differs most.
    structure
        Of the network's own features; above 1 is strange.
    """

    appearance: float | None = None
    word: str = "colour"
    structure: float | None = None

    @property
    def most(self) -> float | None:
        """The larger of the two distances."""
        known = [value for value in (self.appearance, self.structure) if value is not None]
        return max(known) if known else None

    @property
    def reason(self) -> str | None:
        """In plain words; None where it is strange in nothing."""
        named = ((self.appearance, self.word), (self.structure, "structure"))
        found = [word for value, word in named if is_strange(value)]
        return f"unlike the training slides in {' and '.join(found)}" if found else None


def is_strange(distance: float | None) -> bool | None:
    """Whether a distance over its threshold is strange; None where nobody knows."""
    return None if distance is None else distance > 1
