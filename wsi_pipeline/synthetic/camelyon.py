"""The demo's cohort: small slides laid out from real tissue (20 CC0 tiles of CAMELYON), with known truth.

Every tile belongs to one slide, so none is both trained on and predicted. A slide shows its tiles about three times,
turned and flipped, in two pieces with an organic outline, like sections on glass. What the tiles are, and what is not
known about them, stands in assets/camelyon/README.md.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.files import read_json, write_json, write_text
from wsi_pipeline.synthetic import marks
from wsi_pipeline.synthetic.mosaic import Deck, Glass, Piece, Tile, piece_of
from wsi_pipeline.synthetic.pyramid import Encoding, write_pyramid
from wsi_pipeline.synthetic.truth import Truth, read_truth

ASSETS = Path(__file__).parent / "assets" / "camelyon"
SOURCE = (
    "CAMELYON (CC0), resampled and masks smoothed by "
    "sarah-antillia/Tensorflow-Image-Segmentation-Augmented-CAMELYON-Resampled"
)

# Not stated by the source; nuclei suggest it.
MPP = 0.5
MASK_THRESHOLD = 128
# Median of the empty parts of the tiles.
GLASS_COLOR = (228.0, 220.0, 223.0)
ENCODING = Encoding(tile=512, quality=90)
VERSION = 1


class Role(StrEnum):
    """What a slide is for in the demo."""

    TRAIN = "train"
    REVIEW = "review"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which tiles a slide shows. Patients are groups of neighbouring numbers, which may come from one patient."""

    slide_id: str
    patient: str
    site: str
    role: Role
    tiles: tuple[int, ...]


PLANS = (
    Plan("lymph-01", "P01", "A", Role.TRAIN, (10072, 10073)),
    Plan("lymph-02", "P02", "A", Role.TRAIN, (10670, 10671, 10672)),
    Plan("lymph-03", "P03", "A", Role.TRAIN, (10673, 10674, 10675)),
    Plan("lymph-04", "P04", "A", Role.REVIEW, (10676, 10677)),
    Plan("lymph-05", "P05", "B", Role.REVIEW, (10678, 10679)),
    Plan("lymph-06", "P06", "B", Role.REVIEW, (10680, 10681)),
    Plan("lymph-07", "P07", "B", Role.REVIEW, (10682, 10683)),
    Plan("lymph-08", "P08", "B", Role.HELD_OUT, (10684, 10685)),
    Plan("lymph-09", "P09", "B", Role.HELD_OUT, (10686, 10687)),
)


@dataclass(frozen=True, slots=True)
class DemoSlide:
    """A slide of the demo on disk, and what is really in it."""

    plan: Plan
    path: Path
    truth: Truth

    @property
    def slide_id(self) -> str:
        return self.plan.slide_id


@dataclass(frozen=True, slots=True)
class DemoCohort:
    """All slides of the demo.

    Attributes
    ----------
    folder
        Holds `slides/`, `truth/`, `cohort.json` and a manifest per role.
    """

    folder: Path
    slides: tuple[DemoSlide, ...]

    def of(self, role: Role) -> tuple[DemoSlide, ...]:
        """The slides with this role, in order."""
        return tuple(slide for slide in self.slides if slide.plan.role is role)

    def manifest(self, role: Role) -> Path:
        """CSV with the columns of `cohort.manifest`; URIs relative to its folder."""
        return manifest_path(self.folder, role)

    def truth_path(self, slide_id: str) -> Path:
        """GeoJSON of a slide's truth, level-0 px."""
        return truth_path(self.folder, slide_id)


def manifest_path(folder: Path, role: Role) -> Path:
    return folder / f"{role.value}.csv"


def truth_path(folder: Path, slide_id: str) -> Path:
    return folder / "truth" / f"{slide_id}.geojson"


def slide_path(folder: Path, slide_id: str) -> Path:
    return folder / "slides" / f"{slide_id}.tif"


def load_tile(number: int) -> Tile:
    """One of the shipped tiles: 512 x 512 px at about 0.5 µm/px; tumour where the mask is at least 128."""
    with Image.open(ASSETS / f"{number}_image.jpg") as image, Image.open(ASSETS / f"{number}_mask.jpg") as mask:
        return Tile(np.asarray(image.convert("RGB")), np.asarray(mask.convert("L")) >= MASK_THRESHOLD)


