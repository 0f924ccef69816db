"""Ids of objects: UUIDs as QuPath writes and reads them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence

import numpy as np

from wsi_pipeline.errors import QuPathFormatError

UUID_SIZE = 36
_DASHES = [8, 13, 18, 23]
_HEX = np.isin(np.arange(256), np.frombuffer(b"0123456789abcdef", dtype=np.uint8))
CANONICAL = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_BITS = (32, 16, 16, 16, 48)
_LENIENT = re.compile("-".join(["([0-9a-fA-F]{1,16})"] * len(_BITS)))


def are_canonical(joined: bytes) -> bool:
    """Whether bytes are nothing but UUIDs of 36 characters each in lower case, one after the other."""
    if len(joined) % UUID_SIZE:
        return False
    signs = np.frombuffer(joined, dtype=np.uint8).reshape(-1, UUID_SIZE)
    usable = _HEX[signs]
    usable[:, _DASHES] = signs[:, _DASHES] == ord("-")
    return bool(usable.all())


def check_uuids(texts: Sequence[str]) -> None:
    """Refuse an id for which QuPath would make up another one at each opening.

    Raises
    ------
    QuPathFormatError
        Names the first that is no UUID of 36 characters in lower case.
    """
    for text in texts:
        if len(text) != UUID_SIZE or not text.isascii():
            raise _no_uuid(text)
    if not are_canonical("".join(texts).encode("ascii")):
        raise _no_uuid(next(text for text in texts if not CANONICAL.fullmatch(text)))


def _no_uuid(text: str) -> QuPathFormatError:
    return QuPathFormatError(
        f"{text[:80]!r} is no id for an object: QuPath wants a UUID of 36 characters in lower case"
    )


def parse_uuid(text: str | None) -> str | None:
    """The id as Java's `UUID.fromString` reads it, which is lenient; None where QuPath would give a random one."""
    parts = _LENIENT.fullmatch(text) if text is not None and len(text) <= UUID_SIZE else None
    if parts is None:
        return None
    number = 0
    for part, bits in zip(parts.groups(), _BITS, strict=True):
        number = number << bits | int(part, 16) & (1 << bits) - 1
    return str(uuid.UUID(int=number))
