"""The card of a model: everything that is to be known before its weights are touched. Loads no torch."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wsi_pipeline.errors import ModelError, StoreError
from wsi_pipeline.files import read_json
from wsi_pipeline.models.appearance import Appearance
from wsi_pipeline.models.structure import Structure
from wsi_pipeline.objects import RGB
from wsi_pipeline.tiling import cell_side

SCHEMA = 1
CARD_NAME = "card.json"
WEIGHTS_NAME = "model.safetensors"

LARGEST_COLOUR = 4.0
"""Of `mean` and `std`: what is larger was meant for values up to 255, and the net would see next to nothing."""

Channel = Annotated[int, Field(ge=0, le=255)]
Triple = tuple[float, float, float]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClassSpec(_Part):
    """One output of the model: its name in QuPath, its colour there, and whether it is the background."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    color: tuple[Channel, Channel, Channel]
    background: bool = False


class Provenance(_Part):
    """Where the weights come from, as far as it is known; nothing here changes a result.

    Attributes
    ----------
    slides
        Ids of the slides that the model was trained on: these can never count as unseen.
    patients
        Their patients, where known: another slide of the same patient is not unseen either.
    parent
        `model_id` of the model that this one was fine-tuned from.
    source
        "measured" or "simulated": who made the annotations.
    """

    slides: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    parent: str | None = None
    steps: int | None = None
    seed: int | None = None
    source: str | None = None
    figures: dict[str, float] = Field(default_factory=dict, description="loss, ECE and what else was computed")


class ModelCard(_Part):
    """What a model needs and what comes out of it.

    Attributes
    ----------
    mpp
        µm per pixel of the images that it takes.
    window
        Side of the square that it likes to work on, in input pixels; a multiple of `stride`.
    halo
        Input pixels beyond a window that can change the map inside it, rounded up to `stride`. A card may
        leave it out; then `load_card` measures it, and a card that was only read raises `ModelError` when asked.
    stride
        Windows must begin at multiples of it, and have sides that are multiples of it.
    output_downsample
        Input pixels to one pixel of the map.
    fixed_window
        The map depends on everything in the window (normalisation over it, attention): the model always sees
        squares of `window`, `halo` of them on each side thrown away, on one grid over the slide.
    preprocessing
        "macenko": the net sees haematoxylin, eosin and optical density, scaled per slide; see `stains`. Else colours.
    output
        What the network gives: "logits" or "probabilities". The bundled network gives logits.
    blend
        Share by which neighbouring windows overlap, for a model whose map depends on where its window begins (it sees
        far, or normalises over the window). It then gets windows of just `window` px, with no halo, and they are
        blended. None: the halo is enough, and nothing is computed twice.
    classes
        In the order of the output channels. `background` only with softmax, and once at most.
    mean, std
        Per colour, for values in 0..1: the net sees (x / 255 - mean) / std.
    temperature
        Logits are divided by it.
    appearance
        What the training slides look like, to tell places that are unlike them; None where nobody has measured it.
    structure
        The same of the network's own features; their statistics are in a file beside the card. `unet` only.
    sha256
        Of the weights file; of the parameters where there are no weights.
    """

    schema_version: int = Field(default=SCHEMA, alias="schema", ge=1)
    name: Annotated[str, Field(min_length=1, max_length=200)]
    architecture: Literal["unet", "stain-density", "torchscript", "exported", "onnx", "wsinfer", "python"]
    architecture_args: dict[str, Any] = Field(default_factory=dict)
    mpp: Annotated[float, Field(ge=0.05, le=20)]
    window: Annotated[int, Field(ge=8, le=8192)] = 512
    stated_halo: int | None = Field(default=None, alias="halo", ge=0, le=4096)
    stride: Annotated[int, Field(ge=1, le=1024)] = 1
    output_downsample: Annotated[int, Field(ge=1, le=1024)] = 1
    fixed_window: bool = False
    preprocessing: Literal["none", "macenko"] = "none"
    output: Literal["logits", "probabilities"] = "logits"
    blend: Annotated[float | None, Field(ge=0.1, le=0.5)] = None
    activation: Literal["softmax", "sigmoid"] = "softmax"
    classes: tuple[ClassSpec, ...]
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    temperature: Annotated[float, Field(gt=0)] = 1.0
    weights: str | None = None
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    trained_on: Provenance = Provenance()
    appearance: Appearance | None = None
    structure: Structure | None = None
    notes: str = ""
    licence: str | None = None

    @field_validator("std")
    @classmethod
    def _std_divides(cls, value: Triple) -> Triple:
        if min(value) <= 0:
            raise ValueError("must be above 0")
        return value

    @field_validator("mean", "std")
    @classmethod
    def _for_values_up_to_one(cls, value: Triple) -> Triple:
        if max(abs(number) for number in value) > LARGEST_COLOUR:
            raise ValueError("is for values in 0..1; divide numbers that are meant for 0..255 by 255")
        return value

    @field_validator("weights")
    @classmethod
    def _weights_beside_the_card(cls, value: str | None) -> str | None:
        if value is not None and (not value or Path(value).name != value):
            raise ValueError("must be the name of a file beside the card")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.classes:
            raise ValueError("classes: there is none")
        names = [spec.name for spec in self.classes]
        if len(set(names)) != len(names):
            raise ValueError(f"classes: a name is there twice ({', '.join(names)})")
        backgrounds = sum(spec.background for spec in self.classes)
        if backgrounds and self.activation != "softmax":
            raise ValueError("classes: a background belongs to `activation: softmax` only")
        if backgrounds > 1 or backgrounds == len(names):
            raise ValueError("classes: one background at most, and something beside it")
        if self.activation == "softmax" and len(names) < 2:
            raise ValueError("classes: softmax needs two or more; give a background, or `activation: sigmoid`")
        for key in ("window", "stated_halo"):
            if (getattr(self, key) or 0) % self.stride:
                raise ValueError(f"{key.removeprefix('stated_')}: must be a multiple of stride {self.stride}")
        if self.stride % self.output_downsample:
            raise ValueError("stride: must be a multiple of output_downsample")
        if self.fixed_window and (self.stated_halo is None or self.window <= 2 * self.stated_halo):
            raise ValueError("fixed_window: needs a `halo`, of less than half the window")
        if self.structure is not None and self.architecture != "unet":
            raise ValueError("structure: only of `architecture: unet` the features are known; leave it out")
        if self.blend is not None and self.fixed_window:
            raise ValueError("blend: windows of `fixed_window` do not overlap; leave one of the two out")
        if self.blend is not None and self.stated_halo:
            raise ValueError("blend: blended windows have no halo; leave one of the two out")
        return self

    @property
    def cell(self) -> int:
        """Side of the squares that windows are made of, in input pixels; see `wsi_pipeline.tiling.cell_side`."""
        return self.window - 2 * self.halo if self.fixed_window else cell_side(self.stride)

    @property
    def halo(self) -> int:
        """Input pixels, see the class; raises `ModelError` when nobody has measured it yet."""
        if self.blend is not None:
            return 0
        if self.stated_halo is None:
            raise ModelError(f"model {self.name}: the card states no halo; `load_card` measures it")
        return self.stated_halo

    @property
    def foreground(self) -> tuple[ClassSpec, ...]:
        """The classes that a map holds, in its order."""
        return tuple(spec for spec in self.classes if not spec.background)

    @property
    def foreground_channels(self) -> tuple[int, ...]:
        """Output channels of `foreground`."""
        return tuple(index for index, spec in enumerate(self.classes) if not spec.background)

    @property
    def colors(self) -> dict[str, RGB]:
        """Name to colour, background left out."""
        return {spec.name: spec.color for spec in self.foreground}

    @property
    def model_id(self) -> str:
        """Name and the first 12 hex digits of the weights' SHA-256."""
        return f"{self.name}@{(self.sha256 or 'unsaved')[:12]}"

    def dump(self) -> dict[str, Any]:
        """The card as JSON values, keys as in `card.json`."""
        value = self.model_dump(mode="json", by_alias=True)
        # Cards without them stay what they were, and so do the ids of runs.
        later = {
            "appearance": None,
            "structure": None,
            "fixed_window": False,
            "preprocessing": "none",
            "output": "logits",
            "blend": None,
        }
        return {key: found for key, found in value.items() if key not in later or found != later[key]}


