"""The real study: facts counted from its files in another way, and the figures of docs/study.md."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import shapely

from benchmarks.study.layout import Study, read_study
from benchmarks.study.report import analyse
from benchmarks.study.times import CAPS_S
from tests.study.test_times import plain_timeline

pytestmark = pytest.mark.testdata


@pytest.fixture(scope="module")
def study(testdata: Path) -> Study:
    folder = testdata / "study"
    if not folder.is_dir():
        pytest.skip("the study is not there")
    return read_study(folder)


@pytest.fixture(scope="module")
def found(study: Study) -> dict[str, Any]:
    return analyse(study)


def rows(path: Path) -> list[list[str]]:
    """Object lines of an export, split and no more."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [line.split("|") for line in lines if line.strip() and not line.startswith("[")]


def test_every_line_is_read(study: Study) -> None:
    assert study.experts == ["3", "4", "5", "6", "7", "8", "9", "11", "12", "13"]
    assert len(study.images) == 20
    assert study.unread == ()
    for arm in study.work.values():
        for work in arm.values():
            lines = [line for line in work.export.path.read_text(encoding="utf-8").split("\n") if line.strip()]
            assert len(lines) == len(work.export.log) + len(work.export.items)
            assert not work.export.unread
            assert not work.guessed


def test_suggestions_have_one_uuid_in_all_exports_and_belong_to_no_expert(study: Study) -> None:
    suggested = {item.uuid for item in study.suggestions}
    assert len(suggested) == 309
    for work in study.work["assisted"].values():
        kept = [item for item in work.export.items if item.uuid in suggested]
        assert len(kept) == 309
        assert not {item.created_by for item in kept} & {work.user}


@pytest.mark.parametrize("cap", CAPS_S)
def test_timelines_are_those_of_the_plain_rule(cap: int, study: Study, found: dict[str, Any]) -> None:
    for arm, works in study.work.items():
        for expert, work in works.items():
            seconds = found["seconds"][f"timeline_cap{cap}"][arm][expert]
            assert seconds == pytest.approx(plain_timeline(work, cap * 10**6), abs=1e-6)
            assert len(seconds) == 20


def test_pairs_by_a_regular_expression(study: Study, found: dict[str, Any]) -> None:
    """Events of an image in order of time as a text of 1 and 2: a visit is each `12`."""
    for arm, works in study.work.items():
        for expert, work in works.items():
            events: dict[str, list[tuple[int, str]]] = defaultdict(list)
            for line in work.export.log:
                if line.user == f"Participant_{expert}":
                    events[line.image].append((line.t, "1" if line.start else "2"))
            expected = {}
            for image, moments in events.items():
                moments.sort()
                hits = [m.start() for m in re.finditer("12", "".join(kind for _, kind in moments))]
                if hits:
                    expected[image] = sum(moments[i + 1][0] - moments[i][0] for i in hits) / 1e6
            assert found["seconds"]["pairs"][arm][expert] == pytest.approx(expected, abs=1e-6)


def test_planted_classes_by_uuid_and_polygons(study: Study, found: dict[str, Any]) -> None:
    """The same counts from raw lines: the suggestion is the one whose polygon overlaps most."""

    def shape(row: list[str]) -> shapely.Polygon:
        numbers = {key: float(value) for key, value in re.findall(r'"(\w\d)": "(-?\d+)"', row[2])}
        return shapely.box(numbers["x1"], numbers["y1"], numbers["x2"], numbers["y2"])

    truth = study.folder / "SecondRound" / "truth"
    suggested = rows(truth / "unchanged_submission_19.txt")
    effective = {}
    for row in rows(truth / "changed.txt"):
        here = [s for s in suggested if s[0] == row[0]]
        best = max(here, key=lambda s: shape(s).intersection(shape(row)).area / shape(s).union(shape(row)).area)
        if row[8] == "False" and best[1] != row[1]:
            effective[best[7]] = (row[1], best[1])
    planted = found["planted"]["changed"]
    assert (planted["listed"], planted["effective"]) == (77, len(effective)) == (77, 70)
    for expert, work in study.work["assisted"].items():
        answers: Counter[str] = Counter()
        for row in rows(work.export.path):
            if row[7] in effective and row[8] == "False":
                true, wrong = effective[row[7]]
                answers["caught" if row[1] == true else "missed" if row[1] == wrong else "third"] += 1
        counts = planted["per_expert"][expert]
        assert counts["missed"] == answers["missed"]
        # What was deleted is either caught, by a new box with the true class, or changed wrongly.
        deleted = len(effective) - answers.total()
        assert answers["caught"] <= counts["caught"] <= answers["caught"] + deleted
        assert sum(counts.values()) == len(effective)


def test_counts_of_answers(study: Study, found: dict[str, Any]) -> None:
    live = [row for row in rows(study.folder / "SecondRound" / "truth" / "ground_truth.txt") if row[8] == "False"]
    for arm, works in study.work.items():
        for expert, work in works.items():
            row = found["quality"][arm][expert]
            assert row["boxes"] == sum(r[8] == "False" for r in rows(work.export.path))
            assert row["truth"] == len(live) == 306
            assert row["f1"] == pytest.approx(2 * row["matched"] / (row["boxes"] + 306))
            assert row["f1_class"] <= row["f1"]
    assert found["quality"]["suggestions"]["matched"] == 299
    assert found["quality"]["suggestions"]["matched_class"] == 229
    assert {row["right"] for row in found["harmed"].values()} == {229}


def test_the_known_oddities_are_listed(found: dict[str, Any]) -> None:
    kinds = Counter((row["arm"], row["kind"]) for row in found["anomalies"])
    assert kinds["assisted", "other user"] == 1
    assert kinds["manual", "never closed"] + kinds["assisted", "never closed"] == 24
    assert kinds["manual", "reopened"] == 52
    assert not any(images for arm in found["not_opened"].values() for images in arm.values())
    assert found["confounding"]["assisted_always_second"] is True


def test_the_figures_of_the_docs(found: dict[str, Any]) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "study.md").read_text(encoding="utf-8")
    for rule, row in found["saving"].items():
        low, high = row["ci95"]
        line = f"| `{rule}` | {row['ratio']:.2f} | {low:.2f} to {high:.2f} | {row['ratio_of_totals']:.2f} |"
        assert line in text
    for kind, row in found["planted"].items():
        first = row["first_round"]
        counts = f"{row['total']['caught']} | {row['total']['missed']} | {row['total']['changed_wrongly']}"
        assert f"| `{kind}` | {row['listed']} | {row['effective']} | {counts} | {100 * first['rate']:.0f} % |" in text


