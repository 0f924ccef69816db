"""The model of time finds what it was made from, its intervals hold what they say, and it refuses to guess."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from wsi_pipeline.measures.time_model import MIN_MEASURED, TooFewMeasuredError, Work, fit_time_model

RATERS = {"anna": 3.0, "ben": 3.6, "cleo": 2.7}
MANUAL, EDITS, AREA, SD = 0.8, 0.5, 0.12, 0.4


def images(n: int, rng: np.random.Generator, raters: Sequence[str] = tuple(RATERS)) -> list[Work]:
    return [
        Work(
            str(rng.choice(raters)), str(rng.choice(["assisted", "manual"])), int(rng.poisson(6)), rng.exponential(1e5)
        )
        for _ in range(n)
    ]


def centre(work: Work) -> float:
    return (
        RATERS[work.rater]
        + MANUAL * (work.arm == "manual")
        + EDITS * math.log1p(work.edits)
        + AREA * math.log1p(work.area_um2)
    )


def seconds(work: Work, rng: np.random.Generator, sd: float = SD) -> float:
    return math.exp(centre(work) + sd * rng.standard_normal())


def test_without_noise_the_coefficients_are_found_exactly() -> None:
    rng = np.random.default_rng(1)
    model = fit_time_model([(work, seconds(work, rng, 0)) for work in images(60, rng)])
    expected = {**RATERS, "manual": MANUAL, "log_edits": EDITS, "log_area": AREA}
    assert model.coefficients == pytest.approx(expected, abs=1e-6)
    assert model.sd == pytest.approx(0, abs=1e-6)
    assert (model.n, model.free) == (60, 60 - 6)


def test_with_noise_the_mean_of_many_fits_is_the_truth() -> None:
    rng = np.random.default_rng(2)
    fits = [fit_time_model([(w, seconds(w, rng)) for w in images(50, rng)]) for _ in range(300)]
    for name, value in {"manual": MANUAL, "log_edits": EDITS, "log_area": AREA, "anna": RATERS["anna"]}.items():
        found = np.array([fit.coefficients[name] for fit in fits])
        assert abs(found.mean() - value) < 4 * found.std() / math.sqrt(len(found))
    variance = np.array([fit.sd**2 for fit in fits])
    assert abs(variance.mean() - SD**2) < 4 * variance.std() / math.sqrt(len(variance))


@pytest.mark.parametrize(("n", "runs"), [(25, 1000), pytest.param(80, 2000, marks=pytest.mark.slow)])
def test_intervals_hold_new_images_as_often_as_they_say(n: int, runs: int) -> None:
    rng = np.random.default_rng(n)
    inside = []
    for _ in range(runs):
        model = fit_time_model([(w, seconds(w, rng)) for w in [*map(work_of, RATERS), *images(n - 3, rng)]])
        (work,) = images(1, rng)
        estimate = model.estimate(work)
        assert estimate is not None
        inside.append(estimate.low <= seconds(work, rng) <= estimate.high)
    # A thousand trials of 0.95 have a standard error of 0.7 %.
    assert 0.93 <= np.mean(inside) <= 0.97


def work_of(rater: str) -> Work:
    return Work(rater, "manual", 3, 1e4)


def test_too_few_measured_images_give_no_model() -> None:
    rng = np.random.default_rng(3)
    few = [(work, 60.0) for work in images(MIN_MEASURED - 1, rng)]
    with pytest.raises(TooFewMeasuredError, match=f"{MIN_MEASURED - 1} images have a measured time"):
        fit_time_model(few)
    with pytest.raises(TooFewMeasuredError):
        # Zero seconds are no measured time that has a logarithm.
        fit_time_model([*few, (few[0][0], 0.0)])
    crowd = [(Work(f"r{i}", "manual", i, 10.0 * i), 60.0 + i) for i in range(MIN_MEASURED)]
    with pytest.raises(TooFewMeasuredError, match="coefficients"):
        fit_time_model(crowd)


def test_nothing_is_guessed_of_a_rater_or_an_arm_that_was_never_measured() -> None:
    rng = np.random.default_rng(4)
    model = fit_time_model([(w, seconds(w, rng)) for w in images(60, rng, ["anna", "ben"])])
    assert model.estimate(Work("cleo", "manual", 3, 10)) is None
    assert model.estimate(Work("anna", "other", 3, 10)) is None


def test_what_the_measured_images_cannot_tell_apart_is_not_guessed() -> None:
    rng = np.random.default_rng(5)
    # Anna worked in one arm only, Ben in the other: her effect and the arm's are one.
    works = [
        Work(rater, arm, int(rng.poisson(6)), rng.exponential(1e5))
        for rater, arm in [("anna", "manual"), ("ben", "assisted")] * 20
    ]
    model = fit_time_model([(w, seconds(w, rng, 0)) for w in works])
    own = model.estimate(Work("anna", "manual", 4, 1000))
    assert own is not None
    assert own.seconds == pytest.approx(math.exp(centre(Work("anna", "manual", 4, 1000))), rel=1e-6)
    assert model.estimate(Work("anna", "assisted", 4, 1000)) is None


def test_one_rater_and_one_arm_are_enough() -> None:
    rng = np.random.default_rng(6)
    works = [Work("anna", "assisted", int(rng.poisson(6)), rng.exponential(1e5)) for _ in range(30)]
    model = fit_time_model([(w, seconds(w, rng)) for w in works])
    estimate = model.estimate(works[0])
    assert estimate is not None
    assert 0 < estimate.low < estimate.seconds < estimate.high
    assert "model, version 1" in str(model)
    assert "30 measured images" in str(model)


def test_images_in_which_nothing_was_changed_have_an_estimate() -> None:
    rng = np.random.default_rng(7)
    same = [(Work("anna", "assisted", 0, 0.0), math.exp(4 + 0.1 * rng.standard_normal())) for _ in range(40)]
    estimate = fit_time_model(same).estimate(same[0][0])
    assert estimate is not None
    assert estimate.seconds == pytest.approx(math.exp(4), rel=0.1)
