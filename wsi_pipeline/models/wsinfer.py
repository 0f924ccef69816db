"""Model folders of WSInfer (`config.json` and `torchscript_model.pt`): classifiers of patches, as coarse maps.

One pixel of the map is one patch of a grid that begins at the slide's corner. Only what the folder's configuration
says is used; a `card.json` beside it goes before it, and may give better names, colours or a background.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsi_pipeline.errors import ModelError, StoreError
from wsi_pipeline.files import read_json
from wsi_pipeline.models.card import ClassSpec, ModelCard
from wsi_pipeline.models.weights import sha256_of
from wsi_pipeline.objects import RGB

CONFIG_NAME: Final = "config.json"
WEIGHTS: Final = "torchscript_model.pt"
WINDOW: Final = 768
"""About as many pixels as a window of a segmentation model has."""

BACKGROUND: Final = {"background", "other", "notumor", "nontumor", "notils", "tilnegative", "negative"}
"""Names, without case and separators, that say that there is nothing of what is looked for."""
GREY: Final[RGB] = (200, 200, 200)
PALETTE: Final[tuple[RGB, ...]] = (
    (200, 0, 0),
    (0, 114, 178),
    (0, 158, 115),
    (230, 159, 0),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (120, 94, 240),
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Transform(_Part):
    name: Literal["Resize", "ToTensor", "Normalize"]
    arguments: dict[str, Any] = Field(default_factory=dict)


class WsinferConfig(_Part):
    """`config.json`, version 1.0, as the WSInfer model zoo defines it; keys that change no result are ignored."""

    spec_version: Literal["1.0"]
    architecture: str
    num_classes: Annotated[int, Field(ge=1, le=200)]
    class_names: tuple[Annotated[str, Field(min_length=1)], ...]
    patch_size_pixels: Annotated[int, Field(ge=8, le=1024)]
    spacing_um_px: Annotated[float, Field(ge=0.05, le=20)]
    transform: tuple[_Transform, ...]

    @model_validator(mode="after")
    def _fits_together(self) -> WsinferConfig:
        if len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names: there are {len(self.class_names)}, num_classes says {self.num_classes}")
        names = [step.name for step in self.transform]
        if names not in (["ToTensor"], ["Resize", "ToTensor"], ["ToTensor", "Normalize"], list(_ALL)):
            raise ValueError(f"transform: {', '.join(names)}; known here: {', '.join(_ALL)}, in this order")
        return self


_ALL: Final = ("Resize", "ToTensor", "Normalize")


def is_wsinfer(folder: Path) -> bool:
    """Whether a folder looks like a model of WSInfer."""
    try:
        raw = read_json(folder / CONFIG_NAME) if (folder / CONFIG_NAME).is_file() else None
    except StoreError:
        return False
    return isinstance(raw, dict) and {"patch_size_pixels", "spacing_um_px"} <= raw.keys()


def wsinfer_card(folder: Path) -> ModelCard:
    """The card that a model folder of WSInfer amounts to.

    Raises
    ------
    ModelError
        The configuration does not hold (one line for each problem), or the weights are missing.
    """
    file = folder / CONFIG_NAME
    weights = folder / WEIGHTS
    try:
        config = WsinferConfig.model_validate(read_json(file))
        steps = {step.name: step.arguments for step in config.transform}
        resize = _side(steps["Resize"].get("size")) if "Resize" in steps else None
        normalise = steps.get("Normalize", {})
        colours = {key: normalise[key] for key in ("mean", "std")} if "Normalize" in steps else {}
        if not weights.is_file():
            raise ModelError(f"model {folder}: there is no {WEIGHTS} beside {CONFIG_NAME}; download the whole folder")
        patch = config.patch_size_pixels
        return ModelCard(
            name=_name(folder),
            architecture="wsinfer",
            architecture_args={"network": config.architecture} | ({} if resize is None else {"resize": resize}),
            mpp=config.spacing_um_px,
            window=max(1, WINDOW // patch) * patch,
            halo=0,
            stride=patch,
            output_downsample=patch,
            activation="softmax" if config.num_classes > 1 else "sigmoid",
            classes=_classes(config.class_names),
            weights=WEIGHTS,
            sha256=sha256_of(weights),
            **colours,
        )
    except ValidationError as error:
        lines = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}".removeprefix(": ") for e in error.errors()]
        raise ModelError("\n".join(f"{file}: {line}" for line in lines)) from None
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{file}: transform: {error} is missing or wrong") from None
    except StoreError as error:
        raise ModelError(str(error)) from None


def _side(size: Any) -> int:
    sides = {int(side) for side in (size if isinstance(size, list) else [size])}
    if len(sides) != 1 or min(sides) < 8:
        raise ValueError(f"Resize to {size}")
    return sides.pop()


def _name(folder: Path) -> str:
    """The folder's name; of a snapshot in a cache of Hugging Face, the name that it has there."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name or "wsinfer model"


def _classes(names: tuple[str, ...]) -> tuple[ClassSpec, ...]:
    plain = ["".join(c for c in name.lower() if c.isalnum()) for name in names]
    background = next((i for i, name in enumerate(plain) if name in BACKGROUND), None) if len(names) > 1 else None
    specs, colours = [], iter(PALETTE * (len(names) // len(PALETTE) + 1))
    for index, name in enumerate(names):
        empty = index == background
        specs.append(ClassSpec(name=name, color=GREY if empty else next(colours), background=empty))
    return tuple(specs)
