"""The raters, under pseudonyms and only where the configuration asks for it: sums over slides, no ranking."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from wsi_pipeline.report.facts import Run, Slide
from wsi_pipeline.report.facts import total as sum_of

# Of fewer slides than this a figure would speak of single slides.
FEWEST_SLIDES = 5


@dataclass(frozen=True, slots=True)
class Rater:
    """One rater; shares from 0 to 1, time in seconds; None where too few slides are reviewed to say."""

    name: str
    assigned: int
    reviewed: int
    active_s: float | None
    untouched: float | None
    changed: float | None


def raters(run: Run) -> tuple[Rater, ...]:
    """One line for each rater, in the order of the pseudonyms; empty unless `privacy.raters_in_report` is set."""
    if not run.show_raters:
        return ()
    return tuple(
        _rater(pseudonym, [s for s in run.slides if s.review is not None and s.review.rater == name])
        for name, pseudonym in sorted(run.pseudonyms.items(), key=lambda item: (len(item[1]), item[1]))
    )


def _rater(pseudonym: str, slides: Iterable[Slide]) -> Rater:
    assigned = list(slides)
    reviews = [slide.reviewed for slide in assigned if slide.reviewed is not None]
    line = Rater(pseudonym, len(assigned), len(reviews), None, None, None)
    if len(reviews) < FEWEST_SLIDES:
        return line
    active = [r.active_s for r in reviews if r.active_s is not None]
    predicted = sum(n for r in reviews for kind, n in r.counts.items() if kind != "added")
    before = sum_of(r.total("area_before") for r in reviews)
    changed = sum_of(r.changed_um2 for r in reviews)
    return Rater(
        name=pseudonym,
        assigned=len(assigned),
        reviewed=len(reviews),
        active_s=statistics.median(active) if len(active) >= FEWEST_SLIDES else None,
        untouched=sum(r.counts.get("untouched", 0) for r in reviews) / predicted if predicted else None,
        changed=changed / before if before and changed is not None else None,
    )


def without_names(words: str, run: Run) -> str:
    """A sentence of another part of the program with the raters' pseudonyms in the place of their names."""
    for name in sorted(run.pseudonyms, key=len, reverse=True):
        words = words.replace(name, run.pseudonyms[name])
    return words
