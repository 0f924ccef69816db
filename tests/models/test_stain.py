from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.nets import texture
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models import load_card, load_segmenter, measure_halo
from wsi_pipeline.models.stain import CLASS, NAME, STAINS, StainDensity, haematoxylin, stain_density_card

SIDE = 200
IMAGE = texture(SIDE, SIDE, seed=3)
BASELINE = StainDensity(stain_density_card(radius_um=5, threshold=0.4, slope=0.05))
WHOLE = BASELINE.predict(IMAGE[None])


def stained(haematoxylin: float, eosin: float) -> list[int]:
    """RGB of a pixel with these optical densities of the two stains."""
    vectors = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    density = haematoxylin * vectors[0] + eosin * vectors[1]
    return [round(float(256 * 10**-value - 1)) for value in density]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_window_with_its_halo_gives_the_map_of_the_whole_image(data: st.DataObject) -> None:
    halo = BASELINE.card.halo
    y, x = (data.draw(st.integers(halo, SIDE - halo - 1)) for _ in range(2))
    bottom, right = data.draw(st.integers(y + 1, SIDE - halo)), data.draw(st.integers(x + 1, SIDE - halo))
    part = BASELINE.predict(IMAGE[None, y - halo : bottom + halo, x - halo : right + halo])
    inner = np.s_[:, :, halo:-halo, halo:-halo]
    np.testing.assert_array_equal(part.probability[inner], WHOLE.probability[:, :, y:bottom, x:right])
    np.testing.assert_array_equal(part.uncertainty[:, halo:-halo, halo:-halo], WHOLE.uncertainty[:, y:bottom, x:right])


@given(haematoxylin_density=st.floats(0, 0.8), eosin=st.floats(0, 0.8))
def test_the_density_of_haematoxylin_is_found_whatever_the_eosin(haematoxylin_density: float, eosin: float) -> None:
    pixel = np.array(stained(haematoxylin_density, eosin), dtype=np.uint8).reshape(1, 1, 1, 3)
    # Dark values are rounded coarsely: half a step of green at density 1.5 is 0.03.
    assert haematoxylin(pixel).item() / 1000 == pytest.approx(haematoxylin_density, abs=0.06)


def test_glass_is_not_marked_and_dense_nuclei_are() -> None:
    image = np.full((96, 192, 3), 255, dtype=np.uint8)
    image[:, 96:] = stained(0.8, 0.2)
    maps = StainDensity(stain_density_card()).predict(image[None])
    assert maps.probability[0, 0, 48, 40] == 0
    assert maps.uncertainty[0, 48, 40] == 0
    assert maps.probability[0, 0, 48, 150] == 255


def test_eosin_alone_is_not_marked() -> None:
    image = np.full((96, 96, 3), stained(0.0, 0.9), dtype=np.uint8)
    assert StainDensity(stain_density_card()).predict(image[None]).probability.max() < 10


def test_beyond_the_image_there_is_glass() -> None:
    image = np.full((64, 64, 3), stained(0.6, 0.2), dtype=np.uint8)
    card = stain_density_card()
    padded = np.pad(image, ((card.halo, card.halo), (card.halo, card.halo), (0, 0)), constant_values=255)
    inner = StainDensity(card).predict(padded[None]).probability[:, :, card.halo : -card.halo, card.halo : -card.halo]
    np.testing.assert_array_equal(StainDensity(card).predict(image[None]).probability, inner)


def test_the_stated_halo_is_what_is_measured() -> None:
    assert measure_halo(BASELINE) == BASELINE.card.halo == 10


def test_the_running_sum_is_right_where_it_wraps_around() -> None:
    black = np.zeros((1, 1200, 1200, 3), dtype=np.uint8)
    maps = StainDensity(stain_density_card(threshold=0.1)).predict(black)
    assert (maps.probability[0, 0, 100:-100, 100:-100] == maps.probability[0, 0, 600, 600]).all()


def test_it_is_called_what_it_is_and_says_that_it_finds_no_tumour() -> None:
    card = load_card("baseline:stain-density")
    assert card.name == NAME == "stain-density baseline"
    assert "Not a tumour model" in card.notes
    assert [spec.name for spec in card.foreground] == [CLASS]
    assert "tumo" not in CLASS.lower()
    assert card.model_id.startswith("stain-density baseline@")
    segmenter = load_segmenter("baseline:stain-density", device="cpu", threads=1)
    assert (segmenter.card, segmenter.runtime) == (card, "numpy")


def test_class_mpp_and_threshold_can_be_chosen_in_the_path() -> None:
    card = load_card("baseline:stain-density?class=Tumor&mpp=0.5&threshold=0.25")
    assert [spec.name for spec in card.foreground] == ["Tumor"]
    assert card.mpp == 0.5
    assert card.architecture_args["threshold"] == 0.25
    assert card.halo == 48


def test_the_model_id_changes_with_what_changes_the_map_only() -> None:
    plain = stain_density_card()
    assert stain_density_card(class_name="Tumor").model_id == plain.model_id
    others = [stain_density_card(threshold=0.5), stain_density_card(slope=0.5), stain_density_card(mpp=0.5)]
    assert len({plain.model_id, *(card.model_id for card in others)}) == 4


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("baseline:tumour", "there is no model 'baseline:tumour'; the only baseline is `baseline:stain-density`"),
        ("baseline:stain-density?treshold=1", "unknown key `treshold`; known here: class, mpp, threshold"),
        ("baseline:stain-density?mpp=fine", "mpp must be a number, not 'fine'"),
        ("baseline:stain-density?mpp=0", "a value is out of range"),
        ("baseline:stain-density?mpp=100", "a value is out of range"),
        ("baseline:stain-density?mpp=nan", "a value is out of range"),
        ("baseline:stain-density?slope=0", "a value is out of range"),
        ("baseline:stain-density?class=", "a value is out of range"),
    ],
)
def test_a_baseline_that_does_not_exist_is_refused_with_the_way_out(path: str, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_card(path)
    assert sentence in str(caught.value)
