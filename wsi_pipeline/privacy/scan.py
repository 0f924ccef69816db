"""Searching everything that a run wrote for names, paths, users, dates and serial numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.cohort import load_cohort
from wsi_pipeline.config import Config
from wsi_pipeline.files import read_json
from wsi_pipeline.keys import KeyTable
from wsi_pipeline.privacy.contents import parts_of
from wsi_pipeline.privacy.patterns import Known, found_in
from wsi_pipeline.resources import resource
from wsi_pipeline.rundir import RunDir

# Longer finds are cut: a line is for people.
LONGEST = 120


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing in one place: `file` from the run directory, `where` in it, the first find, how many."""

    file: str
    where: str
    kind: str
    text: str
    count: int

    def __str__(self) -> str:
        place = f"{self.file}, {self.where}" if self.where else self.file
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return f"{place}: {self.kind}: {self.text}{more}"


def scan(root: Path, known: Known, *, ignore: Collection[str] = ()) -> list[Finding]:
    """Look into every file below `root`; a file that cannot be read is a finding of its own.

    Parameters
    ----------
    known
        Words that must not appear, beside the general patterns.
    ignore
        Kinds that are not looked for, as in `patterns.KINDS`.
    """
    own = _own_texts()
    findings: list[Finding] = []
    for path in sorted(p for p in root.rglob("*") if p.is_file() or p.is_symlink()):
        name = path.relative_to(root).as_posix()
        findings += _collected(name, "its name", known.found_in(name), ignore)
        if path.is_symlink():
            findings += _collected(name, "what it links to", found_in(str(path.readlink())), ignore)
            continue
        # The package's own scripts say nothing about anybody.
        if path.name in own and path.read_bytes() == own[path.name]:
            continue
        try:
            for where, text in parts_of(path) or ():
                findings += _collected(name, where, _hits(text, known), ignore)
        except (OSError, ValueError) as error:
            findings.append(Finding(name, "", "unreadable", " ".join(str(error).split())[:LONGEST], 1))
    return findings


def _hits(text: str, known: Known) -> Iterator[tuple[str, str, int]]:
    yield from known.found_in(text)
    yield from found_in(text)


def _collected(file: str, where: str, hits: Iterator[tuple[str, str, int]], ignore: Collection[str]) -> list[Finding]:
    """One finding for each kind and text that is not another in longer words; dates are told once a place."""
    counts: dict[tuple[str, str], list[str]] = {}
    for kind, text, _ in hits:
        if kind not in ignore:
            counts.setdefault((kind, "" if kind in {"date", "path"} else text.lower()), []).append(text)
    return [Finding(file, where, kind, texts[0][:LONGEST], len(texts)) for (kind, _), texts in counts.items()]


def _own_texts() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in resource("qupath_scripts").glob("*.groovy")}


def known_of(run: RunDir, config: Config | None = None) -> Known:
    """What must not appear: the names behind the run's slides, from its key table, configuration and run.json."""
    names: list[str] = []
    if config is not None:
        table = KeyTable.load(config.keys)
        names += table.secrets
        if not config.privacy.strict:
            for ref in load_cohort(config).slides:
                names += [Path(ref.name).stem, *(v for v in (ref.patient, ref.site, ref.scanner) if v)]
    if run.run_json.is_file():
        record = read_json(run.run_json)
        for slide_id, slide in record.get("slides", {}).items():
            values = [Path(str(slide.get("name") or "")).stem, *(slide.get(k) for k in ("patient", "site", "scanner"))]
            # A name that is the slide's random id gives nothing away; nor do pseudonyms of the key table.
            names += [v for v in values if v and v != slide_id and not KeyTable.is_pseudonym(v)]
    return Known.of(names)
