"""The cohort as a table: what each slide is, and every problem that shows before a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from wsi_pipeline.cohort import Cohort, SlideRef, load_cohort
from wsi_pipeline.config import Config
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.slide import open_slide

# Opening waits for disks and networks, not for processors.
OPENERS = 8


@dataclass(frozen=True, slots=True)
class SlideRow:
    """One line; what is not known is None. Sizes in level-0 px, mpp in µm/px.

    A slide with a problem cannot be used; notes are worth knowing before a run.
    """

    slide_id: str
    uri: str
    width: int | None = None
    height: int | None = None
    mpp: float | None = None
    mpp_source: str | None = None
    levels: int | None = None
    reader: str | None = None
    patient: str | None = None
    site: str | None = None
    scanner: str | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def list_cohort(config: Config, needed_mpp: float | None = None) -> list[SlideRow]:
    """Open every slide and say what was found; a problem is "cause; remedy"."""
    cohort = load_cohort(config)
    with ThreadPoolExecutor(OPENERS) as pool:
        looked = list(pool.map(lambda ref: _row(ref, needed_mpp), cohort.slides))
    return list(_with_copies(looked)) + list(_others(cohort))


def _row(ref: SlideRef, needed_mpp: float | None) -> tuple[SlideRow, str | None]:
    """The slide's line, and its fingerprint when it can be used."""
    row = SlideRow(ref.slide_id, ref.uri, patient=ref.patient, site=ref.site, scanner=ref.scanner)
    try:
        with open_slide(ref, needed_mpp=needed_mpp) as slide:
            row = replace(
                row,
                width=slide.size[0],
                height=slide.size[1],
                mpp=slide.mpp,
                mpp_source=slide.mpp_source,
                levels=len(slide.levels),
                reader=slide.reader,
                notes=slide.notes,
            )
            return row, slide.fingerprint()
    except SlideError as error:
        return replace(row, problems=(f"{error.cause}; {error.remedy}",)), None


def _with_copies(looked: Iterable[tuple[SlideRow, str | None]]) -> Iterator[SlideRow]:
    """The lines, with a note where a slide is a copy: it would be read twice, and could be trained and tested on."""
    first: dict[str, str] = {}
    for row, fingerprint in looked:
        twin = None if fingerprint is None else first.setdefault(fingerprint, row.slide_id)
        if twin in {None, row.slide_id}:
            yield row
        else:
            yield replace(row, notes=(*row.notes, f"it looks like a copy of {twin}: list each slide once"))


def _others(cohort: Cohort) -> Iterator[SlideRow]:
    """What the configuration names and what never became a slide."""
    for error in cohort.problems:
        yield SlideRow(slide_id=error.slide, uri=error.slide, problems=(f"{error.cause}; {error.remedy}",))
