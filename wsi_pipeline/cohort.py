"""Which slides: globs, paths, URLs and manifests become a list of slides with ids, and a list of problems."""

from __future__ import annotations

import csv
import fnmatch
import glob
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from wsi_pipeline.config import Config
from wsi_pipeline.errors import ConfigError, SlideError, SlideNotFound, SlideUnreadable

MANIFEST_COLUMNS = ("slide_id", "uri", "mpp", "patient", "site", "scanner")
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://)")
# Folders that belong to a slide file beside them (MIRAX, VSI) and files that lie beside slides.
_NOT_SLIDES = {".json", ".geojson", ".csv", ".txt", ".xml", ".npz", ".md", ".yaml", ".qpdata"}


@dataclass(frozen=True, slots=True)
class SlideRef:
    """One slide of the cohort, not opened yet.

    `uri` is an absolute local path or an fsspec URL; `name` its last part; `mpp` (µm/px) replaces what the file
    says; the rest comes from the manifest.
    """

    slide_id: str
    uri: str
    name: str
    mpp: float | None = None
    patient: str | None = None
    site: str | None = None
    scanner: str | None = None

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
        found += _manifest(config.resolve(config.cohort.manifest), problems)
    for pattern in config.cohort.slides:
        found += _matches(pattern, config, problems)
    unique = _without_twins(found, problems)
    return Cohort(tuple(_with_mpp(ref, config.cohort.mpp) for ref in unique), tuple(problems))