def test_the_shares_of_planted_errors_that_stayed_follow_from_the_counts(found: dict[str, Any]) -> None:
    text = " ".join((Path(__file__).resolve().parents[2] / "docs" / "study.md").read_text(encoding="utf-8").split())

    def shares(kind: str, *outcomes: str) -> list[int]:
        """Per expert, lowest to highest, in whole per cent of the effective ones."""
        row = found["planted"][kind]
        own = [sum(counts[name] for name in outcomes) for counts in row["per_expert"].values()]
        return sorted(round(100 * count / row["effective"]) for count in own)

    def of_kind(kind: str, *outcomes: str) -> str:
        row = found["planted"][kind]
        part, whole = (sum(row["total"][name] for name in names) for names in (outcomes, row["total"]))
        return f"{100 * part / whole:.0f}"

    wrong = shares("changed", "missed", "changed_wrongly")
    stayed = shares("changed", "missed")
    assert f"{of_kind('changed', 'missed')} % of the wrong classes (per expert {stayed[0]} to {stayed[-1]} %)" in text
    assert f"{of_kind('nms', 'missed')} % of the extra boxes and {of_kind('deleted', 'missed')} % of the" in text
    assert f"{wrong[0]} to {wrong[-1]} % of the wrong classes per expert" in text
    put = [of_kind(kind, "missed", "changed_wrongly") for kind in ("changed", "nms", "deleted")]
    assert f"{put[0]}, {put[1]} and {put[2]} % by kind, were not put right" in text
    assert f"none left more than {wrong[-2]} % of the wrong classes wrong" in text
