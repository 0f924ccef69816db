"""Does a place look to the network like what it was trained on? The distance of its own features, without torch.

The deepest features of the encoder are averaged over the tissue of a window, and their Mahalanobis distance to the
windows of the training slides is taken (Lee et al. 2018, arXiv:1807.03888; in segmentation with one Gaussian for all
windows, as here, González et al. 2021, arXiv:2107.05975). One Gaussian, since a window holds several classes at once
and belongs to none. The *relative* distance (Ren et al. 2021, arXiv:2106.09022) subtracts the distance to just that
Gaussian of everything from the nearest class's: without classes nothing would be left of it.

There are seldom many more windows than features, so the covariance is shrunk towards a multiple of the identity by the
amount that is best in the mean (Ledoit & Wolf 2004, J. Multivariate Analysis 88:365). Averages of rectified features
are skewed; their square roots are less so, and the distance supposes a Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import sha256_bytes, write_bytes
from wsi_pipeline.models.appearance import FEWEST_SLIDES, FEWEST_WINDOWS, QUANTILE, Floats

STRUCTURE_NAME: Final = "structure.safetensors"
LAYER: Final = "e3"
"""The deepest stage of the bundled U-Net, before dropout."""
_TENSORS: Final = ("mean", "whitening")
# Less variance than this in all is none: the features are always the same.
_SMALLEST: Final = 1e-12


class Structure(BaseModel):
    """What of the statistics of features a model's card says; the statistics are in `file` beside it.

    Attributes
    ----------
    layer
        Of the network, whose output is looked at.
    threshold
        Distance that 99 % of the training windows have at most.
    left_out
        Whether for that each slide was held against the others; else the threshold is a little tight.
    shrinkage
        Share of the covariance that is a multiple of the identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    layer: Literal["e3"]
    features: int = Field(ge=1, le=65536)
    windows: int = Field(ge=1)
    slides: int = Field(ge=1)
    threshold: float = Field(gt=0)
    left_out: bool
    shrinkage: float = Field(ge=0, le=1)
    file: str = STRUCTURE_NAME
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @field_validator("file")
    @classmethod
    def _beside_the_card(cls, value: str) -> str:
        if not value or Path(value).name != value:
            raise ValueError("must be the name of a file beside the card")
        return value


@dataclass(frozen=True, slots=True, eq=False)
class FeatureStatistics:
    """Statistics of the features of the training windows.

    Attributes
    ----------
    mean
        float32 (D,).
    whitening
        float32 (D, D): features less their mean, times it, have the identity as their (shrunk) covariance.
    threshold, left_out, shrinkage
        As in `Structure`.
    """

    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]
    threshold: float
    windows: int
    slides: int
    left_out: bool
    shrinkage: float

    def strangeness(self, features: Floats) -> Floats:
        """Distance of features (n, D) over the threshold, (n,): above 1 is unlike the training slides."""
        result: Floats = _length(features, self.mean, self.whitening) / self.threshold
        return result


