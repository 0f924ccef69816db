"""A store that is busy, silent, cut short or gone: what passes is waited for, what does not is named, quickly."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tests.slides.make import texture, write_slide
from tests.slides.served import Served, serving
from tests.slides.test_reading import ref
from tests.slides.test_sources import remote
from wsi_pipeline.errors import SlideUnreadable
from wsi_pipeline.slides import open_slide, tiffs
from wsi_pipeline.slides import remote as remote_module
from wsi_pipeline.slides.remote import HeaderFile, RemoteFile, StoreFailed
from wsi_pipeline.tiling import Bounds

HERE, THERE = Bounds(0, 0, 300, 300), Bounds(600, 600, 900, 900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    write_slide(folder / "a.tif", texture(1500, 1500))
    return folder


@pytest.fixture
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(remote_module, "PAUSES", (0.0, 0.0))
    with serving(folder) as server:
        yield server


def impatient(patch: pytest.MonkeyPatch, pauses: int) -> None:
    """No answer for half a second is none at all; asked again more often than the store is silent."""
    patch.setattr(remote_module, "STALL_S", 0.5)
    patch.setattr(remote_module, "PAUSES", (0.0,) * pauses)


class Ahead:
    """Notes what is fetched ahead, so that a test can wait for all of it."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._under_way: list[Future[Any]] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future = self._pool.submit(function, *arguments)
        self._under_way.append(future)
        return future

    def ended(self) -> int:
        """Wait until nothing is under way; how many rectangles were asked for so far."""
        assert not wait(self._under_way, timeout=60).not_done
        return len(self._under_way)


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    noted = Ahead(tiffs._fetchers)
    monkeypatch.setattr(tiffs, "_fetchers", noted)
    return noted


def until(done: object, seconds: float = 20.0) -> None:
    """Wait until `done()` is true."""
    end = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("fault", ["busy", "silent", "short", "broken"])
def test_what_passes_is_waited_for(
    folder: Path, served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    if fault == "silent":
        impatient(monkeypatch, 8)
    served.broken = fault == "broken"
    name = "short" if served.broken else fault
    with open_slide(ref(folder / "a.tif")) as here:
        # While it is opened, and while it is read.
        setattr(served, name, 2)
        with open_slide(remote(f"{served.url}/a.tif")) as there:
            assert "asking again" in caplog.text
            caplog.clear()
            setattr(served, name, 2)
            np.testing.assert_array_equal(there.read(THERE, 1.0), here.read(THERE, 1.0))
            assert "asking again" in caplog.text


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("busy", "503"),
        ("silent", "no answer within "),
        ("short", r"it sent \d+ bytes where \d+ were asked for"),
    ],
)
def test_what_does_not_pass_is_named_and_over_when_the_store_is_back(
    served: Served, monkeypatch: pytest.MonkeyPatch, fault: str, cause: str
) -> None:
    monkeypatch.setattr(remote_module, "GIVEN_UP_S", 0.2)
    told = rf"the store fails: .*{cause}.*; look at the store and the network, then run again"
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        setattr(served, fault, 1000)
        patience = remote_module.STALL_S
        if fault == "silent":
            impatient(monkeypatch, 1)
        with pytest.raises(SlideUnreadable, match=rf"r: cannot be read at level 0.*{told}"):
            slide.read(THERE, 1.0)
        with pytest.raises(SlideUnreadable, match=f"r: {told}"):
            open_slide(remote(f"{served.url}/a.tif"))
        setattr(served, fault, 0)
        monkeypatch.setattr(remote_module, "STALL_S", patience)
        time.sleep(0.2)
        assert slide.read(THERE, 1.0).shape == (300, 300, 3)


def test_a_store_that_is_gone_is_not_waited_for_again_and_again(served: Served) -> None:
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        served.busy = 1000
        with pytest.raises(SlideUnreadable, match="503"):
            slide.read(HERE, 1.0)
        asked = 1000 - served.busy
        for _ in range(20):
            with pytest.raises(SlideUnreadable, match="503"):
                slide.read(THERE, 1.0)
        assert 1000 - served.busy == asked


def test_a_server_that_knows_no_ranges_is_told(served: Served) -> None:
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        served.deaf = True
        with pytest.raises(SlideUnreadable, match=r"it sent \d+ bytes where \d+ were asked for"):
            slide.read(HERE, 1.0)


