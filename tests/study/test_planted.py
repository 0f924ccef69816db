"""Planted errors: each rule of what is effective and of what became of it, on places far apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.study.planted import all_planted
from tests.study.builder import Draft, box, log

ME = "Participant_1"


def place(n: int, shift: float = 0.0) -> tuple[float, float, float, float]:
    """The n-th place; boxes shifted by up to 6 px still match there, those shifted by 12 do not."""
    return (100.0 * n + shift, 0.0, 100.0 * n + 20.0 + shift, 20.0)


def opened(*lines: str) -> list[str]:
    return [log("a", 0, 1), *lines]


def counts(row: dict[str, Any], expert: str = "1") -> tuple[int, ...]:
    per_expert = row["per_expert"][expert]
    return tuple(per_expert[name] for name in ("caught", "missed", "changed_wrongly", "never_opened"))


def test_kinds_that_are_not_there_are_not_in_the_result(tmp_path: Path) -> None:
    draft = Draft()
    assert all_planted(draft.read(tmp_path)) == {}
    draft.truth["nms"] = []
    row = all_planted(draft.read(tmp_path / "more"))["nms"]
    assert (row["listed"], row["effective"], row["caught_rate"], row["first_round"]["rate"]) == (0, 0, None, None)


def test_changed_is_effective_where_the_suggestion_has_another_class(tmp_path: Path) -> None:
    draft = Draft()
    draft.truth["ground_truth"] = [
        box("a", "1", place(0), uuid="other class"),
        box("a", "1", place(1), uuid="same class"),
        box("a", "1", place(2), uuid="deleted", deleted=True),
        box("a", "1", place(3), uuid="no suggestion"),
        box("a", "1", place(4), uuid="near"),
    ]
    draft.truth["changed"] = [line.replace("True", "False") for line in draft.truth["ground_truth"]]
    draft.truth["unchanged_1"] = [
        box("a", "2", place(0), uuid="s0"),
        box("a", "1", place(0, 6), uuid="right, but farther off"),
        box("a", "1", place(1), uuid="s1"),
        box("a", "2", place(2), uuid="s2"),
        box("a", "2", place(4, 6), uuid="s4"),
    ]
    row = all_planted(draft.read(tmp_path))["changed"]
    assert (row["listed"], row["effective"]) == (5, 2)
    assert counts(row) == (0, 0, 0, 2)


def test_what_became_of_changed_classes(tmp_path: Path) -> None:
    draft = Draft()
    names = ["caught", "missed", "third class", "redrawn right", "redrawn wrong", "deleted", "not in the export"]
    for n, name in enumerate(names):
        draft.truth["ground_truth"].append(box("a", "1", place(n), uuid=f"t{n}"))
        draft.truth["unchanged_1"].append(box("a", "2", place(n), uuid=name))
    draft.truth["changed"] = list(draft.truth["ground_truth"])
    draft.assisted["1"] = opened(
        box("a", "1", place(0), uuid="caught", changed_by=ME),
        box("a", "2", place(1), uuid="missed"),
        box("a", "3", place(2), uuid="third class", changed_by=ME),
        box("a", "2", place(3), uuid="redrawn right", deleted=True),
        box("a", "1", place(3, 4), uuid="new", by=ME),
        box("a", "2", place(4), uuid="redrawn wrong", deleted=True),
        box("a", "3", place(4), uuid="new too", by=ME),
        box("a", "2", place(5), uuid="deleted", deleted=True),
    )
    draft.manual["1"] = opened(
        box("a", "1", place(0), uuid="m0", by=ME),
        box("a", "2", place(1), uuid="m1", by=ME),
        box("a", "1", place(2, 12), uuid="m2", by=ME),
        box("a", "1", place(3), uuid="m3", by=ME, deleted=True),
        box("a", "1", place(4, 6), uuid="m4", by=ME),
    )
    row = all_planted(draft.read(tmp_path))["changed"]
    assert row["effective"] == 7
    assert counts(row) == (2, 1, 4, 0)
    assert row["caught_rate"] == 2 / 7
    assert row["first_round"]["per_expert"] == {"1": {"right": 2, "n": 7, "rate": 2 / 7, "never_opened": 0}}


def test_what_became_of_objects_that_were_taken_away(tmp_path: Path) -> None:
    draft = Draft()
    draft.truth["ground_truth"] = [box("a", "1", place(n), uuid=f"t{n}", deleted=n == 4) for n in range(5)]
    draft.truth["deleted_1"] = list(draft.truth["ground_truth"])
    draft.truth["unchanged_1"] = [box("a", "3", place(3), uuid="still there")]
    draft.assisted["1"] = opened(
        box("a", "1", place(0, 6), uuid="found", by=ME),
        box("a", "3", place(1), uuid="another class", by=ME),
        box("a", "1", place(2), uuid="gone again", by=ME, deleted=True),
        box("a", "1", place(2, 12), uuid="elsewhere", by=ME),
    )
    draft.manual["1"] = opened(box("a", "1", place(2), uuid="m", by=ME), box("a", "2", place(1), uuid="n", by=ME))
    row = all_planted(draft.read(tmp_path))["deleted_1"]
    assert (row["listed"], row["effective"]) == (5, 3)
    assert counts(row) == (1, 1, 1, 0)
    assert (row["first_round"]["right"], row["first_round"]["n"]) == (1, 3)


def test_what_became_of_extra_suggestions(tmp_path: Path) -> None:
    draft = Draft()
    names = ["deleted", "kept", "reclassified", "moved", "moved onto truth", "true after all", "true but deleted"]
    draft.truth["fake_2"] = [box("a", "1", place(n), uuid=name) for n, name in enumerate([*names, "not suggested"])]
    draft.truth["unchanged_1"] = draft.truth["fake_2"][:-1]
    draft.truth["ground_truth"] = [
        box("a", "2", place(5, 6), uuid="t5"),
        box("a", "1", place(6), uuid="t6", deleted=True),
        box("a", "1", place(20), uuid="t20"),
    ]
    draft.assisted["1"] = opened(
        box("a", "1", place(0), uuid="deleted", deleted=True),
        box("a", "1", place(1, 6), uuid="kept", changed_by=ME),
        box("a", "3", place(2), uuid="reclassified", changed_by=ME),
        box("a", "1", place(3, 12), uuid="moved", changed_by=ME),
        box("a", "1", place(20), uuid="moved onto truth", changed_by=ME),
        box("a", "1", place(6), uuid="true but deleted"),
    )
    # Right from scratch: no live box of any class at the place.
    draft.manual["1"] = opened(
        box("a", "3", place(0), uuid="m0", by=ME), box("a", "1", place(1), uuid="m1", by=ME, deleted=True)
    )
    row = all_planted(draft.read(tmp_path))["fake_2"]
    assert (row["listed"], row["effective"]) == (8, 6)
    assert counts(row) == (2, 2, 2, 0)
    assert (row["first_round"]["right"], row["first_round"]["n"]) == (5, 6)


def test_an_extra_suggestion_under_another_uuid_is_found_by_its_place(tmp_path: Path) -> None:
    draft = Draft()
    draft.truth["nms"] = [box("a", "1", place(0), uuid="listed")]
    draft.truth["unchanged_1"] = [box("a", "1", place(0), uuid="suggested")]
    draft.assisted["1"] = opened(box("a", "1", place(0), uuid="suggested", deleted=True))
    assert counts(all_planted(draft.read(tmp_path))["nms"]) == (1, 0, 0, 0)


def test_classless_objects_are_caught_by_their_place(tmp_path: Path) -> None:
    draft = Draft()
    draft.truth["ground_truth"] = [box("a", "", place(0), uuid="t0")]
    draft.truth["deleted"] = list(draft.truth["ground_truth"])
    draft.assisted["1"] = opened(box("a", "", place(0), uuid="mine", by=ME))
    assert counts(all_planted(draft.read(tmp_path))["deleted"]) == (1, 0, 0, 0)


def test_images_never_opened_are_counted_apart_in_both_rounds(tmp_path: Path) -> None:
    draft = Draft(assisted={"1": [], "2": []}, manual={"2": [log("b", 0, 1)]})
    draft.truth["nms"] = [box("a", "1", place(0), uuid="x"), box("b", "1", place(0), uuid="y")]
    draft.truth["unchanged_1"] = list(draft.truth["nms"])
    draft.assisted["1"] = opened(*draft.truth["nms"])
    draft.assisted["2"] = [log("b", 0, 1, "Participant_2"), *draft.truth["nms"]]
    draft.manual["2"] = [log("b", 0, 1, "Participant_2")]
    row = all_planted(draft.read(tmp_path))["nms"]
    assert counts(row, "1") == counts(row, "2") == (0, 1, 0, 1)
    assert row["total"] == {"caught": 0, "missed": 2, "changed_wrongly": 0, "never_opened": 2}
    assert row["caught_rate"] == 0
    assert row["first_round"]["per_expert"] == {"2": {"right": 1, "n": 1, "rate": 1.0, "never_opened": 1}}