def pooled(maps: NDArray[np.float32], tissue: NDArray[np.bool_]) -> Floats:
    """Features of windows: square roots of the means over tissue, float64 (N, D).

    Parameters
    ----------
    maps
        What the layer gives, float32 (N, D, h, w), not below 0.
    tissue
        bool (N, H, W) of the windows, H a multiple of h and W of w; each pixel of the map weighs as the tissue in it.

    Raises
    ------
    ValueError
        A window without tissue has no features.
    """
    count, _, height, width = maps.shape
    cells = tissue.reshape(count, height, tissue.shape[1] // height, width, -1)
    share = cells.mean(axis=(2, 4))
    whole = share.sum(axis=(1, 2))
    if not (whole > 0).all():
        raise ValueError("a window without tissue has no features")
    means = np.einsum("ndhw,nhw->nd", maps.astype(np.float64), share) / whole[:, None]
    result: Floats = np.sqrt(np.maximum(0.0, means))
    return result


def fit_structure(features: Floats, slides: NDArray[Any]) -> FeatureStatistics | None:
    """Statistics of windows (n, D) with the slide of each (n,); None with fewer than 30, or where all are alike."""
    if len(features) < FEWEST_WINDOWS or features.var(axis=0).sum() <= _SMALLEST:
        return None
    names = np.unique(slides)
    mean, whitening, shrinkage = _whitened(features)
    distances = _length(features, mean, whitening)
    left_out = len(names) >= FEWEST_SLIDES
    if left_out:
        for name in names:
            own = slides == name
            if (~own).sum() >= FEWEST_WINDOWS and features[~own].var(axis=0).sum() > _SMALLEST:
                distances[own] = _length(features[own], *_whitened(features[~own])[:2])
    return FeatureStatistics(
        mean=mean,
        whitening=whitening,
        threshold=float(np.quantile(distances, QUANTILE)),
        windows=len(features),
        slides=len(names),
        left_out=left_out,
        shrinkage=shrinkage,
    )


def _whitened(features: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    mean = features.mean(axis=0)
    covariance, shrinkage = shrunk_covariance(features)
    values, vectors = np.linalg.eigh(covariance)
    # The multiple of the identity keeps all values above 0, up to rounding.
    kept = np.maximum(values, values[-1] * 1e-9)
    return mean.astype(np.float32), (vectors / np.sqrt(kept)).astype(np.float32), shrinkage


def shrunk_covariance(features: Floats) -> tuple[Floats, float]:
    """Covariance (D, D) of rows (n, D) after Ledoit & Wolf (2004), and the share of the identity in it (0..1)."""
    away = features - features.mean(axis=0)
    count, size = away.shape
    plain = away.T @ away / count
    even = float(np.trace(plain)) / size
    apart = float((plain**2).sum()) - size * even**2
    # The sum over rows of |x xᵀ - S|², without making a matrix of each.
    noise = (float(((away**2).sum(axis=1) ** 2).sum()) / count - float((plain**2).sum())) / count
    share = 1.0 if apart <= 0 else float(np.clip(noise / apart, 0.0, 1.0))
    return (1 - share) * plain + share * even * np.eye(size), share


def _length(features: Floats, mean: NDArray[np.float32], whitening: NDArray[np.float32]) -> Floats:
    away = (features - mean) @ whitening.astype(np.float64)
    result: Floats = np.sqrt((away**2).sum(axis=1))
    return result


def write_structure(folder: Path, statistics: FeatureStatistics | None) -> Structure | None:
    """Write the statistics beside the card that is to come, and return what that says; without any, old ones go."""
    from safetensors.numpy import save

    path = folder / STRUCTURE_NAME
    if statistics is None:
        path.unlink(missing_ok=True)
        return None
    data = save({name: np.ascontiguousarray(getattr(statistics, name)) for name in _TENSORS})
    write_bytes(path, data)
    return Structure(
        layer=LAYER,
        features=len(statistics.mean),
        windows=statistics.windows,
        slides=statistics.slides,
        threshold=statistics.threshold,
        left_out=statistics.left_out,
        shrinkage=round(statistics.shrinkage, 6),
        sha256=sha256_bytes(data),
    )


def read_structure(card: Structure, folder: Path) -> FeatureStatistics:
    """The statistics that a card in `folder` speaks of.

    Raises
    ------
    ModelError
        The file is not there, has another SHA-256, or holds something else; names it and says what to do.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / card.file
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"{path}: the card's `structure` names it and it is not there; copy the whole folder"
        ) from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    found = sha256_bytes(data)
    if found != card.sha256:
        raise ModelError(
            f"{path}: has the SHA-256 {found[:12]}…, the card's `structure` says {card.sha256[:12]}…; the file is "
            "damaged or of another model: copy both anew"
        )
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: is no safetensors file of plain numbers ({error}); train the model again") from error
    shapes = {name: tensors[name].shape if name in tensors else None for name in _TENSORS}
    if shapes != {"mean": (card.features,), "whitening": (card.features, card.features)}:
        raise ModelError(f"{path}: does not hold statistics of {card.features} features; train the model again")
    mean, whitening = (tensors[name].astype(np.float32) for name in _TENSORS)
    if not (np.isfinite(mean).all() and np.isfinite(whitening).all() and whitening.any()):
        raise ModelError(f"{path}: holds values that are no numbers, or nothing but zeros; train the model again")
    return FeatureStatistics(
        mean=mean,
        whitening=whitening,
        threshold=card.threshold,
        windows=card.windows,
        slides=card.slides,
        left_out=card.left_out,
        shrinkage=card.shrinkage,
    )
