"""Slides that lie elsewhere: the same pixels, few bytes, and patience with a busy store."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tests.bucket import s3_bucket
from tests.slides.make import texture, write_slide
from tests.slides.served import Served, serving
from tests.slides.test_reading import ref
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import parse_config
from wsi_pipeline.errors import SlideNotFound, SlideUnreadable
from wsi_pipeline.slides import open_slide
from wsi_pipeline.slides.listing import list_cohort
from wsi_pipeline.slides.sources import ByteSource, coalesced
from wsi_pipeline.tiling import Bounds

BOUNDS = Bounds(10, 20, 1400, 1250)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    write_slide(folder / "a.tif", texture(1500, 1500))
    return folder


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    with serving(folder) as server:
        yield server


def remote(uri: str) -> SlideRef:
    return SlideRef("r", uri, "a.tif")


def test_a_slide_has_the_same_pixels_wherever_it_lies(folder: Path, served: Served) -> None:
    data = (folder / "a.tif").read_bytes()
    fsspec.filesystem("memory").pipe("/sources-test/a.tif", data)
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / f"{name}.zip", "w", method) as archive:
            archive.writestr("deep/a.tif", data)
    uris = [
        f"{served.url}/a.tif",
        "memory://sources-test/a.tif",
        f"zip://deep/a.tif::{folder}/stored.zip",
        f"zip://deep/a.tif::{folder}/deflated.zip",
        f"simplecache::{served.url}/a.tif",
    ]
    with open_slide(ref(folder / "a.tif")) as here:
        for uri in uris:
            with open_slide(remote(uri)) as there:
                assert there.levels == here.levels
                for downsample in (1.0, 2.37, 4.0):
                    bounds = Bounds(*(int(v / downsample) for v in BOUNDS))
                    np.testing.assert_array_equal(there.read(bounds, downsample), here.read(bounds, downsample))


def test_only_the_tiles_that_are_needed_are_fetched(folder: Path, served: Served) -> None:
    with tifffile.TiffFile(folder / "a.tif") as tiff:
        tile_bytes = sum(tiff.pages.first.databytecounts[:4])
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        for_opening, served.sent = served.sent, 0
        slide.read(Bounds(0, 0, 1024, 256), 1.0)
        assert tile_bytes <= served.sent < 1.1 * tile_bytes
        served.sent = 0
        slide.read(Bounds(0, 0, 1000, 200), 1.0)
        assert served.sent == 0, "they are still there"
    assert for_opening < 4 * 128 * 1024


def test_tiles_that_lie_beside_each_other_come_in_one_request(served: Served) -> None:
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        served.ranges.clear()
        slide.read(Bounds(0, 0, 1500, 1500), 1.0)
    assert len(served.ranges) <= 2


def test_several_threads_read_one_remote_slide(folder: Path, served: Served) -> None:
    boxes = [Bounds(x, y, x + 300, y + 300) for x in range(0, 1200, 300) for y in range(0, 1200, 300)]
    with open_slide(ref(folder / "a.tif")) as here, open_slide(remote(f"{served.url}/a.tif")) as there:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda box: there.read(box, 1.0), boxes))
        for box, image in zip(boxes, found, strict=True):
            np.testing.assert_array_equal(image, here.read(box, 1.0))


@pytest.fixture
def bucket() -> Iterator[str]:
    with s3_bucket("slides") as (url, _):
        yield url


@pytest.mark.slow
def test_a_cohort_on_s3_is_found_and_read(folder: Path, bucket: str) -> None:
    store = fsspec.filesystem("s3")
    for name in ("a.tif", "deep/b.tif", "notes.txt"):
        store.pipe(f"{bucket}/{name}", (folder / "a.tif").read_bytes())
    raw = {"output": "o", "cohort": {"slides": [f"{bucket}/**", f"{bucket}/none.svs"]}, "model": {"path": "m"}}
    first, second, missing = list_cohort(parse_config(raw, base=folder))
    assert (first.uri, first.width, first.problems) == ("s3://slides/a.tif", 1500, ())
    assert (second.uri, second.notes) == (
        "s3://slides/deep/b.tif",
        (f"it looks like a copy of {first.slide_id}: list each slide once",),
    )
    assert "there is nothing at s3://slides/none.svs" in missing.problems[0]
    with open_slide(ref(folder / "a.tif")) as here, open_slide(remote(first.uri)) as there:
        np.testing.assert_array_equal(there.read(BOUNDS, 1.0), here.read(BOUNDS, 1.0))


def test_a_remote_slide_that_is_not_there_is_not_found(served: Served) -> None:
    for uri in (f"{served.url}/none.tif", "memory://sources-test/none.tif", "zip://x.tif::/none.zip"):
        with pytest.raises(SlideNotFound, match="r: there is nothing at"):
            open_slide(remote(uri))


def test_a_remote_text_is_no_slide(folder: Path, served: Served) -> None:
    (folder / "text.svs").write_text("no slide\n" * 50)
    with pytest.raises(SlideUnreadable, match="is no slide that can be opened"):
        open_slide(remote(f"{served.url}/text.svs"))


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 60)), min_size=1, max_size=20), st.integers(0, 40))
def test_joined_ranges_hold_every_span_and_do_not_touch(spans: list[tuple[int, int]], gap: int) -> None:
    joined = coalesced(spans, gap)
    for offset, count in spans:
        assert any(start <= offset and offset + count <= end for start, end in joined)
    for (_, end), (start, _) in pairwise(joined):
        assert start > end + gap


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 99)), max_size=12))
def test_ranges_are_the_bytes_that_were_asked_for(spans: list[tuple[int, int]]) -> None:
    data = np.random.default_rng(0).bytes(1000)
    fsspec.filesystem("memory").pipe("/sources-test/bytes", data)
    source = ByteSource("memory://sources-test/bytes")
    assert source.ranges(spans) == [data[offset : offset + count] for offset, count in spans]


def test_a_fingerprint_is_that_of_the_bytes_not_of_the_place(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(data[:150_000] + b"x" + data[150_001:])
    fsspec.filesystem("memory").pipe("/sources-test/copy", data)
    first, second, copy = (
        ByteSource(uri).fingerprint()
        for uri in (str(tmp_path / "a"), str(tmp_path / "b"), "memory://sources-test/copy")
    )
    assert first == copy
    assert first != second


@pytest.mark.parametrize("etag", [None, '"1"'])
def test_the_samples_of_a_version_are_fetched_once_and_those_of_another_anew(
    folder: Path, served: Served, etag: str | None
) -> None:
    url = f"{served.url}/a.tif"
    here = ByteSource(str(folder / "a.tif"))
    served.etag = etag
    found, sent = [], []
    for _ in range(3):
        source, before = ByteSource(url), served.sent
        found.append(source.fingerprint())
        sent.append(served.sent - before)
        source.close()
    assert found == 3 * [here.fingerprint()]
    here.close()
    # Without a version nobody knows whether it is the same.
    assert [count > 0 for count in sent] == ([True, False, False] if etag else 3 * [True])
    served.etag = '"2"'
    source, before = ByteSource(url), served.sent
    assert source.fingerprint() == found[0]
    source.close()
    assert served.sent > before
