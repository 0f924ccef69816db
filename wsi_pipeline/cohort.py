"""Which slides: globs, paths, URLs and manifests become a list of slides with ids, and a list of problems."""

from __future__ import annotations

import csv
import difflib
import fnmatch
import glob
import hashlib
import io
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from wsi_pipeline.config import Config
from wsi_pipeline.errors import ConfigError, SlideError, SlideNotFound, SlideUnreadable
from wsi_pipeline.keys import KeyTable, without_paths

logger = logging.getLogger(__name__)

MANIFEST_COLUMNS = ("slide_id", "uri", "mpp", "patient", "site", "scanner", "tissue")
_SAFE_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://)")
# Folders that belong to a slide file beside them (MIRAX, VSI) and files that lie beside slides.
_NOT_SLIDES = {".json", ".geojson", ".csv", ".txt", ".xml", ".npz", ".md", ".yaml", ".qpdata"}


@dataclass(frozen=True, slots=True)
class SlideRef:
    """One slide of the cohort, not opened yet.

    `uri` is an absolute local path or an fsspec URL; `name` its last part; `mpp` (µm/px) replaces what the file
    says; the rest comes from the manifest (`tissue` is the kind of tissue, such as `lymph node`).
    """

    slide_id: str
    uri: str
    name: str
    mpp: float | None = None
    patient: str | None = None
    site: str | None = None
    scanner: str | None = None
    tissue: str | None = None

    @property
    def is_local(self) -> bool:
        return not _HAS_SCHEME.match(self.uri)


@dataclass(frozen=True, slots=True)
class Cohort:
    """The slides in order, and what cannot be used, each with slide, cause and remedy."""

    slides: tuple[SlideRef, ...]
    problems: tuple[SlideError, ...]


def load_cohort(config: Config) -> Cohort:
    """The cohort of a configuration: manifest rows first, in their order, then what the globs find, sorted.

    A missing file, a folder, a slide that is there twice or a glob without match is a problem; the other slides
    go on. Whether the files can be read as slides is not looked at.

    Raises
    ------
    ConfigError
        The manifest cannot be read, or has no column `uri`.
    """
    problems: list[SlideError] = []
    found: list[SlideRef] = []
    if config.cohort.manifest is not None:
        found += _manifest(config.cohort.manifest, config, problems)
    for pattern in config.cohort.slides:
        found += _matches(pattern, config, problems)
    unique = list(_without_twins([_as_first_seen(ref, config) for ref in found], problems))
    if isinstance(config.cohort.mpp, Mapping):
        _warn_of_unused(config.cohort.mpp, unique)
    cohort = Cohort(tuple(_with_mpp(ref, config.cohort.mpp) for ref in unique), tuple(problems))
    return _in_confidence(cohort, config, KeyTable.load(config.keys)) if config.privacy.strict else cohort


def first_uri(uri: str, config: Config) -> str:
    """Where a slide lay when its run began, by `cohort.moved`; `uri` itself where nothing is said."""
    for old, new in sorted((config.cohort.moved or {}).items(), key=lambda pair: -len(pair[1])):
        before, now = (_absolute(folder, str(config.base.absolute())).rstrip("/") for folder in (old, new))
        if uri.startswith(f"{now}/"):
            return before + uri[len(now) :]
    return uri


def _as_first_seen(ref: SlideRef, config: Config) -> SlideRef:
    """An id that was made from the path is that of the path at the beginning; one that somebody gave stays."""
    if ref.slide_id != slide_id_of(ref.uri):
        return ref
    return replace(ref, slide_id=slide_id_of(first_uri(ref.uri, config)))


def _in_confidence(cohort: Cohort, config: Config, table: KeyTable) -> Cohort:
    """The cohort under random names: ids, file names, patients, sites, scanners, and what problems say."""
    slides = []
    for ref in cohort.slides:
        slide_id = table.name("slide", first_uri(ref.uri, config))
        suffix = Path(ref.name).suffix
        values: dict[str, Any] = {
            kind: None if (real := getattr(ref, kind)) is None else table.name(kind, real)
            for kind in ("patient", "site", "scanner")
        }
        uri = str(table.link(slide_id, Path(ref.uri))) if ref.is_local else ref.uri
        slides.append(replace(ref, slide_id=slide_id, uri=uri, name=f"{slide_id}{suffix}", **values))
    problems = tuple(_anonymous(problem, table) for problem in cohort.problems)
    table.save()
    return Cohort(tuple(slides), problems)


def _anonymous(problem: SlideError, table: KeyTable) -> SlideError:
    """The problem of a slide under its random name; which file it is stands in the key table."""
    cause, remedy = (without_paths(text.replace(problem.slide, "it")) for text in (problem.cause, problem.remedy))
    fresh: SlideError = type(problem).__new__(type(problem))
    SlideError.__init__(fresh, table.name("slide", problem.slide), cause, remedy)
    return fresh


