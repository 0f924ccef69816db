"""What is new for audit.jsonl."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from wsi_pipeline.audit import AuditEntry
from wsi_pipeline.collect.trail import REVERTED, what_is_new


def edited(rater: str, after: str) -> AuditEntry:
    facts = {"batch": "batch-1", "uuid_before": "u", "uuid_after": "u"}
    return AuditEntry(rater, "edited", "slide", "u", "hash-0", after, facts)


def told(*entries: AuditEntry) -> list[dict[str, Any]]:
    return [asdict(entry) for entry in entries]


def test_two_raters_who_change_the_same_object_of_the_same_batch_are_both_told_of() -> None:
    anna, ben = edited("anna", "hash-1"), edited("ben", "hash-2")
    images = [("batch-1", "anna", "slide", [anna]), ("batch-1", "ben", "slide", [ben])]
    assert what_is_new([], images) == [anna, ben]
    assert what_is_new(told(anna), images) == [ben]
    assert what_is_new(told(anna, ben), images) == []


def test_a_change_that_one_rater_takes_back_stays_the_others() -> None:
    anna, ben = edited("anna", "hash-1"), edited("ben", "hash-2")
    (back,) = what_is_new(told(anna, ben), [("batch-1", "anna", "slide", []), ("batch-1", "ben", "slide", [ben])])
    assert (back.actor, back.action, back.before, back.after) == ("anna", REVERTED, "hash-1", "hash-0")


def test_what_becomes_another_change_is_told_again() -> None:
    once, more = edited("anna", "hash-1"), edited("anna", "hash-3")
    assert what_is_new(told(once), [("batch-1", "anna", "slide", [more])]) == [more]
    assert what_is_new(told(once, more), [("batch-1", "anna", "slide", [more])]) == []
