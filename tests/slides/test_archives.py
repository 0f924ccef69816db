"""Slides inside zip archives: read where they lie, as little as is needed, and told where that cannot be."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tests.slides.make import texture, write_slide
from tests.slides.served import Served, serving
from tests.slides.test_reading import ref
from tests.slides.test_sources import remote
from wsi_pipeline.errors import SlideNotFound, SlideUnreadable
from wsi_pipeline.slides import open_slide
from wsi_pipeline.slides.archives import Window, archive_of, stored_at
from wsi_pipeline.tiling import Bounds

PART = Bounds(1000, 1100, 1500, 1500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    data = write_slide(folder / "a.tif", texture(1500, 1500)).read_bytes()
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / f"{name}.zip", "w", method) as archive:
            archive.writestr("readme.txt", "of another kind" * 99)
            archive.writestr("deep/a.tif", data)
    return folder


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    with serving(folder) as server:
        yield server


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("zip://deep/a.tif::s3://b/c.zip", ("deep/a.tif", "s3://b/c.zip")),
        ("zip:///a.tif::/here/c.zip", ("a.tif", "/here/c.zip")),
        ("zip://a.tif::zip://b.zip::/c.zip", ("a.tif", "zip://b.zip::/c.zip")),
        ("zip://a.tif", None),
        ("simplecache::zip://a.tif::/c.zip", None),
        ("s3://b/a.tif", None),
        ("/here/a.tif", None),
    ],
)
def test_a_url_names_member_and_archive(uri: str, expected: tuple[str, str] | None) -> None:
    assert archive_of(uri) == expected


def test_of_a_stored_slide_only_the_tiles_that_are_needed_are_fetched(folder: Path, served: Served) -> None:
    with tifffile.TiffFile(folder / "a.tif") as tiff:
        page = tiff.pages.first
        numbers = [row * 6 + column for row in (4, 5) for column in (3, 4, 5)]
        needed = sum(page.databytecounts[number] for number in numbers)
    with open_slide(remote(f"zip://deep/a.tif::{served.url}/stored.zip")) as slide:
        assert slide.notes == ()
        opening, served.sent = served.sent, 0
        found = slide.read(PART, 1.0)
        assert needed <= served.sent < 1.3 * needed
    assert opening < 4 * 128 * 1024
    with open_slide(ref(folder / "a.tif")) as here:
        np.testing.assert_array_equal(found, here.read(PART, 1.0))


def test_a_busy_store_is_waited_for_with_its_archives(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_pipeline.slides.remote.PAUSES", (0.0, 0.0))
    served.busy = 2
    with open_slide(remote(f"zip://deep/a.tif::{served.url}/stored.zip")) as slide:
        served.busy = 2
        assert slide.read(PART, 1.0).std() > 5


def test_a_compressed_slide_is_read_and_said_to_be_slow(folder: Path) -> None:
    with open_slide(remote(f"zip://deep/a.tif::{folder}/deflated.zip")) as slide:
        assert "it is compressed inside its archive" in slide.notes[0]
        assert "zip -0" in slide.notes[0]
        found = slide.read(PART, 1.0)
    with open_slide(ref(folder / "a.tif")) as here:
        np.testing.assert_array_equal(found, here.read(PART, 1.0))


def test_copies_in_an_archive_have_the_same_fingerprint(folder: Path) -> None:
    with open_slide(ref(folder / "a.tif")) as one, open_slide(remote(f"zip://deep/a.tif::{folder}/stored.zip")) as two:
        assert one.fingerprint() == two.fingerprint()


def test_what_is_missing_or_damaged_is_told(folder: Path, tmp_path: Path) -> None:
    for uri in (f"zip://deep/b.tif::{folder}/stored.zip", f"zip://deep/a.tif::{tmp_path}/none.zip"):
        with pytest.raises(SlideNotFound, match="there is nothing at zip://"):
            open_slide(remote(uri))
    data = (folder / "stored.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[:-3000])
    with pytest.raises(SlideUnreadable, match="not a zip file"):
        open_slide(remote(f"zip://deep/a.tif::{tmp_path}/cut.zip"))
    at = data.index(b"PK\3\4", 10)
    (tmp_path / "torn.zip").write_bytes(data[:at] + bytes(4) + data[at + 4 :])
    with pytest.raises(SlideUnreadable, match="does not begin where the archive says"):
        open_slide(remote(f"zip://deep/a.tif::{tmp_path}/torn.zip"))


@given(
    members=st.lists(
        st.tuples(st.binary(max_size=300), st.binary(max_size=0) | st.just(b"\x99\x99\x02\x00ab")), min_size=1
    ),
    chosen=st.integers(0, 99),
)
def test_a_stored_member_lies_where_it_is_said_to_lie(members: list[tuple[bytes, bytes]], chosen: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, (data, extra) in enumerate(members):
            info = zipfile.ZipInfo(f"ä/{number}")
            info.extra = extra
            archive.writestr(info, data)
    number = chosen % len(members)
    span = stored_at(file, f"ä/{number}")
    assert span is not None
    assert file.getvalue()[span[0] : span[0] + span[1]] == members[number][0]


@given(data=st.binary(min_size=20, max_size=200), draw=st.data())
def test_a_window_reads_as_the_part_itself(data: bytes, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, 10))
    part = data[start : start + draw.draw(st.integers(0, len(data) - start))]
    window, itself = Window(io.BytesIO(data), start, len(part)), io.BytesIO(part)
    for _ in range(draw.draw(st.integers(1, 6))):
        where, count = draw.draw(st.integers(0, 220)), draw.draw(st.integers(0, 50))
        assert window.seek(where) == itself.seek(where)
        assert window.read(count) == itself.read(count)
        assert window.tell() == itself.tell()
    assert window.seek(0, io.SEEK_END) == len(part)
    assert window.seek(-len(part), io.SEEK_CUR) == 0
