"""The cohort: what is found, what is refused, and that ids stay."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.cohort import Cohort, load_cohort, name_of, slide_id_of
from wsi_pipeline.config import parse_config
from wsi_pipeline.errors import ConfigError


def cohort(base: Path, **section: object) -> Cohort:
    raw = {"output": "out", "cohort": section, "model": {"path": "baseline:stain-density"}}
    return load_cohort(parse_config(raw, base=base))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.tif", "a.svs", "notes.txt", "truth.geojson"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c d.tif").write_bytes(b"x")
    return tmp_path


def test_globs_find_slides_in_order_and_leave_notes_alone(folder: Path) -> None:
    found = cohort(folder, slides=["*", "deep/*.tif"])
    assert [ref.name for ref in found.slides] == ["a.svs", "b.tif", "c d.tif"]
    assert found.problems == ()
    assert found.slides[2].slide_id.startswith("c_d-")


@pytest.mark.parametrize(
    ("slides", "line"),
    [
        ("none.svs", "none.svs: there is no file"),
        ("*.ndpi", "*.ndpi: matches no file"),
        ("deep", "is a folder; name the slide file"),
    ],
)
def test_what_cannot_be_a_slide_is_one_clear_line_and_the_others_go_on(folder: Path, slides: str, line: str) -> None:
    found = cohort(folder, slides=["a.svs", slides])
    assert len(found.slides) == 1
    (problem,) = found.problems
    assert line in str(problem)
    assert "\n" not in str(problem)


def test_a_slide_that_is_listed_twice_counts_once(folder: Path) -> None:
    (folder / "link.svs").symlink_to(folder / "a.svs")
    found = cohort(folder, slides=["a.svs", "./a.svs", "link.svs"])
    assert [ref.name for ref in found.slides] == ["a.svs"]
    assert ["is there twice" in str(p) for p in found.problems] == [True, True]


def manifest(folder: Path, text: str) -> Path:
    path = folder / "cohort.csv"
    path.write_text(text)
    return path


def test_a_manifest_gives_ids_groups_and_mpp(folder: Path) -> None:
    manifest(
        folder, "slide_id,uri,mpp,patient,site,scanner\nS1,a.svs,0.25,P1,X,Y\nS2,b.tif,,P2,,\n,deep/c d.tif,nan,,,\n"
    )
    first, second, third = cohort(folder, manifest="cohort.csv", mpp=0.5).slides
    assert (first.slide_id, first.mpp, first.patient, first.site, first.scanner) == ("S1", 0.25, "P1", "X", "Y")
    assert (second.mpp, second.site) == (0.5, None)
    assert third.slide_id == slide_id_of(str(folder / "deep" / "c d.tif"))


def test_a_parquet_manifest_is_read_too(folder: Path) -> None:
    pq.write_table(pa.table({"slide_id": ["S1"], "uri": ["a.svs"], "mpp": [0.3]}), folder / "cohort.parquet")
    (ref,) = cohort(folder, manifest="cohort.parquet").slides
    assert (ref.slide_id, ref.mpp) == ("S1", 0.3)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("../x,a.svs,,", "which cannot be a folder name"),
        ("S1,,,", "cohort.csv row 3: has no uri"),
        ("S1,a.svs,896,", "has the mpp '896'"),
        ("S1,none.svs,,", "there is no file"),
        ("S0,a.svs,,", "is the id of two slides"),
    ],
)
def test_a_bad_row_is_named_and_the_others_go_on(folder: Path, row: str, line: str) -> None:
    manifest(folder, f"slide_id,uri,mpp,patient\nS0,b.tif,,\n{row}\n")
    found = cohort(folder, manifest="cohort.csv")
    assert [ref.slide_id for ref in found.slides] == ["S0"]
    assert line in str(found.problems[0])


@pytest.mark.parametrize("text", [None, "slide,file\na,b\n"])
def test_a_manifest_that_cannot_be_used_is_an_error_of_the_configuration(folder: Path, text: str | None) -> None:
    if text is not None:
        manifest(folder, text)
    with pytest.raises(ConfigError, match=r"cohort\.manifest"):
        cohort(folder, manifest="cohort.csv")


def test_mpp_can_be_given_by_id_name_or_glob(folder: Path) -> None:
    found = cohort(folder, slides=["a.svs", "b.tif", "deep/*"], mpp={"a.svs": 0.25, "*.tif": 0.5})
    assert [ref.mpp for ref in found.slides] == [0.25, 0.5, 0.5]


def test_urls_are_listed_through_fsspec(folder: Path) -> None:
    fs = fsspec.filesystem("memory")
    for name in ("two.tif", "one.tif"):
        fs.pipe(f"/cohort-test/{name}", b"x")
    found = cohort(folder, slides=["memory://cohort-test/*.tif", "https://host/x/a%20b.svs?v=1", "memory://none/*.tif"])
    assert [ref.name for ref in found.slides] == ["one.tif", "two.tif", "a b.svs"]
    assert not found.slides[0].is_local
    assert "matches no object" in str(found.problems[0])


@given(name=st.text(min_size=1, max_size=40).filter(lambda s: "/" not in s and "\0" not in s))
def test_an_id_is_safe_as_a_folder_name_and_repeats(name: str) -> None:
    uri = f"/data/{name}.svs"
    made = slide_id_of(uri)
    assert made == slide_id_of(uri)
    assert all(c.isalnum() or c in "._-" for c in made)
    assert made[0] not in ".-"
    assert name_of(uri) == f"{name}.svs"


def test_two_slides_of_one_name_have_two_ids() -> None:
    assert slide_id_of("/a/x.svs") != slide_id_of("/b/x.svs")
