"""What was done to the project of a run by `restore` and `relocate`, for the run's audit.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsi_pipeline import audit
from wsi_pipeline.handout.plan import Plan, run_of
from wsi_pipeline.qupath.data_files import FileChange, Witness
from wsi_pipeline.qupath.history import Restored, restore
from wsi_pipeline.qupath.project_file import project_path, read_project_file
from wsi_pipeline.qupath.relocate import Move, relocate
from wsi_pipeline.states import META_SLIDE

RESTORED = "restored"
RELOCATED = "relocated"


def restore_and_note(path: Path, at: str, image: str | None = None, *, dry_run: bool = False) -> list[Restored]:
    """As `qupath.history.restore`, with a line in the log of the run that the project lies in.

    Raises
    ------
    ProjectError
        As `restore`.
    StoreError
        The log is damaged, or the run's plan cannot be read: then nothing is restored.
    """
    return restore(path, at, image, dry_run=dry_run, witness=_witness(path, RESTORED))


def relocate_and_note(path: Path, old: str, new: str, *, dry_run: bool = False) -> list[Move]:
    """As `qupath.relocate.relocate`, with lines in the log of the run that the project lies in; raises as above."""
    return relocate(path, old, new, dry_run=dry_run, witness=_witness(path, RELOCATED))


def _witness(path: Path, action: str) -> Witness | None:
    """None for a project outside of a run, which has no log.

    Lines are written before the files are: a call that is killed may leave a line without its change, never a change
    without its line. They hold no address and no name of a file, so that the log of a strict run gives none away.
    """
    target = project_path(path)
    run, plan = run_of(target)
    if run is None or plan is None:
        return None
    root = run.root

    def note(changes: Sequence[FileChange]) -> None:
        slides = _slides_of(plan, target)
        audit.append(root, [_line(plan, action, change, slides.get(change.entry_id)) for change in changes])

    return note


def _line(plan: Plan, action: str, change: FileChange, slide_id: str | None) -> audit.AuditEntry:
    # An image that a person added is none of the handed-out ones; its number says which it is.
    facts = {"batch": plan.batch, "rater": plan.rater, "entry_id": change.entry_id}
    return audit.AuditEntry("wsi-pipeline", action, slide_id or "", None, change.before, change.after, facts)


def _slides_of(plan: Plan, target: Path) -> dict[int, str]:
    """Slide ids of the plan by entry of the project: by the image's metadata, else by the entry of the handout."""
    known = {slide.entry_id: slide.slide_id for slide in plan.slides if slide.entry_id is not None}
    by_tag = {slide.tag: slide.slide_id for slide in plan.slides}
    found = {
        entry.entry_id: by_tag.get(entry.metadata.get(META_SLIDE, "")) for entry in read_project_file(target).entries
    }
    return {**known, **{entry_id: slide_id for entry_id, slide_id in found.items() if slide_id is not None}}