def slide_id_of(uri: str) -> str:
    """`<safe stem>-<8 hex of the SHA-256 of the URI>`: short, safe as a folder name, the same at each run."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name_of(uri)).stem).strip("._-") or "slide"
    return f"{stem[:80]}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"


def name_of(uri: str) -> str:
    """The file name in a path or URL."""
    if not _HAS_SCHEME.match(uri):
        return Path(uri).name
    part = urlsplit(_part_with_path(uri))
    return unquote((part.netloc + part.path).rstrip("/").rsplit("/", 1)[-1]) or uri


def _part_with_path(uri: str) -> str:
    """The part of a chained URL that names the file inside."""
    return next((part for part in uri.split("::") if "://" in part), uri)


def _matches(pattern: str, config: Config, problems: list[SlideError]) -> Iterator[SlideRef]:
    if pattern.startswith("file://"):
        pattern = unquote(urlsplit(pattern).path)
    if _HAS_SCHEME.match(pattern):
        yield from _remote(pattern, problems)
        return
    path = config.resolve(pattern)
    if not glob.has_magic(pattern) or path.exists():
        ref = _checked(_ref(str(path)), problems)
        if ref is not None:
            yield ref
        return
    names = sorted(name for name in glob.glob(str(path), recursive=True) if _may_be_slide(Path(name)))
    if not names:
        problems.append(SlideNotFound(pattern, "matches no file", f"look at the path, it counts from {config.base}"))
    yield from (_ref(name) for name in names)


def _may_be_slide(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() not in _NOT_SLIDES and not path.name.startswith(".")


def _remote(pattern: str, problems: list[SlideError]) -> Iterator[SlideRef]:
    import fsspec

    # In a chain (`simplecache::s3://...`, `zip://*.tif::file.zip`) the first part with a path names the files.
    if not glob.has_magic(_part_with_path(pattern)):
        yield _ref(pattern)
        return
    try:
        files = fsspec.open_files(pattern, mode="rb")
        urls = sorted(file.full_name if "://" in file.full_name else file.path for file in files)
    except Exception as error:  # noqa: BLE001 - stores raise errors of their own (credentials, network, quota)
        cause = " ".join(str(error).split()) or type(error).__name__
        problems.append(SlideNotFound(pattern, f"cannot be listed: {cause}", "look at the URL and at your access"))
        return
    if not urls:
        problems.append(SlideNotFound(pattern, "matches no object", "look at the URL"))
    yield from (_ref(url) for url in urls)


def _ref(uri: str) -> SlideRef:
    return SlideRef(slide_id=slide_id_of(uri), uri=uri, name=name_of(uri))


def _checked(ref: SlideRef, problems: list[SlideError]) -> SlideRef | None:
    """The reference, or None and a problem when there is nothing to open at a local path."""
    # Under the name that people gave it: the manifest's id, else the file's.
    label = ref.name if ref.slide_id == slide_id_of(ref.uri) else ref.slide_id
    if not ref.is_local:
        return ref
    path = Path(ref.uri)
    if path.is_dir():
        problems.append(
            SlideUnreadable(ref.name, f"{path} is a folder", "name the slide file, or use a glob like *.svs")
        )
        return None
    if not path.exists():
        problems.append(SlideNotFound(label, f"there is no file {path}", "look at the path, or remove the slide"))
        return None
    return ref


def _manifest(path: Path, problems: list[SlideError]) -> Iterator[SlideRef]:
    for number, row in enumerate(_rows(path), start=2):
        label = f"{path.name} row {number}"
        values = {
            k: str(v).strip() for k, v in row.items() if k in MANIFEST_COLUMNS and v is not None and str(v).strip()
        }
        if "uri" not in values:
            problems.append(SlideNotFound(label, "has no uri", "give the slide's path or URL in the column `uri`"))
            continue
        try:
            ref = _from_row(values, path.parent, label)
        except SlideError as error:
            problems.append(error)
            continue
        checked = _checked(ref, problems)
        if checked is not None:
            yield checked


def _from_row(values: Mapping[str, str], folder: Path, label: str) -> SlideRef:
    uri = values["uri"]
    if uri.startswith("file://"):
        uri = unquote(urlsplit(uri).path)
    if not _HAS_SCHEME.match(uri):
        uri = str((folder / uri).absolute())
    slide_id = values.get("slide_id") or slide_id_of(uri)
    if not _SAFE_ID.fullmatch(slide_id):
        raise SlideUnreadable(
            label,
            f"has the slide_id {slide_id!r}, which cannot be a folder name",
            "use letters, digits, dot, dash and underscore",
        )
    return SlideRef(
        slide_id=slide_id,
        uri=uri,
        name=name_of(uri),
        mpp=_number(values.get("mpp"), label),
        patient=values.get("patient"),
        site=values.get("site"),
        scanner=values.get("scanner"),
    )


def _number(text: str | None, label: str) -> float | None:
    if text is None or text.lower() == "nan":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.05 <= value <= 20:
        raise SlideUnreadable(
            label, f"has the mpp {text!r}", "give µm per pixel between 0.05 and 20, or leave it empty"
        )
    return value


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            import pyarrow.parquet as pq

            table = pq.read_table(path)
            names: list[str] = table.column_names
            rows: Sequence[Mapping[str, Any]] = table.to_pylist()
        else:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                names = list(reader.fieldnames or ())
                rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"cohort.manifest: cannot read {path}: {error}") from error
    if "uri" not in names:
        raise ConfigError(f"cohort.manifest: {path} has no column `uri`; columns are {', '.join(MANIFEST_COLUMNS)}")
    return iter(rows)


def _without_twins(found: list[SlideRef], problems: list[SlideError]) -> Iterator[SlideRef]:
    by_uri: dict[str, SlideRef] = {}
    ids: set[str] = set()
    for ref in found:
        where = str(Path(ref.uri).resolve()) if ref.is_local else ref.uri
        if where in by_uri:
            twin = by_uri[where].slide_id
            problems.append(
                SlideUnreadable(
                    ref.slide_id, f"is there twice (also as {twin})", "list each slide once; the first counts"
                )
            )
        elif ref.slide_id in ids:
            problems.append(
                SlideUnreadable(
                    ref.slide_id, f"is the id of two slides, also of {ref.uri}", "give each slide its own id"
                )
            )
        else:
            by_uri[where] = ref
            ids.add(ref.slide_id)
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
        if fnmatch.fnmatch(ref.name, pattern) or fnmatch.fnmatch(ref.slide_id, pattern):
            return replace(ref, mpp=value)
    return ref