def slide_id_of(uri: str) -> str:
    """`<safe stem>-<8 hex of the SHA-256 of the URI>`: short, safe as a folder name, the same at each run."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name_of(uri)).stem).strip("._-") or "slide"
    return f"{stem[:80]}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"


def name_of(uri: str) -> str:
    """The file name in a path or URL; that of the innermost file for a chain like `zip://a.svs::s3://b/c.zip`."""
    if not _HAS_SCHEME.match(uri):
        return Path(uri).name
    _, link, _ = _chain(uri)
    parts = urlsplit(link)
    return unquote(f"{parts.netloc}{parts.path}".rstrip("/").rsplit("/", 1)[-1]) or uri


def _chain(url: str) -> tuple[str, str, str]:
    """What is before the first link with a path (`simplecache::`), that link, and what follows (`::s3://b/c.zip`)."""
    links = url.split("::")
    first = next((index for index, link in enumerate(links) if "://" in link), 0)
    before = "".join(f"{link}::" for link in links[:first])
    return before, links[first], "".join(f"::{link}" for link in links[first + 1 :])


def _absolute(uri: str, base: str) -> str:
    """A path or URL that no longer depends on `base`, the folder or URL that relative paths count from."""
    if uri.startswith("file://"):
        uri = unquote(urlsplit(uri).path)
    if _HAS_SCHEME.match(uri):
        # The archive at the end of a chain may be a relative path.
        head, mark, last = uri.rpartition("::")
        return f"{head}::{_absolute(last, base)}" if mark and "://" not in last else uri
    if _HAS_SCHEME.match(base) and not uri.startswith("/"):
        return f"{base.rstrip('/')}/{uri}"
    return os.path.abspath(os.path.join(base, os.path.expanduser(uri)))


def _matches(pattern: str, config: Config, problems: list[SlideError]) -> Iterator[SlideRef]:
    path = _absolute(pattern, str(config.base.absolute()))
    if _HAS_SCHEME.match(path):
        yield from _remote(path, problems)
        return
    if not glob.has_magic(pattern) or os.path.exists(path):
        ref = _checked(_ref(path), problems)
        if ref is not None:
            yield ref
        return
    names = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name) and _may_be_slide(name))
    if not names:
        problems.append(SlideNotFound(pattern, "matches no file", f"look at the path, it counts from {config.base}"))
    yield from (_ref(name) for name in names)


def _may_be_slide(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() not in _NOT_SLIDES and not path.name.startswith(".")


def _remote(pattern: str, problems: list[SlideError]) -> Iterator[SlideRef]:
    before, link, after = _chain(pattern)
    # In a web address ? begins the query.
    if not (("*" in link) if link.startswith("http") else glob.has_magic(link)):
        yield _ref(pattern)
        return
    try:
        names = _listed(pattern)
    except (OSError, ValueError, ImportError) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        problems.append(SlideNotFound(pattern, f"cannot be listed: {cause}", "look at the URL and at your access"))
        return
    if not names:
        problems.append(SlideNotFound(pattern, "matches no object", "look at the URL"))
    scheme = link.split("://", 1)[0]
    for name in names:
        found = name if "://" in name else f"{scheme}://{name.lstrip('/')}"
        yield _ref(f"{before}{found}{after}")


def _listed(pattern: str) -> list[str]:
    import fsspec

    store, path = fsspec.core.url_to_fs(pattern)
    found: Mapping[str, Mapping[str, Any]] = store.glob(path, detail=True)
    return sorted(name for name, info in found.items() if info.get("type") == "file" and _may_be_slide(name))


def _ref(uri: str) -> SlideRef:
    return SlideRef(slide_id=slide_id_of(uri), uri=uri, name=name_of(uri))


def _checked(ref: SlideRef, problems: list[SlideError]) -> SlideRef | None:
    """The reference, or None and a problem when there is nothing to open at a local path."""
    # Under the name that people gave it: the manifest's id, else the file's.
    label = ref.name if ref.slide_id == slide_id_of(ref.uri) else ref.slide_id
    if not ref.is_local:
        return ref
    path = Path(ref.uri)
    try:
        found = path.stat()
    except PermissionError:
        # Told when it is opened: no reason to stop for the others.
        return ref
    except (OSError, ValueError):
        problems.append(SlideNotFound(label, f"there is no file {path}", "look at the path, or remove the slide"))
        return None
    if stat.S_ISDIR(found.st_mode):
        problems.append(
            SlideUnreadable(ref.name, f"{path} is a folder", "name the slide file, or use a glob like *.svs")
        )
        return None
    return ref


def _manifest(manifest: str, config: Config, problems: list[SlideError]) -> Iterator[SlideRef]:
    where = _absolute(manifest, str(config.base.absolute()))
    name, folder = name_of(where), where.rpartition("/")[0]
    for number, row in _rows(where):
        label = f"{name} row {number}"
        values = {column: text for column in MANIFEST_COLUMNS if (text := _text(row.get(column)))}
        if "uri" not in values:
            problems.append(SlideNotFound(label, "has no uri", "give the slide's path or URL in the column `uri`"))
            continue
        try:
            ref = _from_row(values, folder, label)
        except SlideError as error:
            problems.append(error)
            continue
        checked = _checked(ref, problems)
        if checked is not None:
            yield checked


def _text(value: Any) -> str:
    """A cell as text; a whole number that a table holds as float (for want of an empty integer) as it was meant."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _from_row(values: Mapping[str, str], folder: str, label: str) -> SlideRef:
    uri = _absolute(values["uri"], folder)
    slide_id = values.get("slide_id") or slide_id_of(uri)
    if not _SAFE_ID.fullmatch(slide_id):
        raise SlideUnreadable(
            label,
            f"has the slide_id {slide_id!r}, which cannot be a folder name",
            "use letters from a to z, digits, dot, dash and underscore",
        )
    return SlideRef(
        slide_id=slide_id,
        uri=uri,
        name=name_of(uri),
        mpp=_number(values.get("mpp"), label),
        patient=values.get("patient"),
        site=values.get("site"),
        scanner=values.get("scanner"),
        tissue=values.get("tissue"),
    )


