"""A tiny study that was worked out by hand: times, quality, planted errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.annotation_study import analyse, geometric_ratio
from benchmarks.study_files import read_study
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.measures import Event, EventType, Session
from wsi_pipeline.measures.time_rules import check_for_saving, count_pairs, edits, pairs, timeline

SUGGESTIONS = {"s1": ("1", 0), "s2": ("2", 40), "s3": ("1", 80)}


def stamp(seconds: float, day: int = 1) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"2020-02-{day:02d} 10:{int(minutes):02d}:{rest:09.6f}"


def log(image: str, seconds: float, kind: int, user: str = "Participant_3", day: int = 1) -> str:
    return f"[{image}|{user}|{stamp(seconds, day)}|{kind}]"


def thing(
    uuid: str,
    label: str,
    x: int,
    made: tuple[str, str],
    changed: tuple[str, str],
    *,
    gone: bool = False,
    image: str = "a",
) -> str:
    box = f'{{"x1": "{x}","y1": "0","x2": "{x + 20}","y2": "20",}}'
    return f"{image}|{label}|{box}|{made[0]}|{made[1]}|{changed[0]}|{changed[1]}|{uuid}|{gone}|256|256"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """One expert, images a and b: in round two, s2 is put right, the fake s3 stays, the deleted cell is not found."""
    old, me = ("marzahl", stamp(0, 1)), "Participant_3"
    first = [
        log("a", 100, 2), log("a", 0, 1), log("b", 500, 1), log("a", 3, 1, user="marzahl"),
        thing("f1", "1", 0, (me, stamp(20)), (me, stamp(20.5))),
        thing("f2", "2", 120, (me, stamp(30)), (me, stamp(90)), gone=True),
    ]  # fmt: skip
    second = [
        log("a", 50, 2, day=9), log("a", 0, 1, day=9),
        thing("s1", "1", 0, old, old),
        thing("s2", "1", 40, old, (me, stamp(20, 9))),
        thing("s3", "1", 80, old, old),
    ]  # fmt: skip
    truth = [thing("t1", "1", 0, old, old), thing("t2", "1", 40, old, old), thing("t4", "1", 120, old, old)]
    files = {
        "FirstRound/participants/participant_3.txt": first,
        "SecondRound/participants/participant_3.txt": second,
        "SecondRound/truth/ground_truth.txt": [*truth, thing("t5", "1", 160, old, old, gone=True)],
        "SecondRound/truth/unchanged_1.txt": [thing(u, c, x, old, old) for u, (c, x) in SUGGESTIONS.items()],
        "SecondRound/truth/changed.txt": [thing("t2", "1", 40, old, old), thing("t5", "1", 160, old, old, gone=True)],
        "SecondRound/truth/deleted_x.txt": [thing("d1", "1", 120, old, old)],
        "SecondRound/truth/fake.txt": [thing("s3", "1", 80, old, old)],
    }
    for name, lines in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(lines))
    return tmp_path


def test_times_and_saving_are_those_worked_out_by_hand(study: Path) -> None:
    result = analyse(read_study(study))
    assert result["seconds"]["pairs"] == {
        "manual": {"3": {"a": pytest.approx(100), "b": 0}},
        "assisted": {"3": {"a": pytest.approx(50)}},
    }
    # Events of a: 0, 20, 20.5, 30, 90, end 100; no pause over 60 s.
    assert result["seconds"]["timeline_cap60"]["manual"]["3"]["a"] == pytest.approx(100)
    saving = result["saving"]["pairs"]
    assert (saving["ratio"], saving["pairs"], saving["dropped"]) == (pytest.approx(0.5), 1, 1)
    assert saving["ci95"] is None
    assert saving["flagged"]


def test_planted_errors_and_quality_are_those_worked_out_by_hand(study: Path) -> None:
    result = analyse(read_study(study))
    changed = result["planted"]["changed"]
    assert (changed["listed"], changed["effective"]) == (2, 1)
    assert changed["experts"]["3"]["caught"] == 1
    assert changed["experts"]["3"]["first_round"] == {"right": 0, "places": 1, "rate": 0}
    assert result["planted"]["deleted_x"]["experts"]["3"]["missed"] == 1
    assert result["planted"]["fake"]["experts"]["3"]["missed"] == 1
    assert result["planted"]["fake"]["experts"]["3"]["first_round"]["rate"] == 1
    assert "nms" not in result["planted"]
    assert result["quality"]["suggestions"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "f1_class": 1 / 3}
    )
    assert result["quality"]["assisted"]["3"]["f1_class"] == pytest.approx(2 / 3)
    assert result["quality"]["manual"]["3"] == pytest.approx(
        {"precision": 1, "recall": 1 / 3, "f1": 1 / 2, "f1_class": 1 / 2}
    )
    assert result["harmed"]["3"]["harmed"] == 0


def test_what_is_odd_is_listed(study: Path) -> None:
    result = analyse(read_study(study))
    kinds = {(a["arm"], a["image"], a["kind"]) for a in result["anomalies"]}
    assert {
        ("manual", "a", "foreign_user"),
        ("manual", "b", "never_closed"),
        ("assisted", "b", "never_opened"),
    } <= kinds
    assert result["never_opened"] == {"manual": {}, "assisted": {"3": ["b"]}}


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FirstRound/participants"):
        read_study(tmp_path)


def test_the_interval_is_of_raters() -> None:
    # Logs -1 and 1: mean 0, standard error 1, t(0.975, 1) = 12.706.
    ratio, interval = geometric_ratio([("a", 2.718281828, 1), ("b", 1, 2.718281828)])
    assert ratio == pytest.approx(1)
    assert interval == pytest.approx([3.0346e-6, 329_500], rel=0.01)


def test_edits_alone_and_unlike_arms_are_refused_for_savings() -> None:
    both = {EventType.OPEN, EventType.CLOSE, EventType.EDIT}
    with pytest.raises(ConfigError, match="edits alone"):
        check_for_saving(edits(300), {"manual": both, "assisted": both})
    with pytest.raises(ConfigError, match="assisted has no events of kind close, open"):
        check_for_saving(timeline(300), {"manual": both, "assisted": {EventType.EDIT}})
    check_for_saving(timeline(300), {"manual": both, "assisted": both})


def test_pairs_sum_what_was_closed_and_drop_the_rest() -> None:
    lines = [(0, "open"), (10, "open"), (30, "close"), (40, "close"), (50, "open")]
    events = tuple(Event(i, 1000 * t, EventType(kind), "1") for i, (t, kind) in enumerate(lines))
    assert list(pairs().seconds([Session("p", "anna", events)]).values()) == [20]


def test_pairs_without_time_are_counted_and_flagged_above_five_percent() -> None:
    assert count_pairs([(1, 2), (None, 3), (0, 3)]).dropped == 2
    assert not count_pairs([(1.0, 1.0)] * 19 + [(0.0, 1.0)]).flagged
    assert count_pairs([(1.0, 1.0)] * 18 + [(0.0, 1.0)]).flagged
