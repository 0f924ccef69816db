"""The same machine as in `test_sequences`, walked at random over long ways: hypothesis prefers short ones."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.collect.test_sequences import SLIDES, Review

# How often each act comes, of a hundred or so; a review is mostly edits.
WEIGHTS = {
    "brush": 12,
    "slip": 11,
    "classify": 7,
    "annotate": 5,
    "judge_a_tile": 4,
    "delete": 5,
    "split": 7,
    "merge": 5,
    "draw": 4,
    "draw_inside": 4,
    "sliver": 4,
    "undo": 5,
    "finish": 0.3,
    "hand_out_again": 2,
    "a_new_model": 5,
    "the_slides_move": 2,
    "an_older_state_comes_back": 3,
    "the_machine_dies": 7,
    "collect_now": 7,
}
DEADLY = ["hand out", "new model", "new model", "collect", "relocate", "restore"]


def arguments(dice: random.Random, act: str) -> dict[str, Any]:
    which, at = {"s": dice.choice(SLIDES)}, {"at": dice.randint(0, 40)}
    steps = [-90, -30, -3, 0, 3, 30, 90]
    words: dict[str, dict[str, Any]] = {
        "brush": {"by": dice.choice([12.0, 25.0, 60.0]), "adds": dice.random() < 0.5},
        "slip": {"x": dice.choice(steps), "y": dice.choice(steps)},
        "classify": {"name": dice.choice(["Stroma", "Tumor", "Ignore*", None])},
        "annotate": {"what": dice.choice(["name", "lock", "describe"])},
        "judge_a_tile": {"value": dice.choice([1.0, 2.0])},
        "merge": {"other": dice.randint(0, 40)},
    }
    if act in {"hand_out_again", "a_new_model", "the_slides_move", "collect_now"}:
        return {}
    if act == "an_older_state_comes_back":
        return at
    if act == "the_machine_dies":
        return {**at, "what": dice.choice(DEADLY), "act": dice.randint(1, 60), "again": dice.random() < 0.5}
    if act in {"draw", "undo", "finish"}:
        return which
    return {**which, **at, **words.get(act, {})}


def walk(seed: int, steps: int) -> None:
    dice = random.Random(seed)
    machine, way = Review(), [f"seed {seed}"]
    try:
        machine.first_handout(dies=dice.choice([None, dice.randint(1, 60)]))
        for _ in range(steps):
            (act,) = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
            chosen = arguments(dice, act)
            way.append(f"machine.{act}(**{chosen})")
            getattr(machine, act)(**chosen)
            machine.no_work_is_lost_or_altered()
        way.append("the end")
        machine.sound_at_the_end()
    except AssertionError as error:
        error.add_note("\n".join(way))
        raise
    finally:
        machine.remove()


def test_a_way_of_some_steps_loses_nothing() -> None:
    walk(1, 25)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10, 15))
def test_a_long_way_loses_nothing(seed: int) -> None:
    walk(seed, 150)
