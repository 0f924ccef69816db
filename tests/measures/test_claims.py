"""No claim of quality without the suggestions' own score and the harm rate."""

from __future__ import annotations

from typing import Any

import pytest

from wsi_pipeline.measures.claims import QualityClaim

FIGURES: dict[str, Any] = {
    "measure": "F1, IoU 0.5",
    "reference": "the adjudicated consensus",
    "assisted": 0.82,
    "manual": 0.78,
    "suggestions": 0.74,
    "harmed": 12,
    "right": 400,
}


def test_the_words_carry_what_qualifies_them() -> None:
    claim = QualityClaim(**FIGURES)
    assert claim.harm_rate == pytest.approx(0.03)
    assert claim.gain == pytest.approx(0.04)
    for part in ("0.040 higher", "suggestions score 0.740", "12 of 400", "3.0%", "consensus"):
        assert part in claim.words
    assert claim.as_json()["suggestions"] == 0.74


@pytest.mark.parametrize("missing", ["suggestions", "harmed", "right", "reference"])
def test_a_claim_cannot_be_built_without(missing: str) -> None:
    with pytest.raises(TypeError, match=missing):
        QualityClaim(**{k: v for k, v in FIGURES.items() if k != missing})


@pytest.mark.parametrize(
    "wrong",
    [
        {"suggestions": None},
        {"suggestions": float("nan")},
        {"assisted": 1.2},
        {"right": 0, "harmed": 0},
        {"harmed": 500},
        {"reference": " "},
    ],
)
def test_nor_with_figures_that_say_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        QualityClaim(**(FIGURES | wrong))


def test_a_loss_and_a_tie_are_said_as_they_are() -> None:
    assert "lower" in QualityClaim(**(FIGURES | {"assisted": 0.7})).words
    assert "no different" in QualityClaim(**(FIGURES | {"assisted": 0.78})).words
