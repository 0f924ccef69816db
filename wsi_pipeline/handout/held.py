"""Which of the handouts of a slide its image holds: a call may have been killed, or an older state restored.

Since every handout leaves its mark among the image's properties, in the file and in the write that holds its objects,
an image says it itself, whatever is saved over it or restored. Images that were handed out before that, and those whose
file was made anew from GeoJSON, are told by their objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from wsi_pipeline.files import sha256_bytes
from wsi_pipeline.handout.plan import HandedOutSlide, Plan, snapshot_of
from wsi_pipeline.objects import META_RUN, PathObject
from wsi_pipeline.qupath.protocol import ImageData
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import PROPERTY_HANDOUT

_BY_OBJECTS = "it is told by its objects which handout it holds"
UNKNOWN = (
    f"the mark of the handout in its data.qpdata is none of this image, as when the file of another image or project "
    f"was copied here; {_BY_OBJECTS}"
)
CONTRADICTED = (
    f"the mark of the handout in its data.qpdata names one that does not fit its objects, which all are of another; "
    f"{_BY_OBJECTS}"
)


class Held(NamedTuple):
    """The handout that an image holds, None when nothing was handed out yet; `remark` tells of a mark that is wrong."""

    slide: HandedOutSlide | None
    remark: str | None = None


def marker_of(slide: HandedOutSlide) -> str:
    """The mark of a handout: 32 hex digits of the image's tag and of the snapshot's content, and nothing else.

    Two handouts with the same snapshot have the same mark: for everything that is compared they are one.
    """
    return sha256_bytes(f"{PROPERTY_HANDOUT}\n{slide.tag}\n{slide.sha256}".encode())[:32]


def handout_held(run: RunDir, plan: Plan, newest: HandedOutSlide, now: ImageData) -> Held:
    """The handout whose snapshot the image holds.

    Its mark says which. A mark that is none of the slide's handouts, or of one to which its objects cannot belong while
    they do to another, is passed over with a remark; then, and without any mark, the objects tell (`_by_objects`).

    Parameters
    ----------
    newest
        What the plan says of the slide.
    now
        All objects of the image, and its properties.

    Raises
    ------
    StoreError
        A snapshot that has to be asked is gone or was changed.
    """
    mark = now.properties.get(PROPERTY_HANDOUT)
    if mark is None:
        return Held(_by_objects(run, plan, newest, now.objects))
    marked = next((entry for entry in _chain(newest) if marker_of(entry) == mark), None)
    if marked is None:
        return Held(_by_objects(run, plan, newest, now.objects), UNKNOWN)
    if newest.previous is not None and not _may_hold(run, plan, newest, marked, now.objects):
        return Held(_by_objects(run, plan, newest, now.objects), CONTRADICTED)
    # What a stopped call had marked in the project, it had written.
    return Held(marked.model_copy(update={"complete": True}))


def _may_hold(
    run: RunDir, plan: Plan, newest: HandedOutSlide, marked: HandedOutSlide, now: Sequence[PathObject]
) -> bool:
    """Whether the objects fit the marked handout at least as well as any other.

    Objects of several handouts, brought together by hand, fit none; then the mark alone decides.
    """
    made = {o.uuid for o in now if META_RUN in o.metadata}
    own = _uuids(run, plan, marked)
    if made <= own:
        return True
    handed_out = [_uuids(run, plan, entry) for entry in _chain(newest)]
    present = {o.uuid for o in now} & set().union(*handed_out)
    return present <= own or not any(present <= other for other in handed_out)


def _by_objects(run: RunDir, plan: Plan, newest: HandedOutSlide, now: Sequence[PathObject]) -> HandedOutSlide | None:
    """The handout that fits the objects of an image best; None when nothing was handed out yet.

    An image's objects are exchanged in one go. So of all that was ever handed out the image holds nothing that is not
    in the snapshot of the handout that it stands at. A person may have deleted any of it: of several handouts that fit,
    it is the one of which least is missing, and of equals the newest. Where nothing of any is left, nothing speaks for
    an older one: what was deleted is what was handed out last.
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
    for entry, own, before in zip(entries, handed_out, [*handed_out[1:], None], strict=True):
        coming = own - (before or set())
        # One that was interrupted is there when anything is that only it brings; the first one brings its mark, too.
        is_there = entry.complete or bool(coming & present) or (before is not None and not coming)
        if present <= own and is_there:
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