def _number(text: str | None, label: str) -> float | None:
    if text is None or text.lower() == "nan":
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = -1.0
    if not 0.05 <= value <= 20:
        raise SlideUnreadable(
            label, f"has the mpp {text!r}", "give µm per pixel between 0.05 and 20, or leave it empty"
        )
    return value


def _rows(manifest: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number (the header is row 1) and cells of each row that is not empty; columns by name in lower case."""
    try:
        data = _bytes(manifest)
        if manifest.lower().endswith((".parquet", ".pq")):
            import pyarrow as pa
            import pyarrow.parquet as pq

            table = pq.read_table(pa.BufferReader(data))
            names: list[str] = table.column_names
            cells: Sequence[Sequence[Any]] = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        else:
            text = data.decode("utf-8-sig")
            names, *cells = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)) or [[]]
    except (OSError, ValueError, ImportError, csv.Error) as error:
        raise ConfigError(f"cohort.manifest: cannot read {manifest}: {' '.join(str(error).split())}") from error
    names = [name.strip().lower() for name in names]
    if "uri" not in names:
        raise ConfigError(f"cohort.manifest: {manifest} has no column `uri`; columns are {', '.join(MANIFEST_COLUMNS)}")
    _warn_of_misspelt(manifest, names)
    for number, row in enumerate(cells, start=2):
        if any(_text(cell) for cell in row):
            yield number, dict(zip(names, row, strict=False))


def _bytes(where: str) -> bytes:
    if not _HAS_SCHEME.match(where):
        return Path(where).read_bytes()
    import fsspec

    with fsspec.open(where, "rb") as file:
        data: bytes = file.read()
    return data


def _delimiter(text: str) -> str:
    header = text.split("\n", 1)[0]
    return next((mark for mark in (";", "\t") if mark in header and "," not in header), ",")


def _warn_of_misspelt(manifest: str, names: Sequence[str]) -> None:
    for name in names:
        near = difflib.get_close_matches(name, MANIFEST_COLUMNS, n=1, cutoff=0.75)
        if near and name not in MANIFEST_COLUMNS and near[0] not in names:
            logger.warning("%s: the column `%s` is not used; did you mean `%s`?", manifest, name, near[0])


def _warn_of_unused(given: Mapping[str, float], refs: Sequence[SlideRef]) -> None:
    for key in given:
        if not any(_is_meant(key, ref) for ref in refs):
            logger.warning("cohort.mpp: `%s` fits no slide: neither an id nor a file name", key)


def _without_twins(found: list[SlideRef], problems: list[SlideError]) -> Iterator[SlideRef]:
    by_uri: dict[str, SlideRef] = {}
    # Ids become folders, and some file systems take a and A for the same.
    ids: dict[str, SlideRef] = {}
    for ref in found:
        where = str(Path(ref.uri).resolve()) if ref.is_local else ref.uri
        if where in by_uri:
            twin = by_uri[where].slide_id
            problems.append(
                SlideUnreadable(
                    ref.slide_id, f"is there twice (also as {twin})", "list each slide once; the first counts"
                )
            )
        elif ref.slide_id.lower() in ids:
            twin = ids[ref.slide_id.lower()].name
            problems.append(
                SlideUnreadable(
                    ref.slide_id, f"is the id of two slides, {twin} and {ref.name}", "give each slide its own id"
                )
            )
        else:
            by_uri[where] = ref
            ids[ref.slide_id.lower()] = ref
            yield ref


def _with_mpp(ref: SlideRef, given: float | Mapping[str, float] | None) -> SlideRef:
    """The manifest's own value first, then a mapping by id, name or glob, then the one number for all."""
    if ref.mpp is not None or given is None:
        return ref
    if not isinstance(given, Mapping):
        return replace(ref, mpp=given)
    for key in (ref.slide_id, ref.name):
        if key in given:
            return replace(ref, mpp=given[key])
    for pattern, value in given.items():
        if _is_meant(pattern, ref):
            return replace(ref, mpp=value)
    return ref


def _is_meant(pattern: str, ref: SlideRef) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) or text == pattern for text in (ref.slide_id, ref.name))
