"""The ledger: sums by hand; what is not known is named, and says why."""

from __future__ import annotations

import pytest

from wsi_pipeline.config import Costs
from wsi_pipeline.measures.ledger import Basis, Told, Work, ledger

RATES = Costs(
    currency="CHF",
    pathologist_per_hour=120,
    reviewer_per_hour=100,
    adjudicator_per_hour=150,
    compute_per_hour=0.5,
    storage_per_gb_month=0.02,
    set_up=3000,
)


def test_each_amount_is_count_times_rate() -> None:
    work = Work(7200, 3600, 1800, 36_000, 500, slides=10, area_mm2=2000)
    found = ledger(RATES, work)
    assert found.amounts == {
        "pathologist": 240, "reviewer": 100, "adjudicator": 75, "compute": 5, "storage": 10, "set_up": 3000,
    }  # fmt: skip
    assert found.total == pytest.approx(3430)
    assert found.per_slide == pytest.approx(343)
    assert found.per_mm2 == pytest.approx(1.715)
    assert found.not_included == ()
    assert found.as_json()["currency"] == "CHF"


def test_what_has_no_rate_or_no_count_is_named_and_not_shown() -> None:
    found = ledger(Costs(pathologist_per_hour=100), Work(pathologist_s=3600, compute_s=60)).as_json()
    assert found == {
        "currency": "EUR",
        "included": ["pathologist"],
        "not_included": ["reviewer", "adjudicator", "compute", "storage", "set_up"],
        "pathologist": 100,
        "total": 100,
    }


def test_nothing_known_has_no_total() -> None:
    found = ledger(Costs(), Work(slides=3))
    assert "total" not in found.as_json()
    assert found.per_slide is None


def test_every_line_says_how_it_is_known_or_what_is_missing() -> None:
    told = {"pathologist": Told(Basis.SIMULATED, "by a program"), "storage": Told(Basis.MODELLED, "3 GB for a year")}
    work = Work(pathologist_s=3600, compute_s=0.0, storage_gb_months=36, told=told)
    rates = Costs(pathologist_per_hour=100, compute_per_hour=1, storage_per_gb_month=0.5, adjudicator_per_hour=1)
    lines = {line["name"]: line for line in (line.as_json() for line in ledger(rates, work).lines)}
    assert lines == {
        "pathologist": {"name": "pathologist", "basis": "simulated", "why": "by a program", "amount": 100},
        "reviewer": {"name": "reviewer", "basis": "not counted", "why": "nobody counted it"},
        "adjudicator": {"name": "adjudicator", "basis": "not counted", "why": "nobody counted it"},
        "compute": {"name": "compute", "basis": "measured", "why": "", "amount": 0},
        "storage": {"name": "storage", "basis": "modelled", "why": "3 GB for a year", "amount": 18},
        "set_up": {"name": "set_up", "basis": "not counted", "why": "`costs.set_up` is not given"},
    }
    assert ledger(Costs(set_up=5), work).lines[-1].basis is Basis.ASSUMED


def test_a_count_without_a_price_is_never_an_amount_of_nothing() -> None:
    told = {"compute": Told(why="an hour on 3 slides")}
    line = ledger(Costs(), Work(compute_s=3600, told=told)).lines[3]
    assert (line.amount, line.basis) == (None, Basis.NOT_COUNTED)
    assert line.why == "`costs.compute_per_hour` is not given; an hour on 3 slides"


def test_a_gpu_has_a_price_of_its_own_and_half_a_bill_is_none() -> None:
    rates = Costs(compute_per_hour=1, gpu_per_hour=4)
    assert ledger(rates, Work(gpu_s=1800)).amounts == {"compute": 2}
    assert ledger(rates, Work(gpu_s=1800, compute_s=3600)).amounts == {"compute": 3}
    half = ledger(Costs(compute_per_hour=1), Work(gpu_s=1800, compute_s=3600))
    assert half.amounts == {}
    assert half.lines[3].why == "`costs.gpu_per_hour` is not given"


def test_machines_are_shared_among_predicted_slides_and_people_among_reviewed_ones() -> None:
    rates = Costs(pathologist_per_hour=100, compute_per_hour=1, storage_per_gb_month=1)
    found = ledger(rates, Work(7200, compute_s=36_000, storage_gb_months=30, slides=2, area_mm2=50, predicted=20))
    assert found.machines_per_slide == pytest.approx(2)
    assert found.total == pytest.approx(240)
    assert found.per_slide == pytest.approx(102), "not 120: eighteen slides are predicted and not reviewed"
    assert found.per_mm2 == pytest.approx(102 * 2 / 50)
    assert ledger(rates, Work(7200, slides=2, predicted=20)).machines_per_slide == 0
