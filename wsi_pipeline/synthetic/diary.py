"""The event log of a simulated session, as `qupath_scripts/wsi_event_log.groovy` writes it, with made-up times."""

from __future__ import annotations

import hashlib
import uuid as uuid_module
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.files import write_bytes
from wsi_pipeline.states import EVENTS, Source

SCHEMA = 1
SCRIPT = "simulated pathologist 1"
# 2026-03-02, 08:00 UTC: fixed, so that the same seed gives the same log.
EPOCH_MS = 1_772_438_400_000
HEARTBEAT_MS = 30_000


class Diary:
    """One start of QuPath. The clock runs only while something is done; `write` makes the file.

    Parameters
    ----------
    marker
        What `wsi_pipeline.json` beside the project says.
    start_ms
        UTC in ms.
    """

    def __init__(
        self, marker: Mapping[str, Any], rater: str, rng: np.random.Generator, start_ms: int = EPOCH_MS
    ) -> None:
        self._rng = rng
        self._rater = rater
        self._image: str | None = None
        self._beat = start_ms
        self._lines: list[dict[str, Any]] = []
        self.now_ms = start_ms
        self._append(
            {
                "schema": SCHEMA,
                "type": "header",
                "qupath": "simulated",
                "script": SCRIPT,
                "project": marker.get("project"),
                "run": marker.get("run_id"),
                "batch": marker.get("batch"),
                "rater": rater,
                "source": str(Source.SIMULATED),
                "host": "simulated",
            }
        )

    def open(self, entry_id: int, objects: int) -> None:
        """An image comes to the front."""
        self._image = str(entry_id)
        self._beat = self.now_ms
        self._append({"type": "open", "image": self._image, "objects": objects})

    def close(self) -> None:
        """It leaves; what was changed was saved before."""
        self._append({"type": "close", "image": self._image})
        self._image = None

    def looks(self, median_s: float) -> None:
        """Time passes over the image, with a heartbeat every 30 s; how much is drawn from a lognormal."""
        until = self.now_ms + int(1000 * median_s * self._rng.lognormal(0.0, 0.45))
        while self._image is not None and self._beat + HEARTBEAT_MS <= until:
            self._beat += HEARTBEAT_MS
            self.now_ms = max(self.now_ms, self._beat)
            self._append({"type": "heartbeat", "image": self._image})
        self.now_ms = until

    def away(self, seconds: float) -> None:
        """Somebody comes in: the window loses the focus and gets it back; no heartbeat in between."""
        self._append({"type": "blur", "image": self._image})
        self.now_ms += int(1000 * seconds)
        self._beat = self.now_ms
        self._append({"type": "focus", "image": self._image})

    def strokes(self, uuid: str, shape: BaseGeometry, count: int, *, created: bool = False) -> None:
        """`count` brush strokes on one object, of which the last leaves it with `shape`."""
        final = shape_hash(shape)
        for number in range(count):
            self.looks(3.0)
            last = number == count - 1
            text = final if last else hashlib.sha256(f"{final}{number}".encode()).hexdigest()[:16]
            event: dict[str, Any] = {"type": "edit", "image": self._image, "object": uuid, "hash": text}
            if created and number == 0:
                event |= {"created": True, "class": None}
            self._append(event)

    def created(self, uuid: str, shape: BaseGeometry, path_class: str | None) -> None:
        """A menu command made an object (merge, split): it is there at once, with its class."""
        event = {"type": "edit", "image": self._image, "object": uuid, "hash": shape_hash(shape)}
        self._append(event | {"created": True, "class": path_class})

    def classified(self, uuid: str, path_class: str | None) -> None:
        self._append({"type": "class", "image": self._image, "object": uuid, "class": path_class})

    def deleted(self, uuid: str) -> None:
        self._append({"type": "delete", "image": self._image, "object": uuid})

    def saved(self) -> None:
        self._append({"type": "save", "image": self._image})

    def write(self, project_folder: Path) -> Path:
        """Write `events/<rater>-<uuid>.jsonl` and return its path."""
        name = uuid_module.UUID(bytes=self._rng.bytes(16), version=4)
        path = project_folder / EVENTS / f"{self._rater}-{name}.jsonl"
        write_bytes(path, b"".join(orjson.dumps(line) + b"\n" for line in self._lines))
        return path

    def _append(self, event: dict[str, Any]) -> None:
        self._lines.append({"seq": len(self._lines), "t": self.now_ms, **event})
        self.now_ms += int(self._rng.integers(20, 120))


def shape_hash(shape: BaseGeometry) -> str:
    """Sixteen hex digits of the outline's points: another shape, another hash."""
    points = shapely.get_coordinates(shape)
    text = shape.geom_type + "".join(f"{x:.2f} {y:.2f};" for x, y in points)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
