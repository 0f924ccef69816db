"""The store: same content, same bytes; whole or not there; and it knows what it is of."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.inference.make import maps_of, tree
from wsi_pipeline.errors import StoreError
from wsi_pipeline.inference import BlockState, MapInfo, PredictionStore
from wsi_pipeline.tiling import Bounds

INFO = MapInfo(
    slide_id="a",
    size=(1000, 777),
    mpp=0.25,
    downsample=2.0,
    classes=(("Tumor", (200, 0, 0)), ("Stroma", (0, 200, 0))),
    model_id="m@0123456789ab",
    temperature=1.25,
    block=256,
    tissue="00ff",
)


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fill(store: PredictionStore, maps: NDArray[np.uint8], order: list[tuple[int, int]]) -> None:
    for row, column in order:
        b = store.grid.bounds(row, column)
        part = maps[:, b.y : b.bottom, b.x : b.right]
        store.write_block(row, column, part, part[0])


def test_what_is_written_is_read_by_any_zarr_reader(tmp_path: Path) -> None:
    store = PredictionStore.create(tmp_path / "p.zarr", INFO)
    assert store.shape == (2, 389, 500)
    maps = noise(store.shape)
    fill(store, maps, list(store.grid))
    group = zarr.open_group(tmp_path / "p.zarr", mode="r")
    np.testing.assert_array_equal(np.asarray(group["probability"]), maps)
    np.testing.assert_array_equal(np.asarray(group["uncertainty"]), maps[0])
    found, uncertain = maps_of(PredictionStore.open(tmp_path / "p.zarr"))
    np.testing.assert_array_equal(found, maps)
    np.testing.assert_array_equal(uncertain, maps[0])


def test_a_store_says_what_it_is_of_and_no_time(tmp_path: Path) -> None:
    PredictionStore.create(tmp_path / "p.zarr", INFO)
    assert PredictionStore.open(tmp_path / "p.zarr").info == INFO
    attributes = json.loads((tmp_path / "p.zarr" / "zarr.json").read_text())["attributes"]["wsi_pipeline"]
    assert set(attributes) == {
        "schema", "slide_id", "size", "mpp", "downsample", "classes", "model_id", "temperature", "block", "tissue",
    }  # fmt: skip


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations([(r, c) for r in range(2) for c in range(2)]), seed=st.integers(0, 3))
def test_the_same_content_gives_the_same_bytes_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, int]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("stores")
    maps = noise((2, 389, 500), seed)
    maps[:, :200, :300] = 0
    trees = []
    for name, blocks in (("one", sorted(order)), ("other", order)):
        store = PredictionStore.create(folder / name, INFO)
        fill(store, maps, blocks)
        trees.append(tree(folder / name))
    assert trees[0] == trees[1]


def test_a_block_that_is_all_zero_takes_no_file_and_reads_as_zeros(tmp_path: Path) -> None:
    store = PredictionStore.create(tmp_path / "p.zarr", INFO)
    fill(store, np.zeros(store.shape, np.uint8), list(store.grid))
    assert not [name for name in tree(tmp_path / "p.zarr") if not name.endswith("zarr.json")]
    found, uncertain = maps_of(store)
    assert not found.any()
    assert not uncertain.any()


def test_a_block_that_is_written_again_replaces_the_old_one(tmp_path: Path) -> None:
    store = PredictionStore.create(tmp_path / "p.zarr", INFO)
    for maps in (noise(store.shape), np.zeros(store.shape, np.uint8)):
        fill(store, maps, list(store.grid))
        np.testing.assert_array_equal(maps_of(store)[0], maps)


@pytest.mark.parametrize("bounds", [Bounds(-5, -7, 20, 30), Bounds(480, 370, 520, 400), Bounds(600, 10, 620, 20)])
def test_beyond_the_map_everything_is_zero(tmp_path: Path, bounds: Bounds) -> None:
    store = PredictionStore.create(tmp_path / "p.zarr", INFO)
    maps = noise(store.shape)
    fill(store, maps, list(store.grid))
    around = np.pad(maps[1], 200)
    expected = around[bounds.y + 200 : bounds.bottom + 200, bounds.x + 200 : bounds.right + 200]
    np.testing.assert_array_equal(store.read(1, bounds), expected)


def test_the_states_of_blocks_are_kept(tmp_path: Path) -> None:
    store = PredictionStore.create(tmp_path / "p.zarr", INFO)
    assert (store.blocks == BlockState.TODO).all()
    states = np.array([[1, 2], [3, 0]], np.uint8)
    store.set_blocks(states)
    np.testing.assert_array_equal(PredictionStore.open(tmp_path / "p.zarr").blocks, states)


def test_a_store_goes_on_where_it_was_and_loses_what_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "p.zarr"
    store = PredictionStore.open_or_create(path, INFO)
    maps = noise(store.shape)
    fill(store, maps, [(0, 0)])
    before = tree(path)
    (path / "probability/c/0/0/1.0123.partial").write_bytes(b"half")
    again = PredictionStore.open_or_create(path, replace(INFO, block=512))
    assert again.block == 256
    assert tree(path) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size": (1000, 778)}, "size"),
        ({"downsample": 2.5}, "downsample"),
        ({"model_id": "other@1"}, "model_id m@0123456789ab|model_id other@1"),
        ({"classes": (("Tumor", (200, 0, 0)),)}, "classes"),
        ({"tissue": "ff00"}, "tissue"),
        ({"temperature": 1.0}, "temperature"),
    ],
)
def test_a_store_of_something_else_is_refused_by_name(tmp_path: Path, change: dict[str, object], told: str) -> None:
    PredictionStore.create(tmp_path / "p.zarr", INFO)
    with pytest.raises(StoreError, match=f"p.zarr holds another prediction .*({told})"):
        PredictionStore.open_or_create(tmp_path / "p.zarr", replace(INFO, **change))  # type: ignore[arg-type]


def test_a_store_whose_making_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "p.zarr"
    PredictionStore.create(path, INFO)
    whole = tree(path)
    (path / "uncertainty/zarr.json").unlink()
    group = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps({**group, "attributes": {}}))
    with pytest.raises(StoreError, match="not a finished prediction store"):
        PredictionStore.open(path)
    PredictionStore.open_or_create(path, INFO)
    assert tree(path) == whole


def test_a_store_that_is_not_there_damaged_or_newer_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no prediction at .*none\.zarr; run"):
        PredictionStore.open(tmp_path / "none.zarr")
    path = tmp_path / "p.zarr"
    PredictionStore.create(path, INFO)
    group = json.loads((path / "zarr.json").read_text())
    group["attributes"]["wsi_pipeline"]["schema"] = 99
    (path / "zarr.json").write_text(json.dumps(group))
    with pytest.raises(StoreError, match="schema 99; this program reads up to 1: update"):
        PredictionStore.open(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"p\.zarr cannot be read"):
        PredictionStore.open(path)


def test_a_damaged_shard_is_told_and_not_taken_for_zeros(tmp_path: Path) -> None:
    store = PredictionStore.create(tmp_path / "p.zarr", INFO)
    fill(store, noise(store.shape), list(store.grid))
    shard = tmp_path / "p.zarr/probability/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"p\.zarr cannot be read"):
        store.read(0, store.grid.bounds(0, 0))
    store.read(0, store.grid.bounds(1, 1))


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"file/p\.zarr cannot be"):
        PredictionStore.open_or_create(tmp_path / "file" / "p.zarr", INFO)


def test_an_object_store_holds_predictions_too() -> None:
    url = f"memory://{uuid.uuid4().hex}/p.zarr"
    store = PredictionStore.open_or_create(url, INFO)
    maps = noise(store.shape)
    fill(store, maps, list(store.grid))
    store.set_blocks(np.ones(store.grid.shape, np.uint8))
    again = PredictionStore.open_or_create(url, INFO)
    np.testing.assert_array_equal(maps_of(again)[0], maps)
    assert (again.blocks == BlockState.DONE).all()


@given(st.integers(1, 5000))
def test_a_block_of_any_size_is_cut_into_equal_chunks(block: int) -> None:
    from wsi_pipeline.inference.store import CHUNK, _chunk

    assert block % _chunk(block) == 0
    assert _chunk(block) <= CHUNK
