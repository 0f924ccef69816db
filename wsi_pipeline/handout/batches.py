"""One rater and no study: which slides are in which batch, so that no project grows beyond what QuPath holds well."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.handout.images import HandoutSlide
from wsi_pipeline.handout.plan import Plan


def batches_alone(
    slides: Iterable[HandoutSlide], plans: Sequence[Plan], rater: str, size: int
) -> list[tuple[int, str, list[HandoutSlide]]]:
    """Number, project (from the run directory) and slides of each batch, the first one first.

    A slide that was handed out stays where it is. New ones fill the last batch, and then begin further ones.

    Parameters
    ----------
    plans
        All batches that there are.
    size
        Images in one project, at most; a batch that holds more already keeps them.

    Raises
    ------
    ProjectError
        A batch is another rater's, or is none of those that are made here.
    """
    projects = {1: "project/project.qpproj"}
    batch_of: dict[str, int] = {}
    counts: dict[int, int] = {}
    for plan in plans:
        found = re.fullmatch(r"batch-([1-9][0-9]*)", plan.batch)
        if found is None:
            raise ProjectError(f"{plan.folder} is no batch of one rater without a study; use another `output`")
        if plan.rater != rater:
            raise ProjectError(
                f"{plan.batch} was handed out to {plan.rater}, the configuration names {rater}; "
                "a project never changes hands: use another output for another rater"
            )
        number = int(found.group(1))
        projects[number] = plan.project
        counts[number] = len(plan.slides)
        batch_of |= {slide.slide_id: number for slide in plan.slides}
    last = max(counts, default=1)
    of_batch: dict[int, list[HandoutSlide]] = {1: []}
    for slide in slides:
        number = batch_of.get(slide.slide_id, 0)
        if not number:
            if counts.get(last, 0) >= size:
                last += 1
            number = last
            counts[number] = counts.get(number, 0) + 1
        of_batch.setdefault(number, []).append(slide)
    return [
        (number, projects.get(number, f"projects/batch-{number}-{rater}/project.qpproj"), of_batch[number])
        for number in sorted(of_batch)
    ]