def test_an_object_that_became_shorter_is_no_picture_of_anything(
    folder: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (folder / "a.tif").read_bytes()
    (folder / "b.tif").write_bytes(whole)
    with tifffile.TiffFile(folder / "b.tif") as tiff:
        end = tiff.pages.first.dataoffsets[14]
    with open_slide(remote(f"{served.url}/b.tif")) as slide:
        (folder / "b.tif").write_bytes(whole[:end])
        assert slide.read(Bounds(0, 0, 256, 256), 1.0).shape == (256, 256, 3)
        with pytest.raises(SlideUnreadable, match="the store fails"):
            slide.read(Bounds(600, 600, 900, 900), 1.0)
    with pytest.raises(SlideUnreadable, match="is cut off"):
        open_slide(remote(f"{served.url}/b.tif"))


# ---- ahead of the model


def test_what_was_fetched_ahead_is_not_fetched_again(folder: Path, served: Served, ahead: Ahead) -> None:
    with open_slide(ref(folder / "a.tif")) as here, open_slide(remote(f"{served.url}/a.tif")) as there:
        for downsample in (1.0, 2.37):
            bounds = Bounds(*(int(v / downsample) for v in (100, 100, 900, 900)))
            before = served.sent
            there.prefetch(bounds, downsample)
            assert ahead.ended()
            sent = served.sent
            assert sent > before
            np.testing.assert_array_equal(there.read(bounds, downsample), here.read(bounds, downsample))
            assert served.sent == sent


def test_it_is_asked_for_at_once_and_by_one_only(served: Served, ahead: Ahead, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        impatient(monkeypatch, 8)
        served.silent, before = 1, served.sent
        slide.prefetch(HERE, 1.0)
        # It did not wait for the answer that does not come.
        assert served.sent == before
        until(lambda: served.silent == 0)
        # Reading waits for what is under way, which is asked for again when no answer came.
        slide.read(HERE, 1.0)
        assert ahead.ended() == 1
        once = served.sent
        assert once > before
        slide.prefetch(HERE, 1.0)
        slide.prefetch(Bounds(-500, -500, 0, 0), 1.0)
        slide.prefetch(Bounds(5000, 0, 6000, 100), 1.0)
        assert ahead.ended() == 1
        assert served.sent == once


def test_a_store_that_fails_ahead_fails_no_one_yet(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "GIVEN_UP_S", 0.0)
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        served.busy = 3
        slide.prefetch(THERE, 1.0)
        until(lambda: served.busy == 0)
        assert slide.read(THERE, 1.0).shape == (300, 300, 3)


def test_a_rectangle_that_is_too_large_is_not_fetched_ahead(
    served: Served, ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_pipeline.slides.tiffs.MOST_AHEAD", 1000)
    with open_slide(remote(f"{served.url}/a.tif")) as slide:
        slide.prefetch(HERE, 1.0)
        assert ahead.ended() == 0


# ---- headers


@given(st.data())
def test_a_header_reads_as_the_file_itself(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 700))
    whole = np.random.default_rng(size).bytes(size)
    fsspec.filesystem("memory").pipe("/remote-test/header", whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_module, "BLOCK", 64)
        patch.setattr(remote_module, "BLOCKS", 3)
        file, same = HeaderFile(RemoteFile("memory://remote-test/header")), io.BytesIO(whole)
        for _ in range(data.draw(st.integers(1, 8))):
            if data.draw(st.booleans()):
                place = data.draw(st.integers(0, size + 10))
                assert file.seek(place) == same.seek(place)
            else:
                back = data.draw(st.integers(0, size))
                assert file.seek(-back, io.SEEK_END) == same.seek(-back, io.SEEK_END)
            count = data.draw(st.integers(0, 300))
            assert file.read(count) == same.read(count)
            assert file.tell() == same.tell()


def test_blocks_beside_each_other_come_in_one_request_and_once(folder: Path, served: Served) -> None:
    (folder / "long").write_bytes(bytes(range(256)) * 2048)
    file = HeaderFile(RemoteFile(f"{served.url}/long"))
    assert file.readable()
    assert file.seekable()
    threads = [threading.Thread(target=file._bytes, args=(10, 200_000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served.ranges == [(0, 4 * remote_module.BLOCK)]
    assert file.read(3) == b"\0\1\2"
    assert len(served.ranges) == 1


def test_what_is_not_there_is_not_waited_for(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FileNotFoundError):
        RemoteFile(f"{served.url}/none")
    assert "asking again" not in caplog.text


def test_a_header_is_kept_for_the_next_opening_while_the_store_says_that_it_is_the_same(
    folder: Path, served: Served
) -> None:
    (folder / "c.tif").write_bytes((folder / "a.tif").read_bytes())
    for etag, again in (('"1"', True), ('"1"', False), ('"2"', True), (None, True), (None, True)):
        served.etag = etag
        served.ranges.clear()
        with open_slide(remote(f"{served.url}/c.tif")) as slide:
            assert slide.size == (1500, 1500)
        assert bool(served.ranges) == again


def test_a_host_that_does_not_answer_the_door_is_a_store_that_fails(served: Served) -> None:
    with socket.socket() as door:
        # Taken, so that nobody else listens there, and nobody does.
        door.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{door.getsockname()[1]}"
        with pytest.raises(
            SlideUnreadable, match=rf"the store fails: Cannot connect to host {place} .*; look at the s"
        ):
            open_slide(remote(f"http://{place}/a.tif"))


def test_a_refusal_is_not_asked_for_again(folder: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RemoteFile(f"{served.url}/a.tif")
    before = len(served.ranges)
    with pytest.raises(StoreFailed, match="416"):
        file.ranges([(file.size + 5, file.size + 10)])
    assert len(served.ranges) == before + 1
