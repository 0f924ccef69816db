"""The one YAML file, checked: frozen models, and an unknown key is an error with a suggestion."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wsi_pipeline.errors import ConfigError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Mpp = Annotated[float, Field(ge=0.05, le=20)]

_RATER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

ImageType = Literal["brightfield_h_e", "brightfield_h_dab", "brightfield_other", "fluorescence", "other", "unset"]


class Section(BaseModel):
    """Base of every section: frozen, and no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cohort(Section):
    """Which slides.

    `slides` holds globs, paths and fsspec URLs; `manifest` a CSV or Parquet with `slide_id, uri, mpp,
    patient, site, scanner, tissue`. `mpp` (µm/px) replaces what the files say: one number for all slides,
    or a mapping from slide id, file name or glob to a number. `moved` maps folders (or URLs) where slides lay when
    the run began to where they are now, so that ids made from their paths stay; `{}` says that none was moved.
    """

    slides: tuple[str, ...] = ()
    manifest: str | None = None
    mpp: Mpp | dict[str, Mpp] | None = None
    moved: dict[str, str] | None = None

    @field_validator("slides", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("mpp", mode="before")
    @classmethod
    def _is_an_mpp(cls, value: Any) -> Any:
        # Said here, since of two kinds that do not fit pydantic would name both by its own words.
        for key, number in value.items() if isinstance(value, dict) else ((None, value),):
            if number is None and key is None:
                continue
            try:
                fits = not isinstance(number, bool) and 0.05 <= float(number) <= 20
            except (TypeError, ValueError):
                fits = False
            if not fits:
                of = "" if key is None else f"{key}: "
                raise ValueError(
                    f"{of}{number} is no µm per pixel: a number, at least 0.05 and less than or equal to 20; give "
                    'one, or one by slide id, file name or glob, like {"*.tiff": 0.5}'
                )
        return value

    @model_validator(mode="after")
    def _something_to_do(self) -> Cohort:
        if not self.slides and self.manifest is None:
            raise ValueError("give `slides` (globs, paths or URLs) or a `manifest`")
        return self


class Model(Section):
    """Which model, and how it runs.

    `path` is a model folder (`card.json` + weights, or WSInfer's), a function `package.module:factory`, or
    `baseline:stain-density`.
    """

    path: str
    device: str = "auto"
    runtime: Literal["auto", "torch", "torch.compile", "openvino", "onnxruntime"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    classes: tuple[str, ...] | None = Field(
        default=None, description="classes that the model must have, so that a wrong card is found before the run"
    )


class Tissue(Section):
    """The tissue mask; lengths in µm. See `wsi_pipeline.slides.tissue`.

    `pens: false` is for stains that are blue or green themselves (Masson's trichrome, Alcian blue): else they
    would be taken for ink of felt-tip pens.
    """

    mpp: Positive = 8.0
    min_area_um2: NonNegative = 20_000.0
    max_hole_um2: NonNegative = 20_000.0
    margin_um: NonNegative = 32.0
    pens: bool = True


class ClusterSettings(Section):
    """Workers that SLURM or Kubernetes starts (`--cluster`).

    Each has `cores`, `memory` and `gpus`; there are `workers` of them, or, where `fewest` is given, as many as there is
    work for, between the two (one at least). `queue`, `account`, `walltime` and `prologue` (lines of the job script
    before the worker starts) are SLURM's, `image`, `namespace` and `volumes` (claim to path) Kubernetes'. `options`
    goes to dask-jobqueue's SLURMCluster or dask-kubernetes' KubeCluster as it is.
    """

    kind: Literal["slurm", "kubernetes"] = "slurm"
    workers: Annotated[int, Field(ge=1, le=10_000)] = 4
    fewest: Annotated[int, Field(ge=0, le=10_000)] | None = None
    cores: Annotated[int, Field(ge=1, le=512)] = 8
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B?$")] = "16GB"
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    walltime: str = "08:00:00"
    queue: str | None = None
    account: str | None = None
    prologue: tuple[str, ...] = ()
    image: str = "ghcr.io/dask/dask:latest"
    namespace: str | None = None
    volumes: dict[str, str] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("walltime", mode="before")
    @classmethod
    def _no_number(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError('YAML makes a number of 12:00:00; put it in quotes, "12:00:00"')
        return value


class Uncertainty(Section):
    """Further predictions where the model is not sure; off by default. See docs/confidence.md.

    `tta` turns (4) or turns and mirrors (8) the image; `dropout` is a number of passes with dropout at work, for
    networks that have it, on torch. Both are made in cells whose mean entropy lies above `above` (0..1), and replace
    the map there by their mean.
    """

    tta: Literal[0, 4, 8] = 0
    dropout: Annotated[int, Field(ge=0, le=64)] = 0
    above: Annotated[float, Field(ge=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _two_at_least(self) -> Uncertainty:
        if self.tta + self.dropout == 1:
            raise ValueError("dropout: one pass has nothing to disagree with; give 2 or more (10 to 20 are usual)")
        return self

    @property
    def on(self) -> bool:
        return self.tta + self.dropout > 0


class Inference(Section):
    """The engine. Only `mpp` and `uncertainty` can change a result; the rest is about speed, memory and places.

    `maps` is a folder on an object store (`s3://bucket/run`, `gs://` ...) that holds the maps instead of `output`.
    """

    mpp: Mpp | None = None
    maps: str | None = None
    block: Annotated[int, Field(ge=256, le=16_384, multiple_of=128)] = 2048
    window: Annotated[int, Field(ge=128, le=4096, multiple_of=128)] = 1024
    scheduler: str | None = None
    cluster: ClusterSettings | None = None
    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    uncertainty: Uncertainty = Uncertainty()

    @field_validator("maps")
    @classmethod
    def _is_elsewhere(cls, value: str | None) -> str | None:
        # Files are replaced at once only where the program itself sees to it, which it does in `output`.
        if value is not None and (not re.match(r"[a-z0-9+.-]+://.", value) or value.startswith(("file:", "local:"))):
            raise ValueError(
                f"{value} is no place on an object store (s3://bucket/folder); on a disk maps lie in `output`"
            )
        return value


class Regions(Section):
    """From probability map to polygons; areas in µm², lengths in µm."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    min_area_um2: NonNegative = 2_000.0
    min_hole_um2: NonNegative = 1_000.0
    simplify_um: NonNegative = 0.5
    contour_downsample: Literal[1, 2, 4, 8, 16] = 2


class Review(Section):
    """Review tiles, and how corrections and time are read."""

    tile_um: Positive = 256.0
    max_tiles: Annotated[int, Field(ge=0, le=2000)] = 40
    audit_tiles: Annotated[int, Field(ge=0, le=200)] = Field(
        default=2, description="unflagged tiles of each slide that are handed out as a random check"
    )
    tolerance_um: Positive = 2.0
    idle_s: Positive = 300.0
    adjudicators: tuple[str, ...] = Field(
        default=(), description="who settles what raters did differently: their time is adjudication, and no reading"
    )


Arm = Literal["assisted", "manual"]
Planting = Literal["missing", "fake", "boundary", "class"]


class Planted(Section):
    """Errors that are planted on a share of the assisted images: announced, recorded, repaired when collected."""

    share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    kinds: tuple[Planting, ...] = ("missing", "fake", "boundary", "class")


class Handout(Section):
    """How the QuPath projects are written, and who gets what.

    `slide_uris` maps URI prefixes to what the pathologist's machine sees (`s3://b/` to `file:///Z:/slides/`).
    `rater` names one person who gets everything in one project; `raters` makes a study with a plan, in batches of at
    most `batch_size` images (see docs/handout.md).
    """

    backend: Literal["auto", "native", "paquo"] = "auto"
    rater: str = Field(default="rater-1", min_length=1)
    image_type: ImageType = "brightfield_h_e"
    classes: tuple[str, ...] = ()
    slide_uris: dict[str, str] = Field(default_factory=dict)
    raters: tuple[str, ...] = ()
    arms: tuple[Arm, ...] = ("assisted",)
    design: Literal["crossover", "parallel", "divided"] = "crossover"
    batch_size: Annotated[int, Field(ge=1, le=200)] = 200
    seed: int = 0
    stratify: tuple[Literal["site", "scanner", "predicted"], ...] = ("site", "scanner", "predicted")
    repeats: Annotated[float, Field(ge=0, le=1)] = Field(default=0.0, description="share that is read again, same arm")
    washout_days: NonNegative = 14.0
    blind: bool = Field(default=False, description="masked image names in the projects; the plan holds the mapping")
    planted: Planted = Planted()
    guideline: str | None = Field(default=None, description="a file that is copied into each project")
    keep_copies: Annotated[int, Field(ge=1)] = Field(
        default=10, description="copies of each image's annotations that stay in history/, besides the first"
    )

    @model_validator(mode="after")
    def _a_study_that_can_be(self) -> Handout:
        if self.raters and "rater" in self.model_fields_set:
            raise ValueError("give `rater` (one person, no study) or `raters` (a study with a plan), not both")
        folded = [rater.casefold() for rater in self.raters]
        if len(set(folded)) < len(folded) or len(set(self.arms)) < len(self.arms) or not self.arms:
            raise ValueError("each of `raters` and `arms` is named once, and there is at least one arm")
        odd = [rater for rater in self.raters if not _RATER.fullmatch(rater)]
        if odd:
            raise ValueError(
                f"`raters` become names of folders: letters, digits, `-`, `_` and `.` only, not {odd[0]!r}"
            )
        only_study = {"arms", "design", "repeats", "washout_days", "blind", "planted", "stratify", "seed"}
        alone = sorted(only_study & self.model_fields_set)
        if alone and not self.raters:
            raise ValueError(f"`{alone[0]}` is of a study: name its `raters`, even if there is one")
        return self


class Learning(Section):
    """Training on corrected slides.

    `held_out` names patients or slide ids that are never trained on; without it a quarter of the patients is
    held out, chosen by a hash of their name so that the choice stays when the cohort grows.
    """

    name: str = "unet"
    mpp: Mpp = Field(default=1.0, description="resolution of a model trained from nothing; a given model keeps its own")
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    tiles_per_slide: Annotated[int, Field(ge=1)] = 64
    seed: int = 0
    held_out: tuple[str, ...] = ()


class Costs(Section):
    """Rates of the cost table; what is not given is not shown."""

    currency: str = "EUR"
    pathologist_per_hour: NonNegative | None = None
    reviewer_per_hour: NonNegative | None = Field(default=None, description="of who reads a slide a second time")
    adjudicator_per_hour: NonNegative | None = Field(default=None, description="of who settles disagreements")
    compute_per_hour: NonNegative | None = Field(default=None, description="of one machine, by the clock")
    gpu_per_hour: NonNegative | None = Field(default=None, description="of one GPU, where the model ran on one")
    storage_per_gb_month: NonNegative | None = Field(default=None, description="of 1,000,000,000 bytes")
    storage_months: NonNegative | None = Field(default=None, description="how long the slides' maps are kept")
    set_up: NonNegative | None = Field(default=None, description="one amount: installing, training people, a pilot")
    manual_minutes_per_slide: NonNegative | None = Field(
        default=None, description="an assumption about drawing from scratch; shown as assumed, never as measured"
    )


PURPOSE = (
    "Times and changes are recorded to learn whether pre-annotation saves work and where the model is wrong. They are "
    "not used to judge or to rank the people who annotate."
)


class Privacy(Section):
    """What is written down about slides and people; `privacy: strict` is short for `privacy: {mode: strict}`.

    `strict` gives slides, patients, sites and scanners random names, whose key table lies outside the output (`keys`,
    by default `<output>.keys` beside it). `raters_in_report` shows a section about raters, under pseudonyms.
    `keep_events_days` is how long raw event logs are kept once their times have been collected.
    """

    mode: Literal["open", "strict"] = "open"
    keys: str | None = None
    purpose: str = Field(default=PURPOSE, description="shown on the report and on the key card")
    raters_in_report: bool = False
    keep_events_days: Annotated[int, Field(ge=1, le=36_500)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_word_is_the_mode(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    @property
    def strict(self) -> bool:
        return self.mode == "strict"


class Config(Section):
    """Everything that one run needs; relative paths count from the folder of the YAML file."""

    output: Path
    cohort: Cohort
    model: Model
    tissue: Tissue = Tissue()
    inference: Inference = Inference()
    regions: Regions = Regions()
    review: Review = Review()
    handout: Handout = Handout()
    learning: Learning = Learning()
    costs: Costs = Costs()
    privacy: Privacy = Privacy()
    base: Path = Field(default=Path(), exclude=True, repr=False, description="folder that relative paths count from")

    @model_validator(mode="after")
    def _nobody_reads_and_settles_under_one_name(self) -> Config:
        readers = {*self.handout.raters, *(() if self.handout.raters else (self.handout.rater,))}
        both = sorted(readers & set(self.review.adjudicators))
        if both:
            raise ValueError(
                f"`review.adjudicators` names {both[0]!r}, who reads slides too (`handout`): all time under that name "
                "would count as adjudication; give whoever does both a second name for it"
            )
        return self

    @field_validator("output", mode="before")
    @classmethod
    def _is_here(cls, value: Any) -> Any:
        if isinstance(value, str) and "://" in value:
            raise ValueError(f"{value} is no folder of this machine; maps can lie elsewhere, see `inference.maps`")
        return value

    def resolve(self, path: str | Path) -> Path:
        """A local path of the configuration as an absolute one."""
        return (self.base / path).absolute()

    @property
    def keys(self) -> Path:
        """The folder of the key table (`privacy: strict`): never inside of the output."""
        if self.privacy.keys is not None:
            return self.resolve(self.privacy.keys).resolve()
        return self.output.with_name(f"{self.output.name}.keys")


def load_config(path: Path) -> Config:
    """Read and check one YAML file.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or does not fit; one line for each problem.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read the configuration {path}: it is no text in UTF-8; give a YAML file") from error
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror or error}") from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_in_yaml(error)}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping with `output`, `cohort` and `model`")
    return parse_config(raw, base=path.absolute().parent, source=str(path))


def _in_yaml(error: yaml.YAMLError) -> str:
    """What is wrong and where, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    hint = "; indent with spaces" if "'\\t'" in (error.problem or "") else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}{hint}"


def parse_config(raw: dict[str, Any], *, base: Path, source: str = "configuration") -> Config:
    """Check a mapping as `load_config` does; relative paths count from `base`."""
    if "base" in raw:
        raise ConfigError(f"{source}: base: unknown key")
    try:
        config = Config.model_validate({**raw, "base": base})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {_sentence(e)}" for e in error.errors())) from None
    config = config.model_copy(update={"output": config.resolve(config.output).resolve()})
    if config.keys.is_relative_to(config.output):
        raise ConfigError(f"{source}: privacy.keys: must lie outside of the output, which others may read")
    return config


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "top level"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{_suggestion(error['loc'])}"
    if error["type"] == "missing":
        return f"{where}: is required"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _suggestion(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = Config
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    names = [name for name in model.model_fields if name != "base"]
    near = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; known here: {', '.join(names)}"
