"""run.json: what this run is and how far each slide has come."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict

from wsi_pipeline import __version__
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import Config
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.keys import PREFIX, KeyTable

SCHEMA_VERSION = 1

# Packages whose version can change a pixel or a polygon.
RECORDED = (
    "numpy",
    "zarr",
    "tiffslide",
    "tifffile",
    "imagecodecs",
    "openslide-python",
    "shapely",
    "contourpy",
    "torch",
)

State = Literal["queued", "done", "failed"]


class SlideRecord(BaseModel):
    """One slide's line in run.json; size in level-0 pixels, mpp in µm per pixel."""

    model_config = ConfigDict(frozen=True)

    state: State
    uri: str
    name: str
    reason: str | None = None
    width: int | None = None
    height: int | None = None
    mpp: float | None = None
    mpp_source: str | None = None
    reader: str | None = None
    patient: str | None = None
    site: str | None = None
    scanner: str | None = None
    tissue: str | None = None


class HandoutRecord(BaseModel):
    """What was handed out: hash of the study's plan, and by slide what is too much for QuPath."""

    model_config = ConfigDict(frozen=True)

    plan_sha256: str | None = None
    over_budget: dict[str, list[str]] = {}


class RunRecord(BaseModel):
    """The whole of run.json. It holds no times, so that the same run gives the same bytes."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    run_id: str
    config: dict[str, Any]
    versions: dict[str, str]
    model: dict[str, Any]
    runtime: dict[str, Any]
    slides: dict[str, SlideRecord]
    handout: HandoutRecord | None = None

    def with_slide(self, slide_id: str, record: SlideRecord) -> RunRecord:
        return self.model_copy(update={"slides": {**self.slides, slide_id: record}})

    def write(self, path: Path) -> None:
        value = self.model_dump(mode="json")
        value["schema"] = value.pop("schema_version")
        if self.handout is None:
            del value["handout"]
        write_json(path, value)


def read_run(path: Path) -> RunRecord:
    """Read run.json; older schemas are read, a newer one is refused.

    Raises
    ------
    StoreError
        There is no such file, or it is damaged or newer than this program.
    """
    if not path.exists():
        raise StoreError(f"there is no run in {path.parent}; start one with `wsi-pipeline run CONFIG`")
    value = read_json(path)
    version = value.pop("schema", None) if isinstance(value, dict) else None
    if not isinstance(version, int):
        raise StoreError(f"{path} is damaged: it states no schema; move it away and predict again")
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path} has schema {version}; this program reads up to {SCHEMA_VERSION}: update wsi-pipeline")
    try:
        return RunRecord.model_validate({**value, "schema_version": version})
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from error


def run_id_of(config: Config, model: Mapping[str, Any]) -> str:
    """Sixteen hex digits that name the recipe: model, tissue, regions and resolution.

    Everything that can change a polygon counts; paths, devices, blocks and workers do not. Nor do the other
    slides of the cohort: a cohort may grow without renaming what was already handed out. What a slide itself
    contributes (id, size, mpp) is in the uuids and in its own key.
    """
    recipe = {
        "model": dict(model),
        "tissue": config.tissue.model_dump(mode="json"),
        "regions": config.regions.model_dump(mode="json"),
        "mpp": config.inference.mpp,
    }
    if config.inference.uncertainty.on:
        # Only then, so that the ids of runs without stay.
        recipe["uncertainty"] = config.inference.uncertainty.model_dump(mode="json")
    return digest(recipe)


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def public_config(config: Config) -> dict[str, Any]:
    """The configuration as run.json keeps it."""
    value = config.model_dump(mode="json", exclude={"base"})
    if config.privacy.strict:
        # Where things lie, and what the slides are called, is nobody's business.
        del value["output"], value["cohort"], value["privacy"]["keys"]
        value["handout"]["slide_uris"] = {}
        value["model"]["path"] = Path(config.model.path).name
    return value


def recorded_uri(config: Config, ref: SlideRef) -> str:
    """A slide's address as run.json keeps it: with `privacy: strict` only the name by which the key table knows it."""
    return f"{PREFIX}{ref.slide_id}" if config.privacy.strict else ref.uri


def located(config: Config, slide_id: str, record: SlideRecord) -> str:
    """Where a slide of run.json is."""
    if not record.uri.startswith(PREFIX):
        return record.uri
    return KeyTable.load(config.keys).locate(slide_id, record.name)


def versions() -> dict[str, str]:
    """Versions of this program, Python and the packages that can change a result."""
    found = {"wsi-pipeline": __version__, "python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
