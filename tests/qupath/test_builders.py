"""How QuPath is told to open a slide."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.qupath.builders import (
    OPENSLIDE,
    builder_size,
    builder_uri,
    canonical,
    check_uri,
    file_name,
    local_path,
    pixel_size,
    slide_uri,
    uri_builder,
)

parts = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=12)


class Size(NamedTuple):
    width: int
    height: int
    downsample: float


@given(st.lists(parts.filter(lambda p: p not in {".", ".."}), min_size=1, max_size=4))
def test_every_path_becomes_a_uri_that_java_parses_and_that_leads_back(names: list[str]) -> None:
    path = Path("/", *names)
    uri = slide_uri(path)
    assert uri.isascii()
    check_uri(uri, "slide")
    assert unquote(urlsplit(uri).path) == str(path)
    assert local_path(uri) == path
    assert canonical(uri) == canonical(uri.replace("file:///", "file:/", 1))


def test_a_uri_is_kept_and_only_encoded_where_it_must_be() -> None:
    assert slide_uri("file:///Z:/slides/a%20b.svs") == "file:///Z:/slides/a%20b.svs"
    assert slide_uri("file:/mnt/ü x.svs") == "file:///mnt/%C3%BC%20x.svs"
    assert slide_uri("file:////server/share/a.svs") == "file:////server/share/a.svs"
    assert slide_uri("https://host/a.svs?x=1") == "https://host/a.svs?x=1"


@pytest.mark.parametrize("uri", ["s3://bucket/a.svs", "gs://b/a.svs"])
def test_an_address_that_qupath_cannot_open_is_refused_with_the_remedy(uri: str) -> None:
    with pytest.raises(ProjectError, match="slide_uris"):
        slide_uri(uri)


@pytest.mark.parametrize("uri", ["file:///a b.svs", "file:///a%2.svs", "file:///a|b", 'file:///"', None, ""])
def test_an_address_that_java_refuses_is_refused_here(uri: object) -> None:
    with pytest.raises(ProjectError, match="image 3"):
        check_uri(uri, "image 3")


def test_addresses_of_one_slide_are_equal_in_whatever_form() -> None:
    assert canonical("file:/x/a%20b.svs") == canonical("file:///x/a%20b.svs") == canonical("file://localhost/x/a b.svs")
    assert canonical("file:////server/share/a.svs") == canonical("file://Server/share/a.svs")
    assert canonical("file:///server/share/a.svs") != canonical("file://server/share/a.svs")
    assert canonical("https://Host/a?x=1") != canonical("https://host/a?x=2")


def test_a_plain_slide_names_no_reader_and_no_metadata() -> None:
    assert uri_builder("file:///a.svs", "a.svs", size=(10, 20), mpp=None) == {
        "builderType": "uri",
        "uri": "file:///a.svs",
        "args": [],
    }


def test_a_slide_with_bounds_names_openslide_and_tells_it_not_to_crop() -> None:
    builder = uri_builder("file:///a.mrxs", "a.mrxs", size=(10, 20), mpp=None, no_crop=True)
    assert builder["providerClassName"] == OPENSLIDE
    assert builder["args"] == ["--no-crop"]
    assert list(builder) == ["builderType", "providerClassName", "uri", "args"]


@pytest.mark.testdata
def test_a_given_calibration_writes_the_whole_metadata_in_the_form_of_real_projects(testdata: Path) -> None:
    project = testdata / "qupath" / "more" / "q060_project" / "project" / "project.qpproj"
    real = {e["entryID"]: e["serverBuilder"] for e in orjson.loads(project.read_bytes())["images"]}[7]
    levels = [Size(x["width"], x["height"], x["downsample"]) for x in real["metadata"]["levels"]]
    ours = uri_builder(real["uri"], "huge-200k.tif", size=(200_000, 200_000), mpp=0.25, levels=levels)
    assert ours["metadata"] == real["metadata"]
    assert orjson.dumps(ours["metadata"]) == orjson.dumps(real["metadata"])
    assert builder_size(ours) == (200_000, 200_000)
    assert pixel_size(ours) == (0.25, 0.25, "µm")


@pytest.mark.testdata
def test_what_the_file_states_stands_where_a_real_project_has_it(testdata: Path) -> None:
    project = testdata / "qupath" / "tcga-coad_434_v0.3.2.qpproj"
    real = orjson.loads(project.read_bytes())["images"][0]["serverBuilder"]["metadata"]
    levels = [Size(x["width"], x["height"], x["downsample"]) for x in real["levels"]]
    pixel = tuple(real["pixelCalibration"][key]["value"] for key in ("pixelWidth", "pixelHeight"))
    tile = real["preferredTileWidth"], real["preferredTileHeight"]
    ours = uri_builder(
        "file:///a.svs",
        real["name"],
        size=(real["width"], real["height"]),
        mpp=sum(pixel) / 2,
        levels=levels,
        pixel=(pixel[0], pixel[1]),
        magnification=real["magnification"],
        tile=tile,
    )
    assert list(ours["metadata"]) == list(real)
    assert ours["metadata"] == real


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///x/a.svs", "a.svs"),
        ("file:/x/small%20%C3%BCn%C3%AF%20%E5%A3%8A%E6%AD%BB.tif", "small ünï 壊死.tif"),
        ("file:////server/share/a%2Bb.svs", "a+b.svs"),
        ("https://host/dir/a.svs?token=1", "a.svs"),
        ("https://host/", ""),
    ],
)
def test_the_name_that_qupath_gives_a_slide_is_that_of_its_file(uri: str, name: str) -> None:
    assert file_name(uri) == name


def test_size_and_address_are_found_through_wrappers() -> None:
    inner = uri_builder("file:///a.svs", "a.svs", size=(10, 20), mpp=0.5)
    wrapped = {"builderType": "rotated", "builder": inner, "rotation": "ROTATE_180"}
    assert builder_uri(wrapped) == "file:///a.svs"
    assert builder_size(wrapped) is None
    assert pixel_size(wrapped) is None
    assert builder_uri({"builderType": "sparse", "regions": []}) == ""
