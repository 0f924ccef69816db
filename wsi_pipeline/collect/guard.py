"""Objects that are gone: deleted by a person, or lost? An image whose losses nobody can have caused is left out."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.collect.matching import Change, Pair
from wsi_pipeline.measures import EventType, Session
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.history import history_of
from wsi_pipeline.states import ImageState, Source

# Up to so many regions without any review tile may all be wrong, and be deleted without a word.
FEW = 3


@dataclass(frozen=True, slots=True)
class ImageLog:
    """What the event logs of a project say about one image: acts of people, uuids that were deleted, sources."""

    actions: int = 0
    deleted: frozenset[str] = frozenset()
    sources: frozenset[Source] = frozenset()

    @classmethod
    def of(cls, sessions: Iterable[Session], entry_id: int) -> ImageLog:
        found = [
            (event, session.source)
            for session in sessions
            for event in session.events
            if event.image == str(entry_id) and event.type.is_action
        ]
        deleted = {event.object for event, _ in found if event.type is EventType.DELETE and event.object}
        return cls(len(found), frozenset(deleted), frozenset(source for _, source in found))


def loss(
    before: Sequence[PathObject],
    after: Sequence[PathObject],
    pairs: Sequence[Pair],
    state: ImageState,
    log: ImageLog,
    entry_id: int,
    project: Path | None = None,
) -> str | None:
    """Why an image cannot be trusted, with the remedy; None when every loss can be a person's work.

    Parameters
    ----------
    before, after
        What was handed out, and all objects as they are now.
    pairs
        Of `match`: an object that lives on under another uuid is no loss.
    """
    missing = {p.before.uuid for p in pairs if p.change is Change.DELETED and p.before is not None}
    unexplained = missing - log.deleted
    restore = f"restore data/{entry_id}/data.qpdata from history/, snapshots/ or a backup"
    copies = [c for c in history_of(project) if c.entry_id == entry_id] if project is not None else []
    if project is not None and copies:
        folder = shlex.quote(str(project.parent))
        restore = f"run `wsi-pipeline project restore {folder} --at {copies[-1].id}`"
        place = project.parent / "snapshots" / str(entry_id)
        if any(p.stat().st_mtime > copies[-1].saved.timestamp() for p in place.glob("*.geojson")):
            # Of QuPath's script: work that was never saved is only there.
            restore += f" (newer regions lie in snapshots/{entry_id}/, to be imported in QuPath)"
    if _nothing_is_left(before, after) and not _was_meant(before, unexplained, state):
        return (
            f"all {len(before)} objects that were handed out are gone, as happens when QuPath opens a damaged file as "
            f"an empty image; {restore}, or, if it was meant, set its `wsi_state` to `{ImageState.ADJUDICATED}`"
        )
    only_losses = all(p.change in {Change.DELETED, Change.UNTOUCHED} for p in pairs)
    if unexplained and only_losses and state is ImageState.TODO and not log.actions:
        return (
            f"{len(unexplained)} of {sum(p.before is not None for p in pairs)} regions are gone, although by its state "
            f"and by the logs nobody has worked on it; {restore}, or, if it was meant, set its `wsi_state` to "
            f"`{ImageState.IN_PROGRESS}` or `{ImageState.REVIEWED}`"
        )
    return None


def _nothing_is_left(before: Sequence[PathObject], after: Sequence[PathObject]) -> bool:
    """Whether no object that was handed out is there, whatever was drawn since."""
    return bool(before) and not {o.uuid for o in before} & {o.uuid for o in after}


def _was_meant(before: Sequence[PathObject], unexplained: set[str], state: ImageState) -> bool:
    """Whether a person can have taken everything away.

    Somebody who deletes every region leaves the review tiles, which no brush touches. Where no tile was handed out, a
    few regions may all be wrong; many of them only when the image is said to be reviewed.
    """
    if state in {ImageState.ADJUDICATED, ImageState.LOCKED}:
        return True
    if not unexplained and any(o.kind is Kind.ANNOTATION for o in before):
        return True
    if any(o.kind is Kind.TILE for o in before):
        return False
    return len(before) <= FEW or state.is_reviewed