def card_path(path: Path) -> Path:
    """Where the card of a model folder (or a card itself) is."""
    return path if path.name.endswith(".json") else path / CARD_NAME


def read_card(path: Path) -> ModelCard:
    """Read and check the card of the model folder `path`, without touching the weights.

    Raises
    ------
    ModelError
        There is no card, it is not JSON, a key is unknown or wrong (one line each), or it is of a newer schema.
    """
    file = card_path(path)
    if not file.is_file():
        raise ModelError(f"model {path}: there is no {file.name}; give a folder with {CARD_NAME} and {WEIGHTS_NAME}")
    try:
        raw = read_json(file)
    except StoreError as error:
        raise ModelError(f"model {path}: {error}") from error
    return parse_card(raw, source=str(file))


def parse_card(raw: Any, *, source: str) -> ModelCard:
    """Check JSON values as `read_card` does; `source` names them in messages."""
    if not isinstance(raw, dict):
        raise ModelError(f"{source}: a model card is a JSON object")
    schema = raw.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        raise ModelError(f"{source}: is of schema {schema}, this version reads up to {SCHEMA}; update wsi-pipeline")
    try:
        return ModelCard.model_validate(raw)
    except ValidationError as error:
        raise ModelError("\n".join(f"{source}: {_sentence(e)}" for e in error.errors())) from None


def _sentence(error: Any) -> str:
    location = error["loc"]
    where = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{_suggestion(location)}"
    if error["type"] == "missing":
        return f"{where}: is required"
    text = error["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def _suggestion(location: tuple[int | str, ...]) -> str:
    parts: dict[int | str, type[BaseModel]] = {
        "classes": ClassSpec,
        "trained_on": Provenance,
        "appearance": Appearance,
        "structure": Structure,
    }
    model = ModelCard if len(location) == 1 else parts.get(location[0], ModelCard)
    names = [field.alias or name for name, field in model.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; known here: {', '.join(names)}"
