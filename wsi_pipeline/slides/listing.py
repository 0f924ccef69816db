"""The cohort as a table: what each slide is, and every problem that shows before a run."""

from __future__ import annotations

from collections.abc import Iterator
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
    """One line; what is not known is None. Sizes in level-0 px, mpp in µm/px."""

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

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def list_cohort(config: Config, needed_mpp: float | None = None) -> list[SlideRow]:
    """Open every slide and say what was found; a problem is "cause; remedy"."""
    cohort = load_cohort(config)
    with ThreadPoolExecutor(OPENERS) as pool:
        rows = list(pool.map(lambda ref: _row(ref, needed_mpp), cohort.slides))
    return rows + list(_others(cohort))


def _row(ref: SlideRef, needed_mpp: float | None) -> SlideRow:
    row = SlideRow(ref.slide_id, ref.uri, patient=ref.patient, site=ref.site, scanner=ref.scanner)
    try:
        with open_slide(ref, needed_mpp=needed_mpp) as slide:
            return replace(
                row,
                width=slide.size[0],
                height=slide.size[1],
                mpp=slide.mpp,
                mpp_source=slide.mpp_source,
                levels=len(slide.levels),
                reader=slide.reader,
            )
    except SlideError as error:
        return replace(row, problems=(f"{error.cause}; {error.remedy}",))


def _others(cohort: Cohort) -> Iterator[SlideRow]:
    """What the configuration names and what never became a slide."""
    for error in cohort.problems:
        yield SlideRow(slide_id=error.slide, uri=error.slide, problems=(f"{error.cause}; {error.remedy}",))
