"""What collecting adds to audit.jsonl: each change once, and once more when it becomes another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import shapely

from wsi_pipeline.audit import AuditEntry
from wsi_pipeline.collect.matching import Change, Pair
from wsi_pipeline.files import sha256_bytes
from wsi_pipeline.objects import PathObject

REVERTED = "reverted"
_COLLECTED = {str(change) for change in Change} | {REVERTED}
Key = tuple[str, str, str, str | None, str | None]


def digests_of(items: Sequence[PathObject | None]) -> list[str | None]:
    """Hash of what a person can change: shape (to 0.01 px), class, name; None where there is no object."""
    shapes = np.array([*(None if item is None else item.geometry for item in items), None], dtype=object)[:-1]
    # GEOS writes bytes much faster than their hexadecimal digits.
    written = shapely.to_wkb(shapely.set_precision(shapes, 0.01, mode="pointwise"))
    return [None if item is None else _digest(item, shape) for item, shape in zip(items, written, strict=True)]


def _digest(item: PathObject, shape: bytes | None) -> str:
    digits = None if shape is None else shape.hex().upper()
    return sha256_bytes(orjson.dumps([str(item.kind), item.path_class, item.name, digits]))


def changes_of(batch: str, rater: str, image: str, pairs: Sequence[Pair]) -> tuple[AuditEntry, ...]:
    """One entry for each pair that is not untouched."""
    changed = [pair for pair in pairs if pair.change is not Change.UNTOUCHED]
    before, after = digests_of([pair.before for pair in changed]), digests_of([pair.after for pair in changed])
    return tuple(
        AuditEntry(
            actor=rater,
            action=str(pair.change),
            image=image,
            object=pair.after.uuid if pair.after else pair.before.uuid if pair.before else None,
            before=digest_before,
            after=digest_after,
            facts={
                "batch": batch,
                "uuid_before": pair.before.uuid if pair.before else None,
                "uuid_after": pair.after.uuid if pair.after else None,
                "class_before": pair.before.path_class if pair.before else None,
                "class_after": pair.after.path_class if pair.after else None,
            },
        )
        for pair, digest_before, digest_after in zip(changed, before, after, strict=True)
    )


def what_is_new(
    known: Iterable[Mapping[str, Any]], images: Iterable[tuple[str, str, str, Sequence[AuditEntry]]]
) -> list[AuditEntry]:
    """Entries that the log does not hold yet.

    Parameters
    ----------
    known
        Lines of the log.
    images
        Batch, rater, image and its changes, of all images that were collected. A change that the log tells and that
        is no more there gives a `reverted`; images that are not among these are left alone.
    """
    last: dict[Key, Mapping[str, Any]] = {}
    for line in known:
        if line["action"] in _COLLECTED:
            facts = line["facts"]
            last[facts["batch"], line["actor"], line["image"], facts["uuid_before"], facts["uuid_after"]] = line
    new: list[AuditEntry] = []
    for batch, rater, image, changes in images:
        now: dict[Key, AuditEntry] = {
            (batch, rater, image, e.facts["uuid_before"], e.facts["uuid_after"]): e for e in changes
        }
        for key, line in last.items():
            of_this = key[:3] == (batch, rater, image)
            if of_this and key not in now and line["action"] != REVERTED:
                new.append(
                    AuditEntry(rater, REVERTED, image, line["object"], line["after"], line["before"], line["facts"])
                )
        for key, entry in now.items():
            before = last.get(key)
            told = None if before is None else (before["action"], before["before"], before["after"])
            if told != (entry.action, entry.before, entry.after):
                new.append(entry)
    return new
