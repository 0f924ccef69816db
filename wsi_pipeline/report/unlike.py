"""Is something wrong where tiles are unlike the training slides? A row for each kind of distance and reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import mapping, text

_KINDS: Final = {"appearance": "Colour and sharpness", "structure": "Structure"}


@dataclass(frozen=True, slots=True)
class UnlikeRow:
    """One kind of distance held against one reference.

    Attributes
    ----------
    strange, familiar
        Share of these tiles where the reference differs from the prediction, with how many tiles there are.
    area
        Share of the area that differs which lies in strange tiles.
    n
        Tiles whose distance is known, and slides.
    """

    reference: str
    kind: str
    strange: str
    familiar: str
    area: str
    n: str


@dataclass(frozen=True, slots=True)
class UnlikeTable:
    """The rows, why some are not there, and how they were measured."""

    rows: tuple[UnlikeRow, ...]
    missing: tuple[str, ...]
    source: str

    @property
    def n(self) -> str:
        """How many tiles were looked at; where the rows differ, how many rows there are."""
        found = {row.n for row in self.rows}
        return found.pop() if len(found) == 1 else f"{fmt.counted(len(self.rows), 'comparison')}, each with its own n"


def unlike_table(run: Run) -> UnlikeTable:
    """Read `out_of_distribution` of the parts of metrics.json that hold one."""
    rows, missing, sources = [], [], set()
    for part in _parts(run.metrics):
        found = mapping(part.get("out_of_distribution"))
        for kind, name in _KINDS.items():
            raw = mapping(found.get(kind))
            if known(raw.get("tiles")) is not None:
                rows.append(_row(name, raw))
                sources.add(text(part.get("source")) or run.source)
            elif (why := text(raw.get("reason"))) and (line := f"{name}: {why}") not in missing:
                missing.append(line)
    source = "simulated" if "simulated" in sources else ", ".join(sorted(sources)) or run.source
    return UnlikeTable(tuple(rows), tuple(missing), source)


def _parts(metrics: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield mapping(metrics.get("confidence"))
    yield mapping(metrics.get("second_read"))
    yield mapping(mapping(metrics.get("planted")).get("flags"))
    yield mapping(metrics.get("repeats"))


def _row(kind: str, raw: Mapping[str, Any]) -> UnlikeRow:
    tiles, flagged, slides = (round(known(raw.get(key)) or 0) for key in ("tiles", "flagged", "slides"))
    return UnlikeRow(
        reference=text(raw.get("reference")) or "not stated",
        kind=kind,
        strange=_of(raw.get("precision"), flagged),
        familiar=_of(raw.get("familiar_changed"), tiles - flagged),
        area=fmt.share(known(raw.get("area_recall"))),
        n=f"{fmt.counted(tiles, 'tile')} of {fmt.counted(slides, 'slide')}",
    )


def _of(share: object, tiles: int) -> str:
    return f"{fmt.share(known(share))} of {fmt.integer(tiles)}" if tiles else "no such tile"
