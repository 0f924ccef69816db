"""Ratios, what is dropped and what confounds; the command on studies that are right, poor or missing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.annotation_study import main
from benchmarks.study.layout import Study
from benchmarks.study.report import analyse
from benchmarks.study.saving import LABEL, all_saving, confounding
from benchmarks.study.times import all_seconds
from tests.study.builder import Draft, box, log

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "annotation_study.py"
WEEK = 7 * 86_400.0


def visits(expert: str, begin: float, **lengths: float) -> list[str]:
    """Visits one after the other, each image as long as said, newest first."""
    lines, now = [], begin
    for image, seconds in lengths.items():
        lines += [log(image, now, 1, f"Participant_{expert}"), log(image, now + seconds, 2, f"Participant_{expert}")]
        now += seconds
    return lines[::-1]


def saving(study: Study, rule: str = "pairs") -> dict[str, Any]:
    return all_saving(study, all_seconds(study))[rule]


def test_ratio_is_the_geometric_mean_and_totals_are_of_the_same_pairs(tmp_path: Path) -> None:
    manual = {"1": visits("1", 0, a=10, b=40, c=5), "2": visits("2", 0, a=20)}
    assisted = {"1": visits("1", WEEK, a=5, b=40), "2": visits("2", WEEK, a=10, b=7)}
    study = Draft(manual=manual, assisted=assisted).read(tmp_path)
    for rule in ("pairs", "timeline_cap60", "timeline_cap300"):
        found = saving(study, rule)
        assert found["ratio"] == pytest.approx((0.5 * 1.0 * 0.5) ** (1 / 3))
        assert found["ratio_of_totals"] == pytest.approx(55 / 70)
        # c of the first expert and b of the second have a time in one arm only.
        assert (found["pairs"], found["dropped"], found["dropped_share"], found["flagged"]) == (3, 2, 0.4, True)
        assert found["label"] == LABEL
        assert "these 2 raters only" in str(found["interval_note"])


def test_zero_times_are_dropped_and_counted(tmp_path: Path) -> None:
    manual, assisted = {"1": visits("1", 0, a=10, b=0)}, {"1": visits("1", WEEK, a=10, b=10)}
    found = saving(Draft(manual=manual, assisted=assisted).read(tmp_path))
    assert (found["ratio"], found["pairs"], found["dropped"]) == (1.0, 1, 1)
    assert (found["ci95"], "no interval" in str(found["interval_note"])) == (None, True)


def test_up_to_five_percent_dropped_is_not_flagged(tmp_path: Path) -> None:
    times = {f"i{n}": 10.0 for n in range(20)}
    manual, assisted = {"1": visits("1", 0, **times)}, {"1": visits("1", WEEK, **(times | {"i3": 0.0}))}
    found = saving(Draft(manual=manual, assisted=assisted).read(tmp_path))
    assert (found["dropped_share"], found["flagged"]) == (0.05, False)


def test_without_any_pair_there_is_no_ratio(tmp_path: Path) -> None:
    found = saving(Draft(manual={"1": visits("1", 0, a=5)}, assisted={"1": []}).read(tmp_path))
    assert (found["ratio"], found["ci95"], found["ratio_of_totals"], found["dropped"]) == (None, None, None, 1)


def test_five_experts_have_an_interval_over_experts(tmp_path: Path) -> None:
    factors = [0.4, 0.6, 0.5, 1.0, 0.8]
    manual = {str(n): visits(str(n), 0, a=10, b=30, c=20) for n in range(5)}
    assisted = {str(n): visits(str(n), WEEK, a=10 * f, b=33 * f, c=18 * f) for n, f in enumerate(factors)}
    found = saving(Draft(manual=manual, assisted=assisted).read(tmp_path))
    assert found["ratio"] == pytest.approx(math.exp(sum(map(math.log, [*factors * 3, *[1.1] * 5, *[0.9] * 5])) / 15))
    low, high = found["ci95"]
    assert low * high == pytest.approx(found["ratio"] ** 2)
    # Experts differ most: little more than the t interval of their own means.
    assert 0.35 < low < 0.46
    assert "4 degrees of freedom" in str(found["interval_note"])


def test_confounding_tells_dates_gap_and_order(tmp_path: Path) -> None:
    manual, assisted = {"1": visits("1", 0, a=10, b=10, c=10)}, {"1": visits("1", WEEK, c=1, b=1, a=1, d=1)}
    found = confounding(Draft(manual=manual, assisted=assisted).read(tmp_path))
    row = found["experts"]["1"]
    assert (found["label"], found["saving_measured"], found["assisted_always_second"]) == (LABEL, False, True)
    assert row["manual"] == ["2020-01-06 08:00:00.000000", "2020-01-06 08:00:30.000000"]
    assert row["gap_days"] == pytest.approx((WEEK - 30) / 86_400)
    assert (row["images_in_both"], row["images_in_one"]) == (3, 1)
    assert row["order_rank_correlation"] == pytest.approx(-1)


def test_an_assisted_round_that_came_first_is_said(tmp_path: Path) -> None:
    study = Draft(manual={"1": visits("1", WEEK, a=1)}, assisted={"1": visits("1", 0, a=1)}).read(tmp_path)
    found = confounding(study)
    assert found["assisted_always_second"] is False
    assert "manual round first" not in found["facts"][0]
    assert found["experts"]["1"]["order_rank_correlation"] is None


def draft() -> Draft:
    suggestion = box("a", "2", uuid="s")
    made = Draft(manual={"1": visits("1", 0, a=10)}, assisted={"1": [*visits("1", WEEK, a=5), suggestion]})
    made.truth |= {"ground_truth": [box("a", "1", uuid="t")], "unchanged_1": [suggestion]}
    made.truth |= {"changed": [box("a", "1", uuid="t")]}
    return made


def test_the_command_prints_one_json_value(tmp_path: Path) -> None:
    folder = draft().write(tmp_path / "study")
    done = subprocess.run([sys.executable, SCRIPT, folder, "--json"], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["seconds"]["timeline_cap100"]["assisted"]["1"] == {"a": 5.0}
    assert found["saving"]["pairs"]["ratio"] == 0.5
    assert found["quality"]["suggestions"]["f1"] == 1.0
    assert list(found["planted"]) == ["changed"]
    assert found["planted"]["changed"]["per_expert"]["1"]["missed"] == 1
    assert found["harmed"]["1"] == {
        "right": 0, "harmed": 0, "rate": None, "deleted": 0, "reclassified": 0, "moved": 0
    }  # fmt: skip
    assert found["not_opened"] == {"manual": {"1": []}, "assisted": {"1": []}}


def test_the_command_prints_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    assert main([str(draft().write(tmp_path / "study"))]) == 0
    shown = capsys.readouterr().out
    for text in ("timeline_cap300", LABEL, "untouched", "Planted errors, changed: 1 listed, 1 effective"):
        assert text in shown


def test_the_command_prints_tables_of_an_empty_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(Draft(manual={"1": []}, assisted={"2": []}).write(tmp_path / "study"))]) == 0
    assert "missing round file" in capsys.readouterr().out


def test_what_is_missing_is_one_line_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = draft().write(tmp_path / "study")
    (folder / "SecondRound" / "truth" / "ground_truth.txt").unlink()
    assert main([str(folder), "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "ground_truth.txt" in err


def test_every_answer_is_json(tmp_path: Path) -> None:
    json.dumps(analyse(Draft().read(tmp_path)), allow_nan=False)
