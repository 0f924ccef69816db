"""The plan of a study: who sees which slide, in which arm, in which order. Pure arithmetic with a seed, no files.

A slide's place depends on the seed, its id and its stratum. Slides that come later make batches of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from pydantic import BaseModel, ConfigDict

from wsi_pipeline.config import Arm, Handout, Planting
from wsi_pipeline.handout.plan import BATCH, folder_of


@dataclass(frozen=True, slots=True)
class PlannedSlide:
    """A slide that is to be handed out; `stratum` names its group (site, scanner, share of tumour)."""

    slide_id: str
    stratum: str = ""


class Case(BaseModel):
    """One image of a batch: `position` counts from 1 over all that the rater sees, `name` is the masked name."""

    model_config = ConfigDict(frozen=True)

    slide_id: str
    arm: Arm
    position: int
    repeat: bool = False
    name: str | None = None
    planted: Planting | None = None


class StudyBatch(BaseModel):
    """What one rater gets at once. `project` counts from the run directory.

    The batch waits until `washout_days` after the last work in those named by `after`.
    """

    model_config = ConfigDict(frozen=True)

    batch: str
    rater: str
    project: str
    cases: tuple[Case, ...]
    after: tuple[str, ...] = ()
    washout_days: float = 0.0

    @property
    def name(self) -> str:
        """Name of the batch that no other has, and of its folder in `handout/`."""
        return folder_of(self.batch, self.project)


class Design(BaseModel):
    """What decides a plan; it stays as it was when the first batch was planned."""

    model_config = ConfigDict(frozen=True)

    raters: tuple[str, ...]
    arms: tuple[Arm, ...]
    design: Literal["crossover", "parallel", "divided"]
    seed: int
    repeats: float
    washout_days: float
    blind: bool
    stratify: tuple[str, ...]
    planted_share: float
    planted_kinds: tuple[Planting, ...]

    @classmethod
    def of(cls, settings: Handout) -> Design:
        values = settings.model_dump(include=set(cls.model_fields))
        return cls(**values, planted_share=settings.planted.share, planted_kinds=settings.planted.kinds)


def batches_of(
    design: Design, slides: Sequence[PlannedSlide], batch_size: int, earlier: Sequence[StudyBatch] = ()
) -> list[StudyBatch]:
    """Batches for slides that are in none of the `earlier` ones; the same input gives the same batches.

    In a crossover each rater sees each slide once in each arm, the arms of a slide after a wash-out; in parallel
    groups once, in one arm; divided, each slide goes to one rater. Within every stratum the arms alternate, neighbours
    in the list of raters begin with opposite arms, and within a batch the arms take turns.
    """
    known = {case.slide_id for batch in earlier for case in batch.cases}
    order = _in_order(design.seed, [s for s in slides if s.slide_id not in known])
    repeated = set(_repeated(design, order))
    found: list[StudyBatch] = []
    for index, rater in enumerate(design.raters):
        own = [batch for batch in earlier if batch.rater == rater]
        number, position = len(own), sum(len(batch.cases) for batch in own)
        first: list[str] = []
        arms = _arms_of(design, order, index)
        for period, (again, sequence) in enumerate(_periods(design, index, order, arms, repeated)):
            names = []
            for start in range(0, len(sequence), batch_size):
                number += 1
                batch = StudyBatch(
                    batch=f"{BATCH.removesuffix('1')}{number}",
                    rater=rater,
                    project=_project(design, rater, number),
                    cases=tuple(
                        _case(design, rater, slide_id, arm, position + i, again)
                        for i, (slide_id, arm) in enumerate(sequence[start : start + batch_size], start=1)
                    ),
                    after=tuple(first),
                    washout_days=design.washout_days if period else 0.0,
                )
                position += len(batch.cases)
                names.append(batch.name)
                found.append(batch)
            first += names
    return found


def _periods(
    design: Design, index: int, order: Sequence[str], arms: dict[str, int], repeated: set[str]
) -> Iterator[tuple[bool, list[tuple[str, Arm]]]]:
    """Whether it is a repeat, and slides with their arms in the order of reading, one after the other in time."""
    count = len(design.arms)
    rounds = count if design.design == "crossover" else 1
    for period in range(rounds):
        given = [(slide_id, design.arms[(arms[slide_id] + period) % count]) for slide_id in order if slide_id in arms]
        yield False, _taking_turns(design, index, f"period {period}", given)
    again = [(slide_id, design.arms[arms[slide_id]]) for slide_id in order if slide_id in arms and slide_id in repeated]
    if again:
        yield True, _taking_turns(design, index, "repeat", again)


def _arms_of(design: Design, order: Sequence[str], index: int) -> dict[str, int]:
    """Index of the arm in which a rater first sees each of their slides."""
    raters, arms = len(design.raters), len(design.arms)
    if design.design == "divided":
        return {s: (i // raters) % arms for i, s in enumerate(order) if i % raters == index}
    return {s: (i + index) % arms for i, s in enumerate(order)}


def _in_order(seed: int, slides: Sequence[PlannedSlide]) -> list[str]:
    """Slide ids by stratum, drawn at random within it."""
    ranked = sorted(slides, key=lambda s: (s.stratum, _draw(seed, "order", s.slide_id)))
    return [slide.slide_id for slide in ranked]


def _repeated(design: Design, order: Sequence[str]) -> list[str]:
    """Every so-many-th slide of the order, so that every stratum has its share."""
    wanted = min(len(order), round(design.repeats * len(order)))
    return [order[int((i + 0.5) * len(order) / wanted)] for i in range(wanted)]


def _taking_turns(design: Design, index: int, what: str, given: Sequence[tuple[str, Arm]]) -> list[tuple[str, Arm]]:
    """A random order of reading in which the arms alternate; the next rater begins with another arm."""
    count = len(design.arms)
    queues = []
    for turn in range(count):
        arm = design.arms[(turn + index) % count]
        own = [item for item in given if item[1] == arm]
        key = f"{what} {design.raters[index]}"
        queues.append(sorted(own, key=lambda item: _draw(design.seed, key, item[0])))
    # The longer queue goes first, or its last two would stand side by side.
    queues.sort(key=len, reverse=True)
    return [item for row in zip_longest(*queues) for item in row if item is not None]


def _case(design: Design, rater: str, slide_id: str, arm: Arm, position: int, again: bool) -> Case:
    planted = None
    draw = _draw(design.seed, f"planted {rater} {again}", slide_id)
    if arm == "assisted" and design.planted_kinds and draw < design.planted_share:
        which = _draw(design.seed, f"kind {rater} {again}", slide_id)
        planted = design.planted_kinds[int(which * len(design.planted_kinds))]
    name = f"case-{position:04d}" if design.blind else None
    return Case(slide_id=slide_id, arm=arm, position=position, repeat=again, name=name, planted=planted)


def _project(design: Design, rater: str, number: int) -> str:
    alone = len(design.raters) == 1 and number == 1
    return "project/project.qpproj" if alone else f"projects/batch-{number}-{rater}/project.qpproj"


def _draw(seed: int, what: str, slide_id: str) -> float:
    """A number in [0, 1) that depends on these words alone: other slides do not move it."""
    digest = hashlib.sha256(f"{seed}\n{what}\n{slide_id}".encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56
