"""Another file in a slide's place: noticed, wherever it lies, and not where nothing but a date changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slides.make import texture, write_slide
from tests.slides.served import Served, serving
from tests.slides.test_reading import ref
from tests.slides.test_sources import remote
from wsi_pipeline.errors import SlideUnreadable
from wsi_pipeline.slides import open_slide
from wsi_pipeline.slides import remote as remote_module
from wsi_pipeline.tiling import Bounds

CHANGED = "became another file while it was worked on; wait until it has been copied, then run again"
PART = Bounds(0, 0, 300, 300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.tif, and b.tif of other pixels and the same length."""
    paths = [write_slide(tmp_path / name, texture(600, 600, seed)) for seed, name in enumerate(("a.tif", "b.tif"))]
    length = max(path.stat().st_size for path in paths)
    for path in paths:
        with path.open("ab") as file:
            file.write(bytes(length - path.stat().st_size))
    return tmp_path


@pytest.mark.parametrize("how", ["renamed over it", "written into it", "deleted", "cut short"])
def test_another_file_is_noticed(folder: Path, how: str) -> None:
    path = folder / "a.tif"
    with open_slide(ref(path)) as slide:
        first = slide.fingerprint()
        slide.check_unchanged()
        if how == "renamed over it":
            (folder / "b.tif").replace(path)
        elif how == "written into it":
            path.write_bytes((folder / "b.tif").read_bytes())
        elif how == "deleted":
            path.unlink()
        else:
            os.truncate(path, 5000)
        with pytest.raises(SlideUnreadable, match=CHANGED):
            slide.check_unchanged()
        assert slide.fingerprint() == first


def test_a_new_date_alone_is_no_change(folder: Path) -> None:
    path = folder / "a.tif"
    with open_slide(ref(path)) as slide:
        slide.fingerprint()
        os.utime(path, (1, 1))
        slide.check_unchanged()
        # As a copy that is made over it.
        path.write_bytes(path.read_bytes())
        slide.check_unchanged()


def test_a_slide_of_another_content_is_not_opened_as_the_one_it_was(folder: Path) -> None:
    with open_slide(ref(folder / "a.tif")) as slide:
        content = slide.fingerprint()
    shutil.copy(folder / "a.tif", folder / "c.tif")
    open_slide(ref(folder / "c.tif"), content=content).close()
    with pytest.raises(SlideUnreadable, match=CHANGED):
        open_slide(ref(folder / "b.tif"), content=content)


@pytest.fixture
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(remote_module, "PAUSES", (0.0,))
    with serving(folder) as server:
        yield server


def test_another_object_is_noticed(folder: Path, served: Served) -> None:
    served.etag = '"one"'
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        slide.fingerprint()
        slide.check_unchanged()
        served.etag = '"two"'
        slide.check_unchanged()
        (folder / "b.tif").replace(folder / "a.tif")
        # A store has a new version for a new content; what is known of a version is not fetched again.
        served.etag = '"three"'
        with pytest.raises(SlideUnreadable, match=CHANGED):
            slide.check_unchanged()


def test_of_a_store_that_is_busy_nothing_is_said(served: Served) -> None:
    served.etag = '"one"'
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        slide.fingerprint()
        served.etag, served.busy = '"two"', 10**6
        slide.check_unchanged()
        served.busy = 0


def test_a_store_that_fails_while_copies_are_looked_for_is_named(served: Served) -> None:
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        served.busy = 10**6
        with pytest.raises(SlideUnreadable, match="cannot be read: the store fails: 503"):
            slide.fingerprint()
        served.busy = 0


@pytest.mark.testdata
def test_what_openslide_opens_is_looked_at_too(folder: Path, testdata: Path) -> None:
    path = folder / "a.dcm"
    shutil.copy(testdata / "slides" / "camelyon_overview_jpeg.dcm", path)
    with open_slide(ref(path, mpp=1.0)) as slide:
        slide.fingerprint()
        slide.read(PART, 1.0)
        os.utime(path, (1, 1))
        slide.check_unchanged()
        path.unlink()
        with pytest.raises(SlideUnreadable, match=CHANGED):
            slide.check_unchanged()
