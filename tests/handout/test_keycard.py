"""The page in the project says what the scripts really do."""

from __future__ import annotations

import re

from wsi_pipeline.handout.keycard import key_card, study_card
from wsi_pipeline.resources import resource

SCRIPT = (resource("qupath_scripts") / "wsi_review.groovy").read_text(encoding="utf-8")
CARDS = [
    key_card("For the study."),
    study_card("For the study.", arms={"assisted", "manual"}, blind=True, planted=True, guideline="GUIDELINE.md"),
]


def keys_of(card: str) -> set[str]:
    rows = re.findall(r"^\| ([^|]+) \|", card.split("## Keys of the review window")[1], re.MULTILINE)
    return {key.strip().upper() for row in rows if row != "key" for key in row.split(",")}


def test_every_key_of_the_review_panel_is_on_the_card_and_no_other() -> None:
    handled = set(re.findall(r"code == KeyCode\.([A-Z]+)", SCRIPT.split("void pressed")[1].split("\n    }")[0]))
    assert handled >= {"N", "P", "A", "F", "R", "I", "O", "RIGHT", "LEFT"}
    assert "code != KeyCode.S" in SCRIPT
    for card in CARDS:
        assert keys_of(card) == handled | {"1 TO 9", "CTRL+S"}


def test_the_menu_and_the_words_are_those_of_the_scripts() -> None:
    startup = (resource("qupath_scripts") / "wsi_startup.groovy").read_text(encoding="utf-8")
    for card in CARDS:
        assert "Extensions > Review study" in card
        assert "For the study." in card
        for word in ("wsi_state", "reviewed", "in_progress"):
            assert word in card
            assert word in SCRIPT
    assert "Review study" in startup


def test_the_card_of_a_study_says_first_what_is_special() -> None:
    card = CARDS[1]
    assert card.index("## This study") < card.index("## Keys of the review window")
    assert "wrong on purpose" in card
    assert "GUIDELINE.md" in card
    assert "wrong on purpose" not in CARDS[0]