def build_cohort(folder: Path, *, seed: int = 0, plans: Sequence[Plan] = PLANS) -> DemoCohort:
    """Write the demo's slides, their truth and manifests, or take them when they are there already.

    The same seed gives the same bytes. About 1 CPU second a slide.
    """
    wanted = _description(seed, plans)
    made = [_load(folder, plan) for plan in plans] if _is_there(folder, wanted, plans) else []
    if not made:
        made = [_make(folder, plan, seed) for plan in plans]
        for role in Role:
            write_text(manifest_path(folder, role), _manifest(p for p in plans if p.role is role))
        write_json(folder / "cohort.json", wanted)
    return DemoCohort(folder, tuple(made))


def _description(seed: int, plans: Sequence[Plan]) -> dict[str, object]:
    """What cohort.json says: where the tissue comes from, and which tile lies on which slide."""
    slides = {
        plan.slide_id: {"patient": plan.patient, "site": plan.site, "role": plan.role, "tiles": list(plan.tiles)}
        for plan in plans
    }
    notes = [
        "Slides are laid out from tiles; patients are groups of neighbouring tile numbers.",
        "Neighbouring numbers may come from one patient, so patients may not be independent.",
        "Sites are invented. The resolution is not stated by the source and taken as 0.5 µm/px.",
    ]
    return {
        "schema": 1,
        "version": VERSION,
        "seed": seed,
        "mpp": MPP,
        "source": SOURCE,
        "slides": slides,
        "notes": notes,
    }


def _is_there(folder: Path, wanted: dict[str, object], plans: Sequence[Plan]) -> bool:
    description = folder / "cohort.json"
    if not description.is_file() or read_json(description) != wanted:
        return False
    return all(slide_path(folder, p.slide_id).is_file() and truth_path(folder, p.slide_id).is_file() for p in plans)


def _load(folder: Path, plan: Plan) -> DemoSlide:
    path = slide_path(folder, plan.slide_id)
    with Image.open(path) as image:
        size = image.size
    return DemoSlide(plan, path, read_truth(truth_path(folder, plan.slide_id), size=size, mpp=MPP))


def _make(folder: Path, plan: Plan, seed: int) -> DemoSlide:
    glass = lay_out(np.random.default_rng([seed, *plan.tiles]), [load_tile(number) for number in plan.tiles])
    picture, truth = glass.picture(), glass.truth(MPP)
    path = slide_path(folder, plan.slide_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pyramid(path, _strips(picture), truth.size, mpp=MPP, encoding=ENCODING)
    truth.save(truth_path(folder, plan.slide_id), slide_id=plan.slide_id)
    return DemoSlide(plan, path, truth)


def _strips(picture: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for y in range(0, picture.shape[0], ENCODING.tile):
        yield picture[y : y + ENCODING.tile]


def _manifest(plans: Iterator[Plan]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["slide_id", "uri", "mpp", "patient", "site", "scanner"])
    for plan in plans:
        writer.writerow([plan.slide_id, f"slides/{plan.slide_id}.tif", "", plan.patient, plan.site, "laid out"])
    return out.getvalue()


def lay_out(rng: np.random.Generator, tiles: Sequence[Tile]) -> Glass:
    """A large and a small piece of these tiles on glass, with pen around one and some dust."""
    deck = Deck(rng, tiles)
    big = piece_of(rng, deck.grid(2, len(tiles)))
    small = piece_of(rng, deck.grid(2, 1) if rng.random() < 0.5 else deck.grid(1, 2))
    first, second = (big, small) if rng.random() < 0.5 else (small, big)
    width = _width(first) + _width(second) + int(rng.integers(900, 1150))
    height = max(_height(first), _height(second)) + int(rng.integers(620, 800))
    glass = Glass.empty(rng, (width, height), GLASS_COLOR)
    gap = (width - _width(first) - _width(second)) // 3
    places = []
    for piece, x in ((first, gap), (second, 2 * gap + _width(first))):
        y = int(rng.integers(200, height - _height(piece) - 200))
        glass.lay(piece, x, y)
        places.append((x + _width(piece) / 2, y + _height(piece) / 2, piece))
    x_center, y_center, ringed = places[int(rng.integers(2))]
    radii = (_width(ringed) * 0.5 + 60, _height(ringed) * 0.5 + 60)
    glass.mark(marks.pen(rng, (x_center, y_center), radii, rng.uniform(28, 44), marks.pen_color(rng)))
    for _ in range(int(rng.integers(4, 9))):
        glass.mark(marks.dust(rng, (width, height), MPP))
    return glass


def _width(piece: Piece) -> int:
    return int(piece.opacity.shape[1])


def _height(piece: Piece) -> int:
    return int(piece.opacity.shape[0])
