"""Forgetting a rater or a slide: what names them is removed or given a random name, and what is left is listed."""

from __future__ import annotations

import logging
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wsi_pipeline import audit
from wsi_pipeline.config import Review
from wsi_pipeline.errors import ConfigError, StoreError, WsiError
from wsi_pipeline.files import atomic, read_json, write_bytes, write_json
from wsi_pipeline.handout import read_plans
from wsi_pipeline.inference.access import remove_store, store_exists
from wsi_pipeline.inference.places import recorded_place
from wsi_pipeline.keys import KeyTable
from wsi_pipeline.privacy.logs import going, let_go
from wsi_pipeline.privacy.patterns import KINDS, Known
from wsi_pipeline.privacy.scan import scan
from wsi_pipeline.qupath.removal import remove_images
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.spent import lines_of, read_spent
from wsi_pipeline.states import MARKER, META_RATER

logger = logging.getLogger(__name__)

RECORD = "forgotten.json"
# What the log calls a slide that was forgotten.
FORGOTTEN = "forgotten"
SCHEMA_VERSION = 1


@dataclass(slots=True)
class Forgotten:
    """What was done (or would be, in a dry run), and what still says the name."""

    name: str
    dry_run: bool
    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def forget_rater(run: RunDir, rater: str, review: Review, *, dry_run: bool = False) -> Forgotten:
    """Delete the rater's event logs and give the rater's rows a random name; times and corrections stay under it.

    Raises
    ------
    ConfigError
        Nobody of that name was handed out anything, or adjudicates.
    """
    plans = read_plans(run)
    people = {*(plan.rater for plan in plans), *review.adjudicators}
    if rater not in people:
        known = ", ".join(sorted(people)) or "none"
        raise ConfigError(f"--rater {rater}: nothing was handed out to that name; raters of this run: {known}")
    name = f"forgotten-{secrets.token_hex(4)}"
    result = Forgotten(name, dry_run)
    logs = going(run, plans, review, lambda _, session: session.rater == rater)
    result.done += [f"delete {_told(run, log)}" for batch in logs for log in batch.logs]
    if not dry_run:
        let_go(run, logs, {rater: name})
    for path in sorted(run.review.rglob("*.parquet")):
        _change_table(run, path, result, lambda table: _renamed(table, rater, name), "rename the rater in {}")
    jsons = [run.metrics, *sorted(run.handout.glob("*/plan.json"))]
    jsons += sorted({(run.root / plan.project).parent / MARKER for plan in plans})
    for path in jsons:
        _change_json(run, path, result, lambda value: _rater_as(value, rater, name))
    for folder in sorted({(run.root / plan.project).parent for plan in plans}):
        for path in sorted(folder.rglob("*.qpproj*")):
            _change_project(run, path, result, rater, name)
    _finish(run, result, rater, "rater")
    return result


def forget_slide(
    run: RunDir, slide_id: str, *, keys: Path | None = None, images: bool = False, dry_run: bool = False
) -> Forgotten:
    """Delete what the run holds about a slide.

    Parameters
    ----------
    images
        Whether its images in QuPath projects go too, with all that was drawn in them; else they are listed as left.

    Raises
    ------
    ConfigError
        There is no such slide.
    """
    record = read_json(run.run_json) if run.run_json.is_file() else {}
    if slide_id not in record.get("slides", {}):
        raise ConfigError(f"--slide {slide_id}: there is no such slide; `wsi-pipeline status` lists the ids")
    result = Forgotten(slide_id, dry_run)
    folders = [run.slide(slide_id).root]
    files = [run.review / "corrected" / f"{slide_id}.geojson", *_snapshots(run, slide_id)]
    for path in (*folders, *files):
        if path.exists():
            result.done.append(f"delete {_told(run, path)}")
            if not dry_run:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    place = recorded_place(run, slide_id)
    if isinstance(place, str) and store_exists(place):
        result.done.append(f"delete {place}")
        if not dry_run:
            remove_store(place)
    for plan in read_plans(run):
        image = plan.slide(slide_id)
        if image is not None and images and image.entry_id is not None:
            _remove_image(run, plan.project, image.entry_id, result)
        elif image is not None:
            result.left.append(f"{plan.project}: image {image.entry_id}; remove it with `--images`, or in QuPath")
    for path in sorted(run.review.rglob("*.parquet")):
        _change_table(run, path, result, lambda table: _without(table, slide_id), "delete rows of the slide in {}")
    for path in (run.run_json, run.metrics, run.review / "kept" / "days.json"):
        _change_json(run, path, result, lambda value: _without_entries(_without_key(value, slide_id), slide_id))
    for path in sorted(run.handout.glob("*/plan.json")):
        _change_json(run, path, result, lambda value: _without_slide(value, slide_id))
    _change_spent(run, slide_id, result)
    table = None if keys is None else KeyTable.load(keys)
    if table is not None and slide_id in table.names["slide"].values():
        result.done.append("delete its line in the key table")
        if not dry_run:
            table.forget(slide_id)
            table.save()
    result.left.append("review/metrics.json: totals still count it; run `wsi-pipeline collect`, then `report`")
    _finish(run, result, slide_id, "slide")
    return result


