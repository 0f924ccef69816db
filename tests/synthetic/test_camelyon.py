"""The demo's cohort: real tiles, no tile on two slides, truth that is cut as the tissue is."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from wsi_pipeline.files import read_json, sha256_file
from wsi_pipeline.synthetic.camelyon import (
    ASSETS,
    GLASS_COLOR,
    PLANS,
    DemoCohort,
    Role,
    build_cohort,
    load_tile,
    slide_path,
    truth_path,
)

FEW = (PLANS[0], PLANS[3], PLANS[7])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> DemoCohort:
    return build_cohort(tmp_path_factory.mktemp("cohort"), seed=0, plans=FEW)


def test_no_tile_lies_on_two_slides_and_all_twenty_are_used() -> None:
    counts = Counter(number for plan in PLANS for number in plan.tiles)
    assert set(counts.values()) == {1}
    assert len(counts) == 20
    assert {int(path.name.split("_")[0]) for path in ASSETS.glob("*_image.jpg")} == set(counts)


def test_no_patient_has_slides_in_two_roles_and_patients_are_neighbouring_numbers() -> None:
    roles: dict[str, set[Role]] = {}
    for plan in PLANS:
        roles.setdefault(plan.patient, set()).add(plan.role)
        assert list(plan.tiles) == list(range(plan.tiles[0], plan.tiles[-1] + 1))
    assert all(len(found) == 1 for found in roles.values())


def test_the_shipped_tiles_stay_small_and_name_their_source_and_licence() -> None:
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 5_000_000
    text = (ASSETS / "README.md").read_text()
    assert "CC0" in text
    assert "sarah-antillia/Tensorflow-Image-Segmentation-Augmented-CAMELYON-Resampled" in text


def test_a_tile_is_cut_at_128_and_every_tile_has_tumour_and_none() -> None:
    for plan in PLANS:
        for number in plan.tiles:
            tile = load_tile(number)
            with Image.open(ASSETS / f"{number}_mask.jpg") as mask:
                grey = np.asarray(mask.convert("L"))
            assert tile.image.shape == (512, 512, 3)
            assert (tile.tumour == (grey > 127)).all()
            assert 0.2 < tile.tumour.mean() < 0.8


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path, cohort: DemoCohort) -> None:
    for name, seed in (("same", 0), ("other", 1)):
        build_cohort(tmp_path / name, seed=seed, plans=FEW[:1])
    first = cohort.slides[0]
    assert sha256_file(slide_path(tmp_path / "same", first.slide_id)) == sha256_file(first.path)
    same, here = truth_path(tmp_path / "same", first.slide_id), cohort.truth_path(first.slide_id)
    assert same.read_bytes() == here.read_bytes()
    assert sha256_file(slide_path(tmp_path / "other", first.slide_id)) != sha256_file(first.path)


def test_building_again_touches_no_file(cohort: DemoCohort) -> None:
    before = {path: path.stat().st_mtime_ns for path in cohort.folder.rglob("*")}
    again = build_cohort(cohort.folder, seed=0, plans=FEW)
    assert {path: path.stat().st_mtime_ns for path in cohort.folder.rglob("*")} == before
    for made, read in zip(cohort.slides, again.slides, strict=True):
        assert read.truth.size == made.truth.size
        assert read.truth.tumour.symmetric_difference(made.truth.tumour).area < 1


def test_a_lost_slide_is_made_again(tmp_path: Path, cohort: DemoCohort) -> None:
    for part in ("slides", "truth"):
        shutil.copytree(cohort.folder / part, tmp_path / part)
    shutil.copy(cohort.folder / "cohort.json", tmp_path)
    lost = slide_path(tmp_path, FEW[0].slide_id)
    lost.unlink()
    build_cohort(tmp_path, plans=FEW)
    assert sha256_file(lost) == sha256_file(cohort.slides[0].path)


def test_truth_is_valid_and_tumour_lies_in_tissue(cohort: DemoCohort) -> None:
    for slide in cohort.slides:
        truth = slide.truth
        assert truth.tissue.is_valid
        assert truth.tumour.is_valid
        assert len(shapely.get_parts(truth.tissue)) == 2
        assert truth.tumour.difference(truth.tissue.buffer(0.1)).area < 1
        assert 0.1 < truth.tumour.area / truth.tissue.area < 0.9
        assert shapely.box(0, 0, *truth.size).contains(truth.tissue)


def test_outside_of_the_tissue_are_only_glass_pen_and_dust(cohort: DemoCohort) -> None:
    for slide in cohort.slides:
        with tifffile.TiffFile(slide.path) as file:
            picture = np.asarray(file.series[0].levels[0].asarray())
        assert picture.shape == (slide.truth.size[1], slide.truth.size[0], 3)
        outside = ~slide.truth.mask("tissue", 1.0)
        off = np.abs(picture.astype(int) - np.array(GLASS_COLOR)).max(axis=2) > 12
        assert (off & outside).sum() / outside.sum() < 0.06
        # Nuclei and stroma: the tissue itself is hardly ever the colour of glass.
        inside = slide.truth.mask("tissue", 1.0)
        assert (off & inside).sum() / inside.sum() > 0.75


def test_a_pixel_of_tumour_is_one_that_the_tile_calls_tumour(cohort: DemoCohort) -> None:
    """The truth follows the tiles: their known share of tumour comes back, cutting and repeating aside."""
    for slide in cohort.slides:
        shares = [load_tile(number).tumour.mean() for number in slide.plan.tiles]
        share = slide.truth.tumour.area / slide.truth.tissue.area
        assert min(shares) - 0.15 < share < max(shares) + 0.15


def test_each_role_has_a_manifest_whose_slides_exist(cohort: DemoCohort) -> None:
    for role in Role:
        with cohort.manifest(role).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["slide_id"] for row in rows] == [s.slide_id for s in cohort.of(role)]
        for row in rows:
            assert (cohort.folder / row["uri"]).is_file()
            assert row["patient"].startswith("P")


def test_the_description_says_what_is_made_up(cohort: DemoCohort) -> None:
    text = str(read_json(cohort.folder / "cohort.json"))
    assert "CC0" in text
    assert "may come from one patient" in text
    assert "not stated" in text
