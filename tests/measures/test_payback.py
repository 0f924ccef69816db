"""Break-even and forecast: by hand, with the ends of total hours, and break-even may be never."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wsi_pipeline.config import Costs
from wsi_pipeline.measures.payback import NEVER, break_even, forecast, saved_per_slide
from wsi_pipeline.measures.savings import Saving, SavingKind

RATES = Costs(currency="CHF", pathologist_per_hour=120, set_up=3000)
# By hand half an hour per slide; with pre-annotation 60 %, interval 40 to 90 %.
SAVING = Saving(
    SavingKind.MEASURED,
    "for raters and slides like these",
    ratio=0.58,
    ratio_of_totals=0.6,
    ratio_of_totals_ci95=(0.4, 0.9),
    hours_per_reading={"manual": 0.5, "assisted": 0.3},
)


def test_break_even_by_hand() -> None:
    # 60 by hand, less 36 assisted, less 4 of computing: 20 a slide; at the ends 32 and 2.
    found = break_even(RATES, SAVING, extra_per_slide=4)
    assert found is not None
    assert (found.slides, found.earliest, found.latest) == (150, 94, 1500)
    assert found.as_json()["interval"] == [94, 1500]
    assert found.words == "Break-even: 150 slides; interval 94 slides to 1500 slides."


def test_break_even_may_be_never() -> None:
    found = break_even(RATES, SAVING, extra_per_slide=10)
    assert found is not None
    assert (found.slides, found.latest) == (215, None)
    assert found.as_json()["interval"] == [116, NEVER]
    worse = break_even(RATES, replace(SAVING, ratio_of_totals=1.2, ratio_of_totals_ci95=(1.1, 1.3)))
    assert worse is not None
    assert worse.as_json()["slides"] == NEVER
    assert worse.as_json()["interval"] == [NEVER, NEVER]


def test_without_interval_break_even_says_so() -> None:
    found = break_even(RATES, replace(SAVING, ratio_of_totals_ci95=None))
    assert found is not None
    assert "interval" not in found.as_json()
    assert "too few" in found.words


@pytest.mark.parametrize("kind", [SavingKind.BEFORE_AFTER, SavingKind.NOT_MEASURED])
def test_only_a_measured_saving_has_a_break_even_or_a_forecast(kind: SavingKind) -> None:
    assert break_even(RATES, replace(SAVING, kind=kind)) is None
    assert forecast(RATES, replace(SAVING, kind=kind), 10) is None


def test_without_rates_there_is_no_break_even() -> None:
    assert break_even(Costs(set_up=10), SAVING) is None
    assert break_even(Costs(pathologist_per_hour=10), SAVING) is None
    assert saved_per_slide(Costs(), SAVING) is None


def test_forecast_carries_the_interval_of_total_hours() -> None:
    found = forecast(RATES, SAVING, 200)
    assert found is not None
    assert found.hours.value == pytest.approx(60)
    assert found.hours.low == pytest.approx(40)
    assert found.hours.high == pytest.approx(90)
    # 24 a slide (6 to 36), less the set-up.
    assert found.saved.value == pytest.approx(1800)
    assert found.saved.low == pytest.approx(-1800)
    assert found.saved.high == pytest.approx(4200)
    assert found.as_json()["slides"] == 200