def _change_spent(run: RunDir, slide_id: str, result: Forgotten) -> None:
    """The hours that it took stay, as those of no slide."""
    spent = read_spent(run.compute_log)
    if all(item.slide_id != slide_id for item in spent):
        return
    result.done.append(f"leave the slide's id out of {_told(run, run.compute_log)}")
    if not result.dry_run:
        kept = (replace(item, slide_id=None) if item.slide_id == slide_id else item for item in spent)
        write_bytes(run.compute_log, lines_of(kept))


def _remove_image(run: RunDir, project: str, entry_id: int, result: Forgotten) -> None:
    """An image that cannot go now, as QuPath has the project open, is listed; the rest is forgotten all the same."""
    try:
        gone = remove_images(run.root / project, {entry_id}, dry_run=result.dry_run)
    except WsiError as error:
        result.left.append(f"{project}: image {entry_id} is still there: {error}")
    else:
        result.done.append(f"remove image {entry_id} from {project}, with {len(gone)} files and folders of it")


def _snapshots(run: RunDir, slide_id: str) -> list[Path]:
    """The files that the plans name, and older ones of the same slide: their names begin with its id and a dot."""
    return sorted(path for path in run.handout.glob("*/snapshot/*.geojson") if path.name.startswith(f"{slide_id}."))


def _change_table(
    run: RunDir, path: Path, result: Forgotten, change: Callable[[pa.Table], pa.Table | None], words: str
) -> None:
    try:
        changed = change(pq.read_table(path))
    except pa.ArrowException as error:
        raise StoreError(f"{path} cannot be read: {error}; restore it, or delete it") from error
    if changed is None:
        return
    result.done.append(words.format(_told(run, path)))
    if not result.dry_run:
        with atomic(path) as file:
            pq.write_table(changed, file, compression="zstd")


def _renamed(table: pa.Table, rater: str, name: str) -> pa.Table | None:
    if "rater" not in table.column_names or rater not in pc.unique(table["rater"]).to_pylist():
        return None
    column = [name if value == rater else value for value in table["rater"].to_pylist()]
    index = table.column_names.index("rater")
    return table.set_column(index, table.schema.field(index), pa.array(column, table.schema.field(index).type))


def _without(table: pa.Table, slide_id: str) -> pa.Table | None:
    if "slide_id" not in table.column_names or slide_id not in pc.unique(table["slide_id"]).to_pylist():
        return None
    return table.filter(pc.field("slide_id") != slide_id)


def _change_json(run: RunDir, path: Path, result: Forgotten, change: Callable[[Any], Any]) -> None:
    if not path.is_file():
        return
    before = read_json(path)
    after = change(orjson.loads(orjson.dumps(before)))
    if after != before:
        result.done.append(f"change {_told(run, path)}")
        if not result.dry_run:
            write_json(path, after)


