from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.nets import BACKGROUND, STROMA, TUMOR, tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ClassSpec, ModelCard, Provenance, parse_card, read_card

colors = st.tuples(*[st.integers(0, 255)] * 3)
names = st.text(min_size=1, max_size=20)
specs = st.builds(ClassSpec, name=names, color=colors)


def raw(**changes: Any) -> dict[str, Any]:
    return {**tumor_card().dump(), **changes}


@given(
    classes=st.lists(specs, min_size=1, max_size=5, unique_by=lambda spec: spec.name),
    temperature=st.floats(0.1, 10),
    mpp=st.floats(0.05, 20),
    stride=st.sampled_from([1, 2, 8]),
    notes=st.text(max_size=50),
    slides=st.lists(names, max_size=3),
)
def test_a_card_written_and_read_is_the_same_card(
    classes: list[ClassSpec], temperature: float, mpp: float, stride: int, notes: str, slides: list[str]
) -> None:
    card = ModelCard(
        name="m",
        architecture="unet",
        mpp=mpp,
        window=64 * stride,
        halo=4 * stride,
        stride=stride,
        activation="sigmoid",
        classes=tuple(classes),
        temperature=temperature,
        sha256="0" * 64,
        notes=notes,
        trained_on=Provenance(slides=tuple(slides), figures={"loss": 0.5}),
    )
    assert parse_card(json.loads(json.dumps(card.dump())), source="card.json") == card


def test_the_foreground_leaves_out_the_background_and_keeps_the_order() -> None:
    card = tumor_card(classes=(TUMOR, BACKGROUND, STROMA))
    assert [spec.name for spec in card.foreground] == ["Tumor", "Stroma"]
    assert card.foreground_channels == (0, 2)
    assert card.colors == {"Tumor": (200, 0, 0), "Stroma": (150, 200, 150)}


def test_the_model_id_names_the_weights() -> None:
    assert tumor_card(sha256="ab" * 32).model_id == "test@abababababab"
    assert tumor_card().model_id == "test@unsaved"


def test_a_card_without_halo_says_that_it_must_be_measured() -> None:
    card = tumor_card(halo=None)
    assert card.stated_halo is None
    with pytest.raises(ModelError, match="states no halo; `load_card` measures it"):
        _ = card.halo


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tempreature": 2}, "tempreature: unknown key; did you mean `temperature`?"),
        ({"halos": 8}, "halos: unknown key; did you mean `halo`?"),
        ({"zzz": 1}, "zzz: unknown key; known here: schema, name, "),
        (
            {"classes": [{**TUMOR.model_dump(), "colour": [1, 2, 3]}]},
            "classes.0.colour: unknown key; did you mean `color`?",
        ),
        ({"trained_on": {"slide": []}}, "trained_on.slide: unknown key; did you mean `slides`?"),
        ({"mpp": 896}, "mpp: Input should be less than or equal to 20"),
        ({"mpp": float("nan")}, "mpp: Input should be a finite number"),
        ({"architecture": "resnet"}, "architecture: Input should be 'unet', 'stain-density'"),
        ({"std": [1, 0, 1]}, "std: must be above 0"),
        ({"std": [58.4, 57.1, 57.4]}, r"std: is for values in 0\.\.1; divide numbers .* by 255"),
        ({"mean": [123.7, 116.3, 103.5]}, r"mean: is for values in 0\.\.1; divide numbers .* by 255"),
        ({"weights": "../model.safetensors"}, "weights: must be the name of a file beside the card"),
        ({"sha256": "abc"}, "sha256: String should match pattern"),
        ({"window": 100}, "window: must be a multiple of stride 8"),
        ({"halo": 46}, "halo: must be a multiple of stride 8"),
        ({"output_downsample": 3}, "stride: must be a multiple of output_downsample"),
        ({"classes": []}, "classes: there is none"),
        ({"classes": [TUMOR.model_dump()]}, "classes: softmax needs two or more; give a background"),
        ({"classes": [TUMOR.model_dump()] * 2}, r"classes: a name is there twice \(Tumor, Tumor\)"),
        ({"activation": "sigmoid"}, "classes: a background belongs to `activation: softmax` only"),
        ({"temperature": 0}, "temperature: Input should be greater than 0"),
    ],
)
def test_a_wrong_card_is_refused_with_one_line_that_names_file_and_key(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=f"m/card.json: {sentence}") as caught:
        parse_card(raw(**changes), source="m/card.json")
    assert "\n" not in str(caught.value)


def test_every_wrong_key_has_a_line() -> None:
    with pytest.raises(ModelError) as caught:
        parse_card(raw(mpp=0, temperature=-1), source="card.json")
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_key_is_named() -> None:
    values = raw()
    del values["mpp"]
    with pytest.raises(ModelError, match="mpp: is required"):
        parse_card(values, source="card.json")


def test_two_backgrounds_are_refused() -> None:
    other = {"name": "Glass", "color": [255, 255, 255], "background": True}
    with pytest.raises(ModelError, match="one background at most"):
        parse_card(raw(classes=[BACKGROUND.model_dump(), other]), source="card.json")


def test_a_card_of_a_newer_schema_is_refused_whatever_it_holds() -> None:
    with pytest.raises(ModelError, match="is of schema 2, this version reads up to 1; update"):
        parse_card({"schema": 2, "unheard_of": True}, source="card.json")


@pytest.mark.parametrize("text", ["[1, 2]", '"card"', "3"])
def test_a_card_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ModelError, match="a model card is a JSON object"):
        read_card(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"name: yaml"])
def test_a_card_that_is_no_json_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(data)
    with pytest.raises(ModelError, match="is not valid JSON"):
        read_card(tmp_path)


def test_a_missing_model_is_refused_with_what_a_model_is(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"there is no card\.json; give a folder with card\.json and model\.safetensors"
    ):
        read_card(tmp_path / "nowhere")


def test_the_card_file_may_be_given_instead_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps(raw()))
    assert read_card(tmp_path / "card.json") == read_card(tmp_path)
