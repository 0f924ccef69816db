"""Maps on an object store: the same bytes as here, resumed after a kill, one run at a time, forgotten on request."""

from __future__ import annotations

import re
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import orjson
import pytest

import wsi_pipeline
from benchmarks.object_store import Line
from tests.bucket import objects, s3_bucket, wait_for_objects
from tests.stages.made import files_of, record_of, run_of, small_slide, start, states_of, write_config
from wsi_pipeline.cli.app import run
from wsi_pipeline.config import parse_config
from wsi_pipeline.errors import ConfigError, RunLocked, StoreError
from wsi_pipeline.stages import lease
from wsi_pipeline.stages.lease import NAME, leased


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, Line]]:
    with s3_bucket("maps") as found:
        yield found


@pytest.fixture
def memory() -> str:
    return f"memory://{uuid.uuid4().hex}/run"


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_slide(tmp_path_factory.mktemp("slide") / "slide.tif", width=1100, height=1000)


@pytest.fixture(scope="module")
def here(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of a run whose maps lie in its folder."""
    config = write_config(tmp_path_factory.mktemp("here"), [slide])
    assert run(["predict", str(config)]) == 0
    return files_of(run_of(config))


def same(config: Path, maps: str, here: dict[str, bytes]) -> None:
    """The run and its maps are what they are without an object store."""
    prefix = "/prediction.zarr/"
    there = {f"slides/{name}": data for name, data in objects(maps).items()}
    assert there == {name: data for name, data in here.items() if prefix in name}
    others = {name: data for name, data in files_of(run_of(config)).items() if name != "run.json"}
    assert others == {name: data for name, data in here.items() if prefix not in name and name != "run.json"}


def test_maps_in_memory_are_those_of_a_folder(slide: Path, here: dict[str, bytes], tmp_path: Path, memory: str) -> None:
    config = write_config(tmp_path, [slide], inference={"maps": memory})
    assert run(["predict", str(config)]) == 0
    same(config, memory, here)
    assert run(["predict", str(config)]) == 0
    same(config, memory, here)
    (slide_id,) = record_of(config)["slides"]
    maps = wsi_pipeline.open_prediction(run_of(config).root, slide_id)
    assert int((np.asarray(maps.probability.compute()) >= 128).sum()) > 0
    assert (maps.blocks > 0).all()


def test_maps_of_another_model_are_made_anew(slide: Path, here: dict[str, bytes], tmp_path: Path, memory: str) -> None:
    other = "baseline:stain-density?mpp=2"
    config = write_config(tmp_path, [slide], model=other, inference={"maps": memory})
    assert run(["predict", str(config)]) == 0
    before = objects(memory)
    write_config(tmp_path, [slide], inference={"maps": memory})
    assert run(["predict", str(config)]) == 0
    assert objects(memory) != before
    same(config, memory, here)


def test_a_slide_that_is_forgotten_has_no_maps_left(slide: Path, tmp_path: Path, memory: str) -> None:
    config = write_config(tmp_path, [slide], inference={"maps": memory})
    assert run(["predict", str(config)]) == 0
    (slide_id,) = record_of(config)["slides"]
    assert run(["privacy", "forget", str(config), "--slide", slide_id, "--dry-run"]) == 0
    assert objects(memory)
    run(["privacy", "forget", str(config), "--slide", slide_id])
    assert objects(memory) == {}


def test_an_output_that_is_a_url_is_refused_and_told_what_can_lie_elsewhere(tmp_path: Path) -> None:
    raw = {"output": "s3://bucket/run", "cohort": {"slides": []}, "model": {"path": "m"}}
    with pytest.raises(ConfigError, match=r"output: s3://bucket/run is no folder .*`inference.maps`"):
        parse_config(raw, base=tmp_path)
    for place in ("/a/folder", "file:///a/folder", "s3://"):
        with pytest.raises(ConfigError, match=r"inference.maps: .* on a disk maps lie in `output`"):
            parse_config({**raw, "output": "o", "inference": {"maps": place}}, base=tmp_path)


# ---- one run at a time


def test_another_run_is_refused_while_one_writes(memory: str, tmp_path: Path) -> None:
    with leased(memory, tmp_path / "a"):
        with (
            pytest.raises(RunLocked, match=r"is being written by process \d+ on .*; wait for it .*`inference.maps`"),
            leased(memory, tmp_path / "b"),
        ):
            pass
        # The lock of its own output says that whoever wrote this is gone.
        with leased(memory, tmp_path / "a"):
            pass
    with leased(memory, tmp_path / "b"):
        assert NAME in objects(memory)
        assert str(tmp_path).encode() not in objects(memory)[NAME]
    assert objects(memory) == {}


def test_a_lease_expires_and_one_that_is_held_does_not(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    with leased(memory, tmp_path / "a"):
        first = orjson.loads(objects(memory)[NAME])
        end = time.monotonic() + 60
        # Until it was said anew several times.
        while (left := orjson.loads(objects(memory)[NAME]))["until"] < first["until"] + 0.2:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert {**left, "until": 0} == {**first, "until": 0}
    for until, held in ((time.time() + 60, True), (time.time() - 1, False)):
        put(memory, orjson.dumps({**left, "until": until}))
        if held:
            with pytest.raises(RunLocked), leased(memory, tmp_path / "b"):
                pass
        else:
            with leased(memory, tmp_path / "b"):
                assert orjson.loads(objects(memory)[NAME])["place"] != left["place"]


def put(memory: str, data: bytes) -> None:
    """A lease that another run left."""
    fsspec.filesystem("memory").pipe(f"{memory.removeprefix('memory:/')}/{NAME}", data)


def test_a_run_that_stood_still_leaves_the_lease_to_who_took_it(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with leased(memory, tmp_path / "b"):
        of_b = objects(memory)[NAME]
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    with leased(memory, tmp_path / "a"):
        put(memory, of_b)
        end = time.monotonic() + 60
        while "took the lease while this run stood still" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert objects(memory)[NAME] == of_b
    assert objects(memory)[NAME] == of_b


def test_a_lease_that_says_nothing_holds_nobody(memory: str, tmp_path: Path) -> None:
    for data in (b"{", b"[]", b"{}"):
        put(memory, data)
        with leased(memory, tmp_path / "a"):
            pass


def test_a_run_is_refused_on_maps_that_another_writes(
    slide: Path, tmp_path: Path, memory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, [slide], inference={"maps": memory})
    with leased(memory, tmp_path / "elsewhere"):
        assert run(["predict", str(config)]) == 1
    assert "is being written by process" in capsys.readouterr().err
    assert not run_of(config).run_json.exists()


# ---- S3


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_on_s3_with_the_same_bytes(
    slide: Path, here: dict[str, bytes], tmp_path: Path, bucket: tuple[str, Line]
) -> None:
    maps = f"{bucket[0]}/killed"
    config = write_config(tmp_path, [slide], inference={"maps": maps})
    process = start("predict", config)
    wait_for_objects(maps, 8)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert NAME in objects(maps)
    process = start("predict", config)
    _, told = process.communicate()
    assert process.returncode == 0, told
    same(config, maps, here)


@pytest.mark.slow
def test_worker_processes_write_to_s3(
    slide: Path, here: dict[str, bytes], tmp_path: Path, bucket: tuple[str, Line]
) -> None:
    maps = f"{bucket[0]}/workers"
    config = write_config(tmp_path, [slide], inference={"maps": maps, "workers": 2})
    process = start("predict", config)
    _, told = process.communicate()
    assert process.returncode == 0, told
    same(config, maps, here)


@pytest.mark.slow
def test_s3_itself_lets_one_run_in_only(tmp_path: Path, bucket: tuple[str, Line]) -> None:
    maps = f"{bucket[0]}/leased"
    told = "is being written by process"
    with leased(maps, tmp_path / "a"), pytest.raises(RunLocked, match=told), leased(maps, tmp_path / "b"):
        pass
    with leased(maps, tmp_path / "b"):
        pass
    told = r"cannot write s3://no-such-bucket/x: .*; give another `inference.maps`"
    with pytest.raises(StoreError, match=told), leased("s3://no-such-bucket/x", tmp_path / "a"):
        pass


@pytest.mark.slow
def test_a_store_that_fails_in_the_middle_is_named_and_the_rest_done_later(
    slide: Path, here: dict[str, bytes], tmp_path: Path, bucket: tuple[str, Line]
) -> None:
    url, line = bucket
    maps = f"{url}/failing"
    config = write_config(tmp_path, [slide], inference={"maps": maps})
    process = start("predict", config)
    wait_for_objects(maps, 9)
    line.refusing = True
    try:
        _, told = process.communicate(timeout=240)
    finally:
        line.refusing = False
    assert process.returncode == 2, told
    assert states_of(config) == {"slide.tif": "failed"}
    (record,) = record_of(config)["slides"].values()
    cause = "cannot be (written|read): Service Unavailable; look at the store and your access to it, then run again"
    assert re.fullmatch(rf"{maps}/slide-\w+/prediction.zarr {cause}", record["reason"])
    assert "Traceback" not in told
    process = start("predict", config)
    _, told = process.communicate()
    assert process.returncode == 0, told
    same(config, maps, here)
