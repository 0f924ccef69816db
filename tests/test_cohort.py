"""The cohort: what is found, what is refused, and that ids stay."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

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


def test_a_key_of_mpp_that_fits_no_slide_is_pointed_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    cohort(folder, slides=["a.svs"], mpp={"a.svz": 0.25})
    assert "`a.svz` fits no slide" in caplog.text


def test_a_file_may_be_named_by_its_home_a_file_url_or_with_dots(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    names = ["~/a.svs", f"file://{folder}/deep/c%20d.tif", "deep/../b.tif"]
    found = cohort(folder, slides=names)
    assert [ref.uri for ref in found.slides] == [str(folder / name) for name in ("a.svs", "deep/c d.tif", "b.tif")]


def test_a_name_with_brackets_is_a_name_when_there_is_such_a_file(folder: Path) -> None:
    (folder / "x[1].svs").write_bytes(b"x")
    assert [ref.name for ref in cohort(folder, slides=["x[1].svs"]).slides] == ["x[1].svs"]


def test_ids_that_differ_only_in_case_are_one_folder_on_some_disks(folder: Path) -> None:
    manifest(folder, "slide_id,uri\nS1,a.svs\ns1,b.tif\n")
    (problem,) = cohort(folder, manifest="cohort.csv").problems
    assert "s1: is the id of two slides, a.svs and b.tif; give each slide its own id" in str(problem)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_manifest_from_a_spreadsheet_is_read(folder: Path, mark: str) -> None:
    lines = ["Slide_ID,URI,mpp,Patient", "S1,a.svs,0|25,P1", ",,,", "S2,b.tif,,12"]
    text = "\ufeff" + "\r\n".join(lines).replace(",", mark).replace("|", ",") + "\r\n"
    (folder / "cohort.csv").write_text(text, encoding="utf-8", newline="")
    found = cohort(folder, manifest="cohort.csv")
    assert found.problems == ()
    assert [(ref.slide_id, ref.mpp, ref.patient) for ref in found.slides] == [("S1", 0.25, "P1"), ("S2", None, "12")]


def test_numbers_of_a_parquet_manifest_are_names_as_they_were_meant(folder: Path) -> None:
    table: dict[str, list[Any]] = {
        "slide_id": [7, 8],
        "uri": ["a.svs", "b.tif"],
        "patient": [12.0, None],
        "mpp": [float("nan"), 0.5],
    }
    pq.write_table(pa.table(table), folder / "cohort.parquet")
    first, second = cohort(folder, manifest="cohort.parquet").slides
    assert (first.slide_id, first.patient, first.mpp) == ("7", "12", None)
    assert (second.slide_id, second.patient, second.mpp) == ("8", None, 0.5)


def test_a_misspelt_column_is_pointed_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest(folder, "uri,pateint,stain\na.svs,P1,HE\n")
    assert cohort(folder, manifest="cohort.csv").slides[0].patient is None
    assert "`pateint` is not used; did you mean `patient`?" in caplog.text
    assert "stain" not in caplog.text


def test_a_manifest_on_a_store_names_slides_beside_it(folder: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/manifest-test/list.csv", b"uri\none.tif\nmemory://else/two.tif\n/abs/three.tif\n")
    found = cohort(folder, manifest="memory://manifest-test/list.csv")
    assert [ref.uri for ref in found.slides] == ["memory://manifest-test/one.tif", "memory://else/two.tif"]
    assert "there is no file /abs/three.tif" in str(found.problems[0])


def test_slides_in_an_archive_are_found(folder: Path) -> None:
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for name in ("deep/b.tif", "deep/a.tif", "deep/notes.txt"):
            archive.writestr(name, "x")
    found = cohort(folder, slides=["zip://deep/*::all.zip"])
    assert [ref.name for ref in found.slides] == ["a.tif", "b.tif"]
    assert found.slides[0].uri == f"zip://deep/a.tif::{folder / 'all.zip'}"
    with fsspec.open(found.slides[0].uri) as file:
        assert file.read() == b"x"


def test_a_store_that_cannot_be_listed_is_one_line(folder: Path) -> None:
    found = cohort(folder, slides=["nosuch://bucket/*.svs", "zip://*.svs::none.zip"])
    assert [type(problem).__name__ for problem in found.problems] == ["SlideNotFound", "SlideNotFound"]
    assert all("cannot be listed" in str(problem) and "\n" not in str(problem) for problem in found.problems)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://bucket/deep/a.svs", "a.svs"),
        ("https://host/x/a%20b.svs?v=1", "a b.svs"),
        ("zip://a.svs::s3://bucket/all.zip", "a.svs"),
        ("simplecache::s3://bucket/a.ome.tif", "a.ome.tif"),
        ("memory://a.svs", "a.svs"),
    ],
)
def test_the_name_of_a_slide_is_the_last_part_of_its_url(uri: str, name: str) -> None:
    assert name_of(uri) == name


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


def test_slides_that_were_moved_keep_the_ids_of_their_old_paths(folder: Path) -> None:
    before = cohort(folder, slides=["*", "deep/*.tif"])
    there = folder.parent / "elsewhere ö"
    folder.rename(there)
    assert not {r.slide_id for r in before.slides} & {r.slide_id for r in cohort(there, slides=["*"]).slides}
    moved = cohort(there, slides=["*", "deep/*.tif"], moved={str(folder): "."})
    assert [ref.slide_id for ref in moved.slides] == [ref.slide_id for ref in before.slides]
    assert [ref.uri for ref in moved.slides[:2]] == [str(there / name) for name in ("a.svs", "b.tif")]


def test_the_innermost_folder_that_was_moved_counts_and_names_that_begin_alike_do_not(folder: Path) -> None:
    moved = {"/old": str(folder), "/older": str(folder / "deep"), "/no": str(folder / "dee")}
    found = cohort(folder, slides=["a.svs", "deep/c d.tif"], moved=moved)
    assert [ref.slide_id for ref in found.slides] == [slide_id_of("/old/a.svs"), slide_id_of("/older/c d.tif")]


def test_a_slide_that_is_at_its_old_and_its_new_place_is_one_with_a_problem(folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new" / "a.svs").write_bytes(b"y")
    found = cohort(folder, slides=["a.svs", "new/a.svs"], moved={str(folder): "new"})
    assert [ref.uri for ref in found.slides] == [str(folder / "a.svs")]
    assert "is the id of two slides" in str(found.problems[0])


def test_an_id_that_somebody_gave_does_not_change_with_the_path(folder: Path) -> None:
    (folder / "cohort.csv").write_text("slide_id,uri\nmine,a.svs\n")
    found = cohort(folder, manifest="cohort.csv", moved={"/old": "."})
    assert [ref.slide_id for ref in found.slides] == ["mine"]
