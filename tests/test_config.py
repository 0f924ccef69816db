"""The configuration: what it accepts, and what it says when it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_pipeline.config import Config, load_config, parse_config
from wsi_pipeline.errors import ConfigError

MINIMAL = {"output": "out", "cohort": {"slides": "*.svs"}, "model": {"path": "baseline:stain-density"}}


def parsed(**changes: object) -> Config:
    return parse_config({**MINIMAL, **changes}, base=Path("/cohort"))


def complaint(**changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(**changes)
    return str(caught.value)


def test_output_cohort_and_model_are_enough() -> None:
    config = parsed()
    assert config.output == Path("/cohort/out")
    assert config.cohort.slides == ("*.svs",)
    assert config.regions.threshold == 0.5


def test_who_adjudicates_is_named_beside_who_reads() -> None:
    config = parsed(review={"adjudicators": ["judge"]}, handout={"raters": ["ann", "bob"]})
    assert config.review.adjudicators == ("judge",)


def test_relative_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("output: ../elsewhere\ncohort: {slides: ['a/*.tif']}\nmodel: {path: models/one}\n")
    config = load_config(file)
    assert config.output == tmp_path.parent.resolve() / "elsewhere"
    assert config.resolve("models/one") == tmp_path / "models/one"
    assert config.resolve("/abs/one") == Path("/abs/one")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tisue": {}}, "tisue: unknown key; did you mean `tissue`?"),
        ({"regions": {"treshold": 0.4}}, "regions.treshold: unknown key; did you mean `threshold`?"),
        ({"regions": {"xyz": 0.4}}, "regions.xyz: unknown key; known here: threshold"),
        ({"regions": {"threshold": 1.4}}, "regions.threshold: Input should be less than 1"),
        ({"cohort": {}}, "cohort: give `slides` (globs, paths or URLs) or a `manifest`"),
        ({"cohort": {"slides": ["a"], "mpp": 896}}, "less than or equal to 20"),
        ({"inference": {"block": 1000}}, "inference.block: Input should be a multiple of 128"),
        ({"inference": {"uncertainty": {"tta": 2}}}, "inference.uncertainty.tta: Input should be 0, 4 or 8"),
        ({"inference": {"uncertainty": {"tt": 4}}}, "inference.uncertainty.tt: unknown key; did you mean `tta`?"),
        ({"inference": {"uncertainty": {"dropout": 1}}}, "one pass has nothing to disagree with"),
        ({"costs": {"pathologist_per_hour": -1}}, "costs.pathologist_per_hour"),
        ({"costs": {"gpu_per_hour": -1}}, "costs.gpu_per_hour"),
        ({"costs": {"storage_months": "long"}}, "costs.storage_months"),
        ({"costs": {"storage_month": 1}}, "costs.storage_month: unknown key; did you mean `storage_months`?"),
        (
            {"review": {"adjudicators": ["ann"]}, "handout": {"raters": ["ann", "bob"]}},
            "`review.adjudicators` names 'ann', who reads slides too",
        ),
        ({"review": {"adjudicators": ["rater-1"]}}, "give whoever does both a second name for it"),
        ({"base": "/x"}, "base: unknown key"),
    ],
)
def test_a_wrong_value_is_named_with_its_place_and_a_remedy(changes: dict[str, object], expected: str) -> None:
    assert expected in complaint(**changes)


def test_every_problem_gets_a_line_of_its_own() -> None:
    lines = complaint(tisue={}, regions={"threshold": 2}).splitlines()
    assert len(lines) == 2


@pytest.mark.parametrize("key", ["output", "cohort", "model"])
def test_what_is_required_is_said(key: str) -> None:
    raw = {k: v for k, v in MINIMAL.items() if k != key}
    with pytest.raises(ConfigError, match=f"{key}: is required"):
        parse_config(raw, base=Path("/"))


def test_a_file_that_is_no_yaml_or_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("output: [")
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        load_config(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)
    (tmp_path / "tab.yaml").write_text("output: run\ncohort:\n\tslides: a\n")
    with pytest.raises(ConfigError, match=r"line 3, column 1: .*; indent with spaces$"):
        load_config(tmp_path / "tab.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_config(tmp_path / "list.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"cannot read .* no text in UTF-8"):
        load_config(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    ("mpp", "said"),
    [
        (500, "cohort.mpp: 500 is no µm per pixel: a number, at least 0.05 and"),
        ("0,5", "cohort.mpp: 0,5 is no µm"),
        ({"*.tiff": 0.5, "a.svs": "half"}, "cohort.mpp: a.svs: half is no µm"),
        ({"a.svs": None}, "cohort.mpp: a.svs: None is no µm"),
        (True, "cohort.mpp: True is no µm"),
        ([0.5], "cohort.mpp: [0.5] is no µm"),
        (float("nan"), "cohort.mpp: nan is no µm"),
    ],
)
def test_a_wrong_mpp_is_one_line_in_plain_words(mpp: object, said: str) -> None:
    (line,) = complaint(cohort={"slides": ["a.svs"], "mpp": mpp}).splitlines()
    assert said in line


@pytest.mark.parametrize("mpp", [None, 0.5, "0.5", 1, {"*.tiff": 0.25, "a": 20}])
def test_an_mpp_is_one_number_or_one_by_name(mpp: object) -> None:
    assert parsed(cohort={"slides": ["a.svs"], "mpp": mpp}).cohort.mpp == (0.5 if mpp == "0.5" else mpp)


def test_the_configuration_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parsed().regions.threshold = 0.1  # type: ignore[misc]
