"""How figures are written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.report import numbers as fmt

N = "\u202f"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (9999, "9999"),
        (10_000, f"10{N}000"),
        (1_234_567, f"1{N}234{N}567"),
        (-12_345, f"\u221212{N}345"),
    ],
)
def test_thousands_are_set_apart_from_five_digits_on(value: float | None, text: str) -> None:
    assert fmt.integer(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, f"0{N}%"),
        (1.0, f"100{N}%"),
        (0.0004, f"<{N}0.1{N}%"),
        (0.9996, f"99.9{N}%"),
        (0.9999999, f"99.9{N}%"),
        (0.05, f"5{N}%"),
        (0.0512, f"5.1{N}%"),
        (0.0999, f"10{N}%"),
        (0.876, f"88{N}%"),
    ],
)
def test_a_share_is_nothing_or_everything_only_when_it_is(value: float | None, text: str) -> None:
    assert fmt.share(value) == text


@given(st.floats(min_value=0, max_value=1))
def test_no_share_between_is_written_as_all_or_none(value: float) -> None:
    text = fmt.share(value)
    assert (text == f"0{N}%") == (value == 0)
    assert (text == f"100{N}%") == (value == 1)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.914, "0.91"), (1.0, "1.00"), (0.9996, "0.999"), (0.0, "0.00"), (0.995, "0.995")]
)
def test_a_score_short_of_one_is_never_written_as_one(value: float | None, text: str) -> None:
    assert fmt.score(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, f"0{N}s"),
        (4.21, f"4.2{N}s"),
        (42.4, f"42{N}s"),
        (59.6, f"1.0{N}min"),
        (90, f"1.5{N}min"),
        (1500, f"25{N}min"),
        (3599, f"1{N}h"),
        (6120, f"1{N}h 42{N}min"),
        (360_000, f"100{N}h"),
    ],
)
def test_time_is_told_in_the_unit_a_person_would_use(seconds: float | None, text: str) -> None:
    assert fmt.duration(seconds) == text


@pytest.mark.parametrize(
    ("um2", "area", "column"),
    [
        (None, "–", "–"),
        (0.0, f"0{N}mm²", "0"),
        (831.4, f"831{N}µm²", f"<{N}0.001"),
        (5_470.0, f"5470{N}µm²", "0.005"),
        (48_000.0, f"0.048{N}mm²", "0.048"),
        (4_440_000.0, f"4.44{N}mm²", "4.44"),
        (12_345_678_900.0, f"12{N}346{N}mm²", f"12{N}346"),
    ],
)
def test_areas_carry_their_unit_unless_the_column_states_it(um2: float | None, area: str, column: str) -> None:
    assert fmt.area(um2) == area
    assert fmt.mm2(um2) == column


@given(st.floats(min_value=1e-9, max_value=1e9), st.integers(min_value=1, max_value=6))
def test_significant_digits_are_within_half_of_the_last(value: float, digits: int) -> None:
    text = fmt.significant(value, digits)
    assert "e" not in text
    read = float(text.replace(N, ""))
    assert read == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


@given(st.one_of(st.none(), st.booleans(), st.text(), st.floats(), st.integers(), st.lists(st.floats())))
def test_only_finite_numbers_are_known(value: object) -> None:
    number = fmt.known(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    assert (number is not None) == is_number


@pytest.mark.parametrize(
    ("dates", "text"),
    [
        (("2026-05-12",), "12 May 2026"),
        (("2026-05-12", "2026-05-14"), "12–14 May 2026"),
        (("2026-04-30", "2026-05-02"), "30 April – 2 May 2026"),
        (("2025-12-30", "2026-01-02"), "30 December 2025 – 2 January 2026"),
    ],
)
def test_days_are_told_without_repeating_what_they_share(dates: tuple[str, ...], text: str) -> None:
    assert fmt.days(dates) == text


def test_words_are_counted_and_listed_as_in_a_sentence() -> None:
    assert fmt.counted(1, "slide") == "1 slide"
    assert fmt.counted(0, "slide") == "0 slides"
    assert fmt.counted(2, "class", "classes") == "2 classes"
    assert fmt.listed(["a"]) == "a"
    assert fmt.listed(["a", "b", "c"]) == "a, b and c"


def test_lengths_money_and_differences_are_rounded_to_what_they_carry() -> None:
    assert fmt.micrometres(2.0) == f"2.0{N}µm"
    assert fmt.micrometres(256.0) == f"256{N}µm"
    assert fmt.money(34.405, "EUR") in {f"34.40{N}EUR", f"34.41{N}EUR"}
    assert fmt.money(1374.2, "CHF") == f"1374{N}CHF"
    assert fmt.signed(-0.0204) == "\u22120.020"
    assert fmt.signed(0.0141) == "+0.014"
    assert fmt.minutes(90) == "1.5"
