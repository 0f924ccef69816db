"""The saving against worked examples; what may be called one, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wsi_pipeline.measures.arms import Arm, Layout, Reading, aliased, layout_of, manual_first
from wsi_pipeline.measures.savings import CONFOUNDED, SavingKind, orders_of, saving_of, split_saving

MANUAL, ASSISTED = Arm.MANUAL, Arm.ASSISTED


def paired(times: dict[tuple[str, str], tuple[float, float]], first: str = "alternate") -> list[Reading]:
    """(manual, assisted) seconds by rater and slide; every other pair has the manual reading first."""
    found = []
    for k, ((rater, slide), (manual, assisted)) in enumerate(times.items()):
        swap = {"alternate": k % 2 == 1, "manual": False, "assisted": True}[first]
        places = (100 + k, k) if swap else (k, 100 + k)
        found.append(Reading(rater, slide, MANUAL, manual, places[0]))
        found.append(Reading(rater, slide, ASSISTED, assisted, places[1]))
    return found


def study(raters: int, slides: int, ratio: float = 0.5, seed: int = 0) -> dict[tuple[str, str], tuple[float, float]]:
    rng = np.random.default_rng(seed)
    level, noise = rng.lognormal(5, 0.5, (raters, slides)), rng.normal(0, 0.2, (raters, slides))
    own = rng.normal(0, 0.2, raters)
    return {
        (f"r{i}", f"s{j}"): (level[i, j], level[i, j] * ratio * float(np.exp(own[i] + noise[i, j])))
        for i in range(raters)
        for j in range(slides)
    }


def crossover(raters: int = 6, slides: int = 12, ratio: float = 0.5) -> list[Reading]:
    """Each rater reads each slide in one arm, the arms alternating, without noise: slide j takes 100 (j + 1) s."""
    return [
        Reading(
            f"r{i}",
            f"s{j}",
            ASSISTED if (i + j) % 2 else MANUAL,
            100 * (j + 1) * (1 + i) * (ratio if (i + j) % 2 else 1),
            (j * (5 if i % 2 else 1)) % slides,
        )
        for i in range(raters)
        for j in range(slides)
    ]


def test_the_ratio_is_the_geometric_mean_and_the_hours_are_sums() -> None:
    found = saving_of(
        paired({("a", "s"): (100, 50), ("a", "t"): (200, 50), ("b", "s"): (100, 100), ("b", "t"): (80, 40)})
    )
    assert found.ratio == pytest.approx((0.5 * 0.25 * 1 * 0.5) ** 0.25)
    assert found.ratio_of_totals == pytest.approx(240 / 480)
    assert found.hours == {"manual": pytest.approx(480 / 3600), "assisted": pytest.approx(240 / 3600)}
    assert (found.raters, found.slides, found.pairs, found.dropped) == (2, 2, 4, 0)
    assert "for these 2 raters only" in found.label
    assert found.kind is SavingKind.MEASURED


def test_interval_of_three_raters_worked_by_hand() -> None:
    # Means of slides of log2 ratio: -1 and -2; their standard error is 0.5, and t(1) at 97.5 % is 12.706.
    times = {(r, s): (100.0, 50.0 if s == "s" else 25.0) for r in "abc" for s in "st"}
    found = saving_of(paired(times))
    assert found.ratio == pytest.approx(2**-1.5)
    assert found.ci95 is not None
    assert found.df == pytest.approx(1)
    assert np.log2(found.ci95[1]) + 1.5 == pytest.approx(0.5 * 12.7062, rel=1e-4)


def test_no_control_is_not_measured() -> None:
    found = saving_of([Reading("a", "s", ASSISTED, 10.0, 1)])
    assert found.kind is SavingKind.NOT_MEASURED
    assert found.as_json()["status"] == "not measured"
    assert "control arm" in found.as_json()["reason"]
    assert "ratio" not in found.as_json()


@pytest.mark.parametrize("first", ["manual", "assisted"])
def test_a_fixed_order_is_before_and_after_never_a_saving(first: str) -> None:
    found = saving_of(paired(study(5, 6), first))
    assert found.kind is SavingKind.BEFORE_AFTER
    assert found.label == CONFOUNDED
    assert any("fixed" in word for word in found.warnings)


def test_an_unknown_order_is_no_saving_either() -> None:
    found = saving_of([replace(r, position=None) for r in paired(study(5, 6))])
    assert found.kind is SavingKind.BEFORE_AFTER
    assert any("not known" in word for word in found.warnings)


def test_uneven_orders_are_said() -> None:
    readings = paired(study(5, 6))
    some = [replace(r, position=(r.position or 0) % 100 + (100 if r.arm is ASSISTED else 0)) for r in readings[:20]]
    found = saving_of([*some, *readings[20:]])
    assert found.kind is SavingKind.MEASURED
    assert found.manual_first == pytest.approx(20 / 30)
    assert any("not even" in word for word in found.warnings)


def test_pairs_without_time_are_left_out_and_counted() -> None:
    readings = paired(study(5, 6))
    gone = [replace(r, seconds=value) for r, value in zip(readings[:4], (0.0, np.nan, -1.0, 0.0), strict=True)]
    found = saving_of([*gone, *readings[4:]])
    assert (found.dropped, found.unpaired, found.pairs) == (4, 0, 28)
    assert any("4 of 60" in word for word in found.warnings)
    assert found.ratio == pytest.approx(saving_of(readings[4:]).ratio or 0)


@pytest.mark.parametrize(("gone", "flagged"), [(1, False), (2, True)])
def test_above_five_percent_of_the_pairs_without_time_in_an_arm_are_flagged(gone: int, flagged: bool) -> None:
    # 2 of 60 readings are 3 %, and so are their 2 partners; the pairs that are lost are 2 of 30.
    readings = paired(study(5, 6))
    manual = [i for i, r in enumerate(readings) if r.arm is Arm.MANUAL][:gone]
    found = saving_of([replace(r, seconds=np.nan) if i in manual else r for i, r in enumerate(readings)])
    assert (found.dropped, found.unpaired, found.pairs) == (gone, gone, 30 - gone)
    assert any(f"{gone} of 30 pairs" in word for word in found.warnings) is flagged


def test_a_crossover_of_one_reading_each_recovers_the_ratio_from_slides_of_all_lengths() -> None:
    found = saving_of(crossover())
    assert found.design == str(Layout.CROSSOVER)
    assert found.ratio == pytest.approx(0.5)
    assert found.kind is SavingKind.MEASURED
    assert found.pairs == 0
    gone = saving_of([r for k, r in enumerate(crossover()) if k % 7])
    assert gone.ratio == pytest.approx(0.5)


def test_three_raters_of_a_crossover_are_for_these_only() -> None:
    rng = np.random.default_rng(0)
    found = saving_of([replace(r, seconds=r.seconds * rng.lognormal(0, 0.1)) for r in crossover(raters=3)])
    assert found.ratio == pytest.approx(0.5, rel=0.15)
    assert "for these 3 raters only" in found.label
    assert found.ci95 is not None
    assert found.ci95[0] < 0.5 < found.ci95[1]


def test_parallel_slides_compare_within_raters() -> None:
    rng = np.random.default_rng(1)
    readings = [
        Reading(
            f"r{i}", f"s{j}", Arm.ASSISTED if j % 2 else Arm.MANUAL, 60 * (0.5 if j % 2 else 1) * rng.lognormal(), j
        )
        for i in range(6)
        for j in range(40)
    ]
    found = saving_of(readings)
    assert found.design == str(Layout.PARALLEL_SLIDES)
    assert found.ci95 is not None
    assert found.ci95[0] < 0.5 < found.ci95[1]


def test_different_people_in_the_arms_need_to_be_five() -> None:
    few = [Reading(f"r{i}", f"s{j}", ASSISTED if i % 2 else MANUAL, 60.0 + j, j) for i in range(4) for j in range(6)]
    assert saving_of(few).kind is SavingKind.NOT_MEASURED
    assert "different people" in saving_of(few).label
    rng = np.random.default_rng(2)
    many = [
        Reading(f"r{i}", f"s{j}", ASSISTED if i % 2 else MANUAL, rng.lognormal(4 - (i % 2), 0.2), j)
        for i in range(12)
        for j in range(6)
    ]
    found = saving_of(many)
    assert found.design == str(Layout.PARALLEL_RATERS)
    assert found.kind is SavingKind.MEASURED
    assert found.ratio == pytest.approx(np.exp(-1), rel=0.1)
    assert "The arms were worked by different people." in found.warnings


def test_degrees_of_freedom_are_never_fewer_than_raters_less_one() -> None:
    for seed in range(5):
        found = saving_of(paired(study(6, 10, seed=seed)))
        assert found.df is not None
        assert found.df >= 5


def test_slides_of_one_patient_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    shift = np.repeat(rng.normal(0, 0.6, 4), 5)
    times = {
        (f"r{i}", f"s{j}"): (100.0, 50 * float(np.exp(shift[j] + rng.normal(0, 0.1))))
        for i in range(6)
        for j in range(20)
    }
    alone = saving_of(paired(times))
    patients = saving_of([replace(r, patient=f"p{int(r.slide[1:]) // 5}") for r in paired(times)])
    assert alone.ci95 is not None
    assert patients.ci95 is not None
    assert patients.ratio == pytest.approx(alone.ratio or 0)
    assert patients.ci95[1] > alone.ci95[1] * 1.1


def test_layouts_and_orders() -> None:
    assert layout_of(paired(study(3, 4))) is Layout.PAIRED
    assert manual_first(paired(study(2, 4))) == 0.5
    assert manual_first(paired(study(2, 4), "manual")) == 1.0
    assert set(orders_of(paired(study(2, 4))).values()) == {"manual first", "assisted first"}
    assert not aliased(crossover())
    assert aliased(paired(study(3, 6)))


def test_splits_are_refused_where_all_took_the_slides_in_one_order() -> None:
    found = split_saving(paired(study(5, 12)), "kind", lambda r: "all")
    assert found.refused is not None
    assert "aliased" in found.refused
    assert found.parts == ()


def test_splits_show_n_and_no_interval_when_small() -> None:
    rng = np.random.default_rng(5)
    readings = [replace(r, position=int(rng.integers(10**6))) for r in paired(study(5, 30))]
    found = split_saving(readings, "kind", lambda r: "many" if int(r.slide[1:]) >= 8 else "few")
    few, many = found.parts
    assert (few.slides, few.raters, few.ci95) == (8, 5, None)
    assert many.slides == 22
    assert many.ci95 is not None
    assert found.label == "exploratory"
    assert found.as_json()["parts"][0]["readings"] == 80


def test_json_has_what_the_report_reads() -> None:
    found = saving_of(paired(study(5, 12))).as_json()
    assert found["kind"] == "measured"
    assert len(found["ci95"]) == 2
    assert found["ci95"][0] < found["ratio"] < found["ci95"][1]
    assert found["level"] == 0.95
    assert found["bootstrap_ci95"][0] < found["ratio"] < found["bootstrap_ci95"][1]
    assert found["definition"]


def test_readings_that_all_have_one_position_tell_nothing_of_it() -> None:
    readings = [
        Reading(rater, f"s{j}", arm, 100.0 + j, position=1)
        for rater in ("a", "b")
        for j in range(4)
        for arm in (Arm.MANUAL, Arm.ASSISTED)
    ]
    assert split_saving(readings, "site", lambda r: "x").refused is not None