def _rater_as(value: Any, rater: str, name: str) -> Any:
    """The value with the rater's name replaced wherever it stands under the key `rater`, as a text or as a key."""
    if isinstance(value, list):
        return [_rater_as(item, rater, name) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, item in value.items():
        changed = _rater_as(item, rater, name)
        if key == "rater" and item == rater:
            changed = name
        elif key == "log" and isinstance(item, str) and item.startswith(f"{rater}-"):
            # An event log is named `<rater>-<time>.jsonl`.
            changed = name + item.removeprefix(rater)
        elif key == "rater" and isinstance(changed, dict):
            changed = {name if k == rater else k: v for k, v in changed.items()}
        found[key] = changed
    return found


def _without_key(value: dict[str, Any], slide_id: str) -> dict[str, Any]:
    """Without the slide under `slides` or `days`."""
    for key in ("slides", "days"):
        if isinstance(value.get(key), dict):
            value[key].pop(slide_id, None)
    return value


def _without_entries(value: Any, slide_id: str) -> Any:
    """Without entries of lists that are of the slide: readings, conflicts, visits, modelled times."""
    if isinstance(value, dict):
        return {key: _without_entries(item, slide_id) for key, item in value.items()}
    if isinstance(value, list):
        kept = (item for item in value if not (isinstance(item, dict) and item.get("slide_id") == slide_id))
        return [_without_entries(item, slide_id) for item in kept]
    return value


def _without_slide(value: dict[str, Any], slide_id: str) -> dict[str, Any]:
    return {**value, "slides": [slide for slide in value.get("slides", ()) if slide.get("slide_id") != slide_id]}


def _change_project(run: RunDir, path: Path, result: Forgotten, rater: str, name: str) -> None:
    """Replace the rater in the images' metadata of a project file or a copy of one; every other byte stays."""
    data = path.read_bytes()
    key, old = orjson.dumps(META_RATER), orjson.dumps(rater)
    changed = re.sub(re.escape(key) + rb"(\s*:\s*)" + re.escape(old), lambda m: key + m[1] + orjson.dumps(name), data)
    if changed != data:
        result.done.append(f"rename the rater in {_told(run, path)}")
        if not result.dry_run:
            write_bytes(path, changed)


def _finish(run: RunDir, result: Forgotten, word: str, kind: str) -> None:
    """What still says the name, and a record of what was done that does not."""
    _change_log(run, result, word, kind)
    _delete_csv(run, result, word)
    if result.dry_run:
        return
    for finding in scan(run.root, Known((("name", word),)), ignore=set(KINDS) - {"name"}):
        if finding.kind != "name":
            continue
        times = "once" if finding.count == 1 else f"{finding.count} times"
        result.left.append(f"{finding.file}: still names the {kind} {times}")
    path = run.review / "kept" / RECORD
    before = read_json(path)["forgotten"] if path.is_file() else []
    entry = {"kind": kind, "name": result.name if kind == "rater" else None, "changes": len(result.done)}
    write_json(path, {"schema": SCHEMA_VERSION, "forgotten": [*before, entry]})
    logger.info("forgot a %s: %d changes, %d places left", kind, len(result.done), len(result.left))


def _delete_csv(run: RunDir, result: Forgotten, word: str) -> None:
    """CSV tables that name it: the next report writes the Parquet tables anew, but these only when it is asked to."""
    for path in sorted(run.report.parent.glob("tables/*.csv")):
        if f'"{word}"'.encode() in path.read_bytes():
            result.done.append(f"delete {_told(run, path)}")
            if not result.dry_run:
                path.unlink()


def _change_log(run: RunDir, result: Forgotten, word: str, kind: str) -> None:
    """audit.jsonl without the word, chained anew; its last line says that this was done, and not to whom."""
    if not (run.root / audit.NAME).exists():
        return
    name = result.name if kind == "rater" else FORGOTTEN
    result.done.append(f"rename the {kind} in {audit.NAME}, and say there that it was done")
    if result.dry_run:
        return
    facts = {"name": name, "changes": len(result.done)}
    entry = audit.AuditEntry("wsi-pipeline", f"forgot_{kind}", "", facts=facts)

    def change(line: dict[str, Any]) -> dict[str, Any]:
        if kind == "slide":
            return {**line, "image": name} if line["image"] == word else line
        actor = name if line["actor"] == word else line["actor"]
        return {**line, "actor": actor, "facts": _rater_as(line["facts"], word, name)}

    try:
        audit.rewrite(run.root, change, entry)
    except StoreError as error:
        # Forgetting does not wait until somebody has mended the log.
        result.done.pop()
        result.left.append(f"{audit.NAME}: may name the {kind}, and no line says that this was done: {error}")


def _told(run: RunDir, path: Path) -> str:
    return path.relative_to(run.root).as_posix()
