"""project.qpproj and classes.json."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.errors import ProjectChanged, ProjectError
from wsi_pipeline.objects import PathClass
from wsi_pipeline.qupath.builders import pixel_size
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.qupath.project_file import (
    argb_of,
    classes_path,
    gson,
    new_project_file,
    project_path,
    read_classes,
    read_project_file,
    rgb_of,
    write_classes,
)

BUILDER = {"builderType": "uri", "uri": "file:///slides/a.svs", "args": []}


def _head(**more: Any) -> dict[str, Any]:
    return {"version": "0.6.0", "createTimestamp": 1, "modifyTimestamp": 2, "lastID": 0, "images": [], **more}


def _image(**more: Any) -> dict[str, Any]:
    return {"serverBuilder": BUILDER, "entryID": 1, "imageName": "a.svs", "metadata": {}, **more}


def _pixels(value: Any) -> dict[str, Any]:
    """Metadata of a server builder with a pixel of this size."""
    side = {"value": value, "unit": "µm"}
    return {"width": 9, "height": 8, "pixelCalibration": {"pixelWidth": side, "pixelHeight": dict(side)}}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Any], Path]:
    def write(value: Any) -> Path:
        path = tmp_path / "project.qpproj"
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return path

    return write


@pytest.mark.testdata
def test_real_project_files_come_out_byte_for_byte(testdata: Path) -> None:
    files = sorted((testdata / "qupath").rglob("*.qpproj"))
    assert len(files) >= 9
    for path in files:
        file = read_project_file(path)
        assert gson(file.raw) == path.read_bytes()
        assert file.entries
        assert all(entry.uri.startswith("file:/") and entry.name for entry in file.entries)
        assert file.last_id >= max(entry.entry_id for entry in file.entries)


@pytest.mark.testdata
def test_a_real_entry_says_what_qupath_shows(testdata: Path) -> None:
    file = read_project_file(testdata / "qupath/more/q060_project/project/project.qpproj")
    entry = file.entry(1)
    assert (entry.name, entry.size, entry.tags) == ("small.tif", (1024, 768), ("tag ü", "second"))
    assert entry.description == 'a description\nwith ünï and "quotes"'
    assert entry.metadata == {"patient": "P-1", "réf": "ünï", "note": 'two\nlines "q"', "empty": ""}
    assert file.last_id == 8
    with pytest.raises(ProjectError, match="id 3"):
        file.entry(3)


@pytest.mark.testdata
def test_real_class_lists_are_read_and_written_in_their_form(testdata: Path, tmp_path: Path) -> None:
    for name in ("q044", "q051", "q060"):
        project = testdata / "qupath" / name / "project"
        classes = read_classes(project)
        assert classes[0] == PathClass("Tumor", (200, 0, 0))
        assert {c.name for c in classes} == {"Tumor", "Stroma", "Tumor: Positive", "Nécrose – 壊死"}
        assert write_classes(tmp_path / name, classes)
        assert classes_path(tmp_path / name).read_bytes() == classes_path(project).read_bytes()
        assert not write_classes(tmp_path / name, classes)


def test_gson_escapes_what_javas_writer_escapes() -> None:
    assert gson({"a": "<b>&='ü"}, indent=False) == '{"a":"\\u003cb\\u003e\\u0026\\u003d\\u0027ü"}'.encode()


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(max_codepoint=0x2FF))))
def test_whatever_gson_writes_reads_back(value: dict[str, str]) -> None:
    assert orjson.loads(gson(value)) == value


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_colours_survive_javas_signed_integers(color: tuple[int, int, int]) -> None:
    argb = argb_of(color)
    assert -(2**31) <= argb < 0
    assert rgb_of(argb) == color


def test_keys_and_builders_that_are_not_known_stay(written: Callable[[Any], Path]) -> None:
    strange = {"builderType": "holographic", "builder": BUILDER, "depth": [1, {"x": None}]}
    path = written(_head(future={"a": 1}, images=[_image(serverBuilder=strange, colour="red")]))
    file = read_project_file(path)
    file.add("b.svs", {**BUILDER, "uri": "file:///slides/b.svs"}, {})
    assert file.save()
    again = orjson.loads(path.read_bytes())
    assert again["future"] == {"a": 1}
    assert again["images"][0]["serverBuilder"] == strange
    assert again["images"][0]["colour"] == "red"


def test_saving_without_a_change_touches_nothing(written: Callable[[Any], Path]) -> None:
    path = written(_head(images=[_image()]))
    before = path.read_bytes()
    assert not read_project_file(path).save()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["project.qpproj"]


def test_a_change_moves_the_timestamp_and_leaves_the_old_file_as_backup(written: Callable[[Any], Path]) -> None:
    path = written(_head(images=[_image()]))
    before = path.read_bytes()
    file = read_project_file(path)
    file.entry(1).update_metadata({"state": "todo"})
    assert file.save()
    assert path.with_name("project.qpproj.backup").read_bytes() == before
    again = orjson.loads(path.read_bytes())
    assert again["createTimestamp"] == 1
    assert again["modifyTimestamp"] > 2
    assert again["images"][0]["metadata"] == {"state": "todo"}
    assert not file.save()


def test_a_project_that_somebody_else_saved_meanwhile_is_not_written(written: Callable[[Any], Path]) -> None:
    path = written(_head(images=[_image()]))
    file = read_project_file(path)
    theirs = json.dumps(_head(images=[_image(imageName="renamed")])).encode()
    path.write_bytes(theirs)
    file.entry(1).update_metadata({"state": "todo"})
    with pytest.raises(ProjectChanged, match="close the project"):
        file.save()
    assert path.read_bytes() == theirs


def test_an_id_that_was_used_never_comes_back(written: Callable[[Any], Path]) -> None:
    file = read_project_file(written(_head(lastID=9, images=[_image()])))
    assert file.add("b", {**BUILDER}, {}).entry_id == 10
    assert file.add("c", {**BUILDER}, {}, above=20).entry_id == 21
    file.save()
    assert orjson.loads(file.path.read_bytes())["lastID"] == 21
    # A lastID that is too small, as a damaged file may state, is raised to the ids that are there.
    low = read_project_file(written(_head(lastID=0, images=[_image(entryID=7)])))
    low.entry(7).update_metadata({"a": "b"})
    low.save()
    assert orjson.loads(low.path.read_bytes())["lastID"] == 7


def test_a_name_that_is_there_is_refused(written: Callable[[Any], Path]) -> None:
    file = read_project_file(written(_head(images=[_image()])))
    with pytest.raises(ProjectError, match=r"a\.svs already"):
        file.add("a.svs", BUILDER, {})
    with pytest.raises(ProjectError, match="needs a name"):
        file.add("", BUILDER, {})


def test_what_qupath_takes_is_taken(written: Callable[[Any], Path]) -> None:
    bom = b"\xef\xbb\xbf" + json.dumps(_head(images=[_image(entryID="4", metadata=None)])).encode()
    entry = read_project_file(written(bom)).entries[0]
    assert (entry.entry_id, entry.metadata, entry.tags) == (4, {}, None)
    old = _head()
    del old["version"]
    assert read_project_file(written(old)).version is None
    bare = _image()
    del bare["serverBuilder"]
    assert read_project_file(written(_head(version="9.9.9", images=[bare]))).entries[0].uri == ""


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "JSON object"),
        ({**_head(), "version": "v0.2.0-m1"}, r"v0\.2\.0-m1"),
        ({"createTimestamp": 1, "modifyTimestamp": 2, "images": []}, "neither `version` nor `lastID`"),
        ({"version": "0.6.0", "modifyTimestamp": 2}, "createTimestamp"),
        ({"version": "0.6.0", "createTimestamp": 2}, "modifyTimestamp"),
        (_head(images={}), "not a list"),
        (_head(images=[3]), "image 1: not a JSON object"),
        (_head(images=[_image(entryID=0)]), "entryID"),
        (_head(images=[_image(entryID="x")]), "entryID"),
        (_head(images=[_image(), _image()]), "two images have the id 1"),
        (_head(images=[_image(metadata=[1])]), "`metadata`"),
        (_head(images=[_image(serverBuilder={"uri": "file:///a"})]), "builderType"),
        (_head(images=[_image(serverBuilder={"builderType": "rotated", "builder": {"uri": "x"}})]), "builderType"),
        (_head(images=[_image(serverBuilder={**BUILDER, "uri": "file:///a b.svs"})]), "percent-encode"),
        (_head(images=[_image(serverBuilder={**BUILDER, "uri": "http://[::1"})]), "no address"),
        (_head(images=[_image(serverBuilder={**BUILDER, "args": 3})]), "`args`"),
        (_head(images=[_image(serverBuilder={**BUILDER, "args": [None]})]), "`args`"),
        (_head(images=[_image(serverBuilder={**BUILDER, "providerClassName": ["x"]})]), "`providerClassName`"),
        (_head(images=[_image(serverBuilder={**BUILDER, "metadata": 7})]), "no JSON object"),
        (_head(images=[_image(serverBuilder={**BUILDER, "metadata": _pixels("wide")})]), "`pixelWidth`"),
        (_head(images=[_image(serverBuilder={**BUILDER, "metadata": _pixels(True)})]), "`pixelWidth`"),
        (_head(version=["0.6.0"]), "`version`"),
    ],
)
def test_what_qupath_refuses_is_refused_in_one_sentence(written: Callable[[Any], Path], value: Any, says: str) -> None:
    path = written(value)
    with pytest.raises(ProjectError, match=says) as caught:
        read_project_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    "%zz",
    "http://[::1",
    [],
    {},
    [1],
    [None],
    {"a": None},
    {"value": "x"},
]


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in JSON, as the keys and indices that lead to it."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield (*above, key)
        yield from _places(below, (*above, key))


@given(st.data())
def test_odd_values_in_any_place_give_a_project_or_the_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    turned = {"builderType": "rotated", "rotation": "ROTATE_90", "builder": {**BUILDER, "metadata": _pixels(0.5)}}
    images = [_image(), _image(entryID=2, serverBuilder=turned, description="d", tags=["t"])]
    project = copy.deepcopy(_head(images=images))
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(list(_places(project))))
        place: Any = project
        for key in above:
            place = place[key]
        place[last] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    path = tmp_path_factory.mktemp("odd") / "project.qpproj"
    path.write_bytes(orjson.dumps(project))
    with suppress(ProjectError):
        opened = NativeProject.open(path, read_only=True)
        for image in opened.images():
            assert isinstance(image.uri + image.name + (image.description or ""), str)
            assert len(pixel_size(opened.entry(image.entry_id).builder) or "...") == 3
            with suppress(ProjectError):
                assert len(image.affine) == 6
        opened.find(uri="file:///nowhere.svs")


@pytest.mark.parametrize("text", ["[]", "{", '{"pathClasses": [3]}'])
def test_a_class_list_that_qupath_cannot_open_is_refused(tmp_path: Path, text: str) -> None:
    classes_path(tmp_path).parent.mkdir()
    classes_path(tmp_path).write_text(text)
    with pytest.raises(ProjectError, match=r"classes\.json"):
        read_classes(tmp_path)


def test_class_lists_are_read_as_qupath_reads_them(tmp_path: Path) -> None:
    assert read_classes(tmp_path) == ()
    classes_path(tmp_path).parent.mkdir()
    for text, expected in [
        ("{}", ()),
        ('{"pathClasses": null}', ()),
        ('{"pathClasses": [{"name": "A"}, {"color": 1}, {"name": ""}, {"name": "Unclassified"}]}', (PathClass("A"),)),
        (
            '{"pathClasses": [{"name": "A", "color": -1}, {"name": "A", "color": -16777216}]}',
            (PathClass("A", (0, 0, 0)),),
        ),
        ('{"pathClasses": [{"name": "CK5:6"}, {"name": "A:  B : C:"}]}', (PathClass("CK5: 6"), PathClass("A: B: C"))),
    ]:
        classes_path(tmp_path).write_text(text)
        assert read_classes(tmp_path) == expected


def test_a_class_that_qupath_would_read_under_another_name_is_not_written(tmp_path: Path) -> None:
    for name, says in [
        ("CK5:6", "'CK5: 6'"),
        (" A", "'A'"),
        ("A: : B", "level without a name"),
        ("", "without a name"),
    ]:
        with pytest.raises(ProjectError, match=says):
            write_classes(tmp_path, [PathClass(name)])
    assert not classes_path(tmp_path).exists()


def test_an_empty_class_list_removes_the_file(tmp_path: Path) -> None:
    assert not write_classes(tmp_path, [])
    write_classes(tmp_path, [PathClass("A")])
    assert write_classes(tmp_path, [])
    assert classes_path(tmp_path).parent.is_dir()
    assert not classes_path(tmp_path).exists()


def test_a_project_is_found_by_its_folder_or_its_file(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"no \.qpproj"):
        project_path(tmp_path)
    file = tmp_path / "site-a.qpproj"
    file.write_text("{}")
    assert project_path(tmp_path) == file
    (tmp_path / "site-b.qpproj").write_text("{}")
    with pytest.raises(ProjectError, match="more than one"):
        project_path(tmp_path)
    (tmp_path / "project.qpproj").write_text("{}")
    assert project_path(tmp_path) == tmp_path / "project.qpproj"
    assert project_path(file) == file
    for wrong in (tmp_path / "gone.qpproj", tmp_path / "x.txt"):
        with pytest.raises(ProjectError, match="not a QuPath project"):
            project_path(wrong)


def test_a_new_project_has_the_form_of_a_real_one(tmp_path: Path) -> None:
    file = new_project_file(tmp_path / "project.qpproj")
    assert file.save()
    raw = orjson.loads(file.path.read_bytes())
    assert list(raw) == ["version", "createTimestamp", "modifyTimestamp", "uri", "lastID", "images"]
    assert raw["uri"].startswith("file:/")
    assert not raw["uri"].startswith("file://")
    assert not read_project_file(file.path).save()
