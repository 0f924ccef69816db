"""Which of the handouts of a slide its image holds: a call may have been killed, or an older state restored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

from wsi_pipeline.handout.plan import HandedOutSlide, Plan, snapshot_of
from wsi_pipeline.objects import META_RUN, PathObject
from wsi_pipeline.rundir import RunDir


def handout_held(run: RunDir, plan: Plan, newest: HandedOutSlide, now: Sequence[PathObject]) -> HandedOutSlide | None:
    """The handout that fits what the image holds; None when nothing was handed out yet.

    An image's objects are exchanged in one go. So of all that was ever handed out the image holds nothing that is not
    in the snapshot of the handout that it stands at. A person may have deleted any of it: of several handouts that fit,
    it is the one of which least is missing, and of equals the newest. Where nothing of any is left, nothing speaks for
    an older one: what was deleted is what was handed out last.

    Parameters
    ----------
    newest
        What the plan says of the slide.
    now
        All objects of the image.

    Raises
    ------
    StoreError
        A snapshot that has to be asked is gone or was changed.
    """
    known = _uuids(run, plan, newest)
    if newest.complete and newest.previous is None:
        return newest
    made = [o for o in now if META_RUN in o.metadata]
    if (
        newest.complete
        and all(o.uuid in known for o in made)
        and any(o.metadata[META_RUN] == newest.run_id for o in made)
    ):
        # Nearly every image: what came last is there, and nothing beside it that came before.
        return newest
    entries = list(_chain(newest))
    handed_out = [known, *(_uuids(run, plan, entry) for entry in entries[1:])]
    present = {o.uuid for o in now} & set().union(*handed_out)
    fits = []
    for entry, own, before in zip(entries, handed_out, [*handed_out[1:], set()], strict=True):
        coming = own - before
        # One that was interrupted is there when anything is that only it brings.
        if present <= own and (entry.complete or not coming or coming & present):
            fits.append((len(own - present), entry.model_copy(update={"complete": True})))
    if fits:
        return (min(fits, key=itemgetter(0)) if present else fits[0])[1]
    # Objects of several handouts, brought together by hand: the last one that was written whole.
    return next((entry for entry in entries if entry.complete), None)


def _chain(entry: HandedOutSlide) -> Iterator[HandedOutSlide]:
    step: HandedOutSlide | None = entry
    while step is not None:
        yield step
        step = step.previous


def _uuids(run: RunDir, plan: Plan, entry: HandedOutSlide) -> set[str]:
    return {o.uuid for o in snapshot_of(run, plan, entry)}
