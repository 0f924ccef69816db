"""Cost: what was not given is not shown, what was assumed says so, and no saving without a control arm."""

from __future__ import annotations

import pytest

from wsi_pipeline.config import Costs
from wsi_pipeline.measures import not_measured, review_cost
from wsi_pipeline.states import Source

RATES = Costs(currency="CHF", pathologist_per_hour=120, compute_per_hour=0.6, manual_minutes_per_slide=30)


def test_time_by_rate_is_the_cost() -> None:
    cost = review_cost(RATES, active_s=5400, reviewed_s=3600, reviewed=4, compute_s=1800)
    assert cost["currency"] == "CHF"
    assert cost["pathologist"] == pytest.approx(180)
    assert cost["compute"] == pytest.approx(0.3)
    assert cost["total"] == pytest.approx(180.3)
    # Slides that are not finished cost time, too, but are no slides yet.
    assert cost["per_slide"] == pytest.approx(30)
    assert cost["source"] == "measured"


def test_what_is_not_given_is_not_shown() -> None:
    cost = review_cost(Costs(pathologist_per_hour=100), active_s=3600, compute_s=60)
    assert cost == {"currency": "EUR", "source": "measured", "rates": "configuration", "pathologist": 100, "total": 100}


@pytest.mark.parametrize(
    ("rates", "active_s", "reason"), [(RATES, None, "measured time"), (Costs(), 60.0, "costs.pathologist_per_hour")]
)
def test_without_time_or_rate_there_is_no_cost_but_a_reason(rates: Costs, active_s: float | None, reason: str) -> None:
    cost = review_cost(rates, active_s=active_s)
    assert cost["status"] == "not measured"
    assert reason in cost["reason"]
    assert "total" not in cost


def test_a_cost_of_simulated_time_is_simulated() -> None:
    assert review_cost(RATES, active_s=1, source=Source.SIMULATED)["source"] == "simulated"


def test_drawing_by_hand_is_assumed_and_never_becomes_a_saving() -> None:
    cost = review_cost(RATES, active_s=60, reviewed_s=60, reviewed=1)
    assert cost["assumed"] == {"label": "assumed", "manual_minutes_per_slide": 30, "manual_per_slide": 60}
    assert not any("saving" in key for key in cost)


def test_an_assumption_without_a_rate_has_no_price() -> None:
    cost = review_cost(Costs(manual_minutes_per_slide=12), active_s=None)
    assert cost["assumed"] == {"label": "assumed", "manual_minutes_per_slide": 12}


def test_not_measured_always_says_why() -> None:
    assert not_measured("no log") == {"status": "not measured", "reason": "no log"}
