"""Which QuPath is installed, and which backend that makes. Looks at folders only: no JVM starts here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.errors import ProjectError

ENV_DIR = "PAQUO_QUPATH_DIR"
BACKENDS = ("auto", "native", "paquo")
# paquo 0.9 names QuPath up to 0.6. Before 0.4 QuPath's objects have no ids.
OLDEST, NEWEST = (0, 4), (0, 6)
# Pairs that paquo's own tests run (its workflow at v0.9.0); of these we take those from `OLDEST` on.
KNOWN_PAIRS = {"0.9": ("0.4.4", "0.5.1", "0.6.0")}
_PLACES = ("/opt", "/Applications", "c:/Program Files", "/usr/local", "~/Applications", "~/AppData/Local", "~")
_LAYOUTS = {
    "Linux": (Path("lib/app"), Path("lib/runtime")),
    "Darwin": (Path("Contents/app"), Path("Contents/runtime/Contents/Home")),
    "Windows": (Path("app"), Path("runtime")),
}
_JAR = re.compile(r"qupath-core-(?P<version>\d+\.\d+\.\d+.*)\.jar")


@dataclass(frozen=True, slots=True)
class QuPathInfo:
    """What was found of QuPath.

    Attributes
    ----------
    backend
        What `auto` stands for here: `native` or `paquo`.
    reason
        Why, in words for `doctor`.
    """

    paquo_version: str | None
    qupath_dir: Path | None
    qupath_version: str | None
    java_version: str | None
    backend: str
    reason: str

    @property
    def description(self) -> str:
        """Version and place in words."""
        if self.qupath_dir is None:
            return "not found (not needed by the native backend)"
        return f"{self.qupath_version or 'of unknown version'} at {self.qupath_dir}"


def find_qupath(environ: Mapping[str, str] | None = None) -> QuPathInfo:
    """Look for QuPath where `PAQUO_QUPATH_DIR` points, else in the conda environment and the usual places.

    paquo's own configuration files are not read: they may lie in any folder above the current one.
    """
    environ = os.environ if environ is None else environ
    paquo = _paquo_version()
    stated = environ.get(ENV_DIR)
    if stated:
        if _app_dir(Path(stated)) is None:
            return QuPathInfo(paquo, None, None, None, "native", f"{ENV_DIR} points to {stated}, which is no QuPath")
        found: Path | None = Path(stated)
    else:
        found = next((path for path in _candidates(environ) if _app_dir(path) is not None), None)
    if found is None:
        return QuPathInfo(paquo, None, None, None, "native", f"no QuPath was found; {ENV_DIR} can point to one")
    version, java = _qupath_version(found), _java_version(found)
    backend, reason = _choice(paquo, version)
    return QuPathInfo(paquo, found, version, java, backend, reason)


def pair_in_words(info: QuPathInfo) -> str:
    """Whether this paquo is known to work with this QuPath, for `doctor`."""
    series = ".".join((info.paquo_version or "").split(".")[:2])
    tested = KNOWN_PAIRS.get(series, ())
    if not tested:
        known = ", ".join(f"paquo {paquo} with QuPath {', '.join(found)}" for paquo, found in KNOWN_PAIRS.items())
        return f"unknown; known to work: {known}"
    if info.qupath_version in tested:
        return f"known to work: paquo {series} is tested with QuPath {info.qupath_version} by its authors"
    return f"paquo {series} is tested by its authors with QuPath {', '.join(tested)}"


def choose_backend(backend: str, info: QuPathInfo | None = None) -> str:
    """`native` or `paquo` for a backend of the configuration.

    Raises
    ------
    ProjectError
        `paquo` is asked for and cannot work here; says what is missing.
    """
    if backend not in BACKENDS:
        raise ProjectError(f"{backend} is no backend; known are {', '.join(BACKENDS)}")
    if backend == "native":
        return backend
    info = info or find_qupath()
    if backend == "paquo" and info.backend != "paquo":
        raise ProjectError(f"the paquo backend cannot be used: {info.reason}; use `backend: native`")
    return info.backend


def _choice(paquo: str | None, version: str | None) -> tuple[str, str]:
    if paquo is None:
        return "native", "paquo is not installed"
    numbers = tuple(int(n) for n in re.findall(r"\d+", version or "")[:2])
    if not OLDEST <= numbers <= NEWEST:
        span = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        return "native", f"paquo {paquo} is known to work with QuPath {span}, and this is {version or 'of no version'}"
    return "paquo", f"QuPath {version} with paquo {paquo}"


def jpype_version() -> str | None:
    """Version of the bridge to Java that paquo stands on."""
    return _installed("jpype1")


def _paquo_version() -> str | None:
    return _installed("paquo")


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    conda = environ.get("CONDA_PREFIX")
    if conda:
        yield from (Path(conda) / part for part in ("opt/QuPath", "bin/QuPath.app", "Library/QuPath"))
    for place in _PLACES:
        folder = Path(place).expanduser()
        try:
            names = sorted(p.name for p in folder.iterdir() if p.name.lower().startswith("qupath"))
        except OSError:
            continue
        yield from (folder / name for name in reversed(names))


def _app_dir(qupath: Path) -> Path | None:
    app, runtime = _LAYOUTS.get(platform.system(), _LAYOUTS["Linux"])
    return qupath / app if (qupath / app).is_dir() and (qupath / runtime).is_dir() else None


def _qupath_version(qupath: Path) -> str | None:
    """From the name of its core library, which every version from 0.4 on ships."""
    app = _app_dir(qupath)
    matches = [_JAR.fullmatch(path.name) for path in sorted(app.glob("qupath-core-*.jar"))] if app else []
    return next((match["version"] for match in matches if match), None)


def _java_version(qupath: Path) -> str | None:
    release = qupath / _LAYOUTS.get(platform.system(), _LAYOUTS["Linux"])[1] / "release"
    if not release.is_file():
        return None
    found = re.search(r'^JAVA_VERSION="([^"]+)"', release.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return found[1] if found else None
