"""Review tiles: the right places first, in plain words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.regions.fakes import ArrayMap, array_map
from wsi_pipeline.config import Review
from wsi_pipeline.errors import StoreError
from wsi_pipeline.objects import META_RUN, Kind
from wsi_pipeline.regions import ReviewTile, read_tiles, review_tiles, tile_objects, write_tiles
from wsi_pipeline.regions.tiles import STEP, _Rows
from wsi_pipeline.regions.unlike import Unlike
from wsi_pipeline.slides import TissueMask
from wsi_pipeline.states import REVIEW_CLASS
from wsi_pipeline.tiling import Bounds

SETTINGS = Review(tile_um=64, max_tiles=2, audit_tiles=1)


def scene() -> tuple[ArrayMap, TissueMask]:
    """400 x 300 level-0 px at downsample 2: tissue in the left half, doubt in its lower part."""
    probability = np.zeros((150, 200), np.uint8)
    entropy = np.zeros_like(probability)
    probability[:64, :100] = 250
    probability[64:, :100] = 140
    entropy[64:, :100] = 230
    tissue = np.zeros((30, 40), bool)
    tissue[:, :20] = True
    return array_map(probability, block=64, downsample=2.0, entropy=entropy), TissueMask(tissue, 10.0)


def tiles_of(settings: Review = SETTINGS) -> list[ReviewTile]:
    source, tissue = scene()
    return review_tiles(source, tissue, ["Tumor"], settings, threshold=0.5, mpp=0.5, slide_id="s")


def test_only_tissue_has_tiles_and_they_cover_all_of_it() -> None:
    tiles = tiles_of()
    assert all(t.x < 200 for t in tiles)
    area = sum(t.width * t.height * t.tissue_share for t in tiles)
    assert area == pytest.approx(200 * 300, rel=0.02)


def test_the_unsure_tiles_come_first_and_only_they_are_flagged() -> None:
    tiles = tiles_of()
    assert [t.rank for t in tiles] == list(range(1, len(tiles) + 1))
    # All four unsure tiles touch each other: one look shows them all. The random check may stand before it.
    (flagged,) = [t for t in tiles if t.flagged]
    assert flagged.rank <= 1 + SETTINGS.audit_tiles
    assert flagged.y >= 128
    assert flagged.mean_uncertainty == pytest.approx(230 / 255, abs=0.01)
    assert not any(t.flagged for t in tiles_of(Review(tile_um=64, max_tiles=0)))
    many = tiles_of(Review(tile_um=64, max_tiles=500))
    assert {t.flagged for t in many if t.y < 100} == {False}


@given(st.integers(1, 260), st.sampled_from([1.0, 2.0, 3.3]), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_tiles_are_the_same_in_narrow_panels(panel: int, downsample: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = array_map(
        rng.integers(0, 256, (90, 201), np.uint8),
        block=64,
        downsample=downsample,
        entropy=rng.integers(0, 256, (90, 201), np.uint8),
    )
    tissue = TissueMask(rng.random((30, 40)) < 0.5, 201 * downsample / 40)

    def found() -> list[ReviewTile]:
        return review_tiles(source, tissue, ["Tumor"], SETTINGS, threshold=0.5, mpp=0.5, slide_id="s")

    with pytest.MonkeyPatch.context() as patch:
        whole = found()
        patch.setattr("wsi_pipeline.regions.tiles.PANEL", panel)
        assert found() == whole
    assert {tile.x for tile in whole} >= {0, 128}


def test_the_score_is_the_area_that_is_expected_to_change() -> None:
    """Were the probabilities true, 115 of 255 parts of the lower half and 5 of the upper one are no tumour."""
    for tile in tiles_of():
        tissue = tile.tissue_share * tile.width * tile.height * 0.25
        wrong = 115 / 255 if tile.y >= 128 else 5 / 255
        assert tile.score == pytest.approx(wrong * tissue, rel=1e-6)
        assert tile.margin == pytest.approx(1 - 2 * wrong)
        assert tile.confidence == pytest.approx(2 * (1 - wrong) / (2 - wrong))


def test_what_is_not_known_is_missing_and_not_nought(tmp_path: Path) -> None:
    source, tissue = scene()
    low = ArrayMap(source.probability // 3, source.entropy, 64, 2.0, source.size)
    tiles = review_tiles(low, tissue, ["Tumor"], SETTINGS, threshold=0.5, mpp=0.5, slide_id="s")
    write_tiles(tmp_path / "t.parquet", tiles)
    table = pq.read_table(tmp_path / "t.parquet")
    for name in ("confidence", "mutual_information", "out_of_distribution", "structure_distance"):
        assert table[name].null_count == len(tiles)
    assert table["margin"].null_count == 0


def test_tiles_say_how_far_several_predictions_disagree(tmp_path: Path) -> None:
    source, tissue = scene()
    apart = np.zeros_like(source.entropy)
    apart[64:, :50] = 51
    several = array_map(source.probability, block=64, downsample=2.0, entropy=source.entropy, apart=apart)
    tiles = review_tiles(several, tissue, ["Tumor"], SETTINGS, threshold=0.5, mpp=0.5, slide_id="s")
    # A tile is 64 map px wide: 50 of its columns disagree by 51 / 255 where it is the left one, in the lower half.
    for tile in tiles:
        assert tile.mutual_information == pytest.approx(0.2 * 50 / 64 if tile.x == 0 and tile.y >= 128 else 0.0)
    write_tiles(tmp_path / "t.parquet", tiles)
    assert [t.mutual_information for t in read_tiles(tmp_path / "t.parquet")] == pytest.approx(
        [t.mutual_information for t in tiles]
    )


def test_strange_tiles_are_flagged_and_say_in_what() -> None:
    source, tissue = scene()
    tiles = review_tiles(
        source, tissue, ["Tumor"], Review(tile_um=32, max_tiles=2), threshold=0.5, mpp=0.5, slide_id="s",
        strangeness={(0, 0): Unlike(1.7, "colour"), (128, 0): Unlike(0.4, "sharpness", 0.9)},
    )  # fmt: skip
    flagged = [t for t in tiles if t.flagged]
    assert {(t.x, t.y) for t in flagged} >= {(0, 0)}
    (strange,) = [t for t in flagged if (t.x, t.y) == (0, 0)]
    assert strange.reason == "unlike the training slides in colour"
    assert strange.out_of_distribution == 1.7
    assert [t.out_of_distribution for t in tiles if (t.x, t.y) == (128, 0)] == [0.4]
    assert [t.structure_distance for t in tiles if (t.x, t.y) == (128, 0)] == [0.9]
    assert strange.structure_distance is None
    assert (strange.strange_appearance, strange.strange_structure) == (True, None)


@pytest.mark.parametrize(
    ("unlike", "reason"),
    [
        (Unlike(0.4, "colour", 1.3), "unlike the training slides in structure"),
        (Unlike(None, "colour", 1.3), "unlike the training slides in structure"),
        (Unlike(1.1, "sharpness", 1.3), "unlike the training slides in sharpness and structure"),
        (Unlike(1.1, "sharpness", 0.3), "unlike the training slides in sharpness"),
        (Unlike(1.0, "sharpness", 1.0), None),
        (Unlike(), None),
    ],
)
def test_a_reason_names_what_is_strange(unlike: Unlike, reason: str | None) -> None:
    assert unlike.reason == reason


def test_a_tile_that_is_strange_in_structure_alone_is_flagged_and_the_table_says_in_what(tmp_path: Path) -> None:
    source, tissue = scene()
    surely = ArrayMap(np.full_like(source.probability, 250), np.zeros_like(source.entropy), 64, 2.0, source.size)
    tiles = review_tiles(
        surely, tissue, ["Tumor"], SETTINGS, threshold=0.5, mpp=0.5, slide_id="s",
        strangeness={(0, 0): Unlike(0.2, "colour", 3.0), (128, 128): Unlike(0.3)},
    )  # fmt: skip
    (flagged,) = [t for t in tiles if t.flagged]
    assert (flagged.x, flagged.y, flagged.reason) == (0, 0, "unlike the training slides in structure")
    write_tiles(tmp_path / "tiles.parquet", tiles)
    rows = {(r["x"], r["y"]): r for r in pq.read_table(tmp_path / "tiles.parquet").to_pylist()}
    names = ("strange_appearance", "strange_structure", "structure_distance")
    assert [rows[0, 0][n] for n in names] == [False, True, 3.0]
    assert [rows[128, 128][n] for n in names] == [False, None, None]
    assert [rows[128, 0][n] for n in names] == [None, None, None]
    again = {(t.x, t.y): t for t in read_tiles(tmp_path / "tiles.parquet")}
    assert again[0, 0].strange_structure is True


def test_the_audit_is_drawn_from_what_is_not_flagged() -> None:
    tiles = tiles_of()
    (audited,) = [t for t in tiles if t.audit]
    assert not audited.flagged
    assert audited.rank <= 2
    assert {t.audit_chance for t in tiles if not t.flagged} == {1 / (len(tiles) - 1)}
    assert {t.audit_chance for t in tiles if t.flagged} == {0.0}
    assert tiles_of() == tiles


def test_nothing_that_a_pathologist_sees_tells_the_random_check_from_a_flag() -> None:
    # The same tiles flagged, in the random check, and neither: they say the same, and only a number of their own.
    source, tissue = scene()
    seen: dict[tuple[float, ...], set[str]] = {}
    for flags, audits in ((50, 0), (0, 50), (1, 2)):
        settings = Review(tile_um=32, max_tiles=flags, audit_tiles=audits)
        tiles = review_tiles(source, tissue, ["Tumor"], settings, threshold=0.5, mpp=0.5, slide_id="s")
        assert any(t.flagged for t in tiles) == bool(flags)
        for item in tile_objects(tiles, run_id="r"):
            assert item.geometry is not None
            assert item.name is not None
            rank, _, reason = item.name.partition(". ")
            seen.setdefault(item.geometry.bounds, set()).add(reason)
            assert item.measurements == {"Review: rank": float(rank)}
            assert (item.path_class, item.metadata, item.color) == (REVIEW_CLASS, {META_RUN: "r"}, None)
    assert all(len(reasons) == 1 for reasons in seen.values())


def test_a_table_of_an_earlier_version_is_read_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    tiles = tiles_of()
    write_tiles(tmp_path / "t.parquet", tiles)
    new = ["margin", "confidence", "mutual_information", "out_of_distribution", "audit", "audit_chance"]
    new += ["structure_distance", "strange_appearance", "strange_structure"]
    pq.write_table(pq.read_table(tmp_path / "t.parquet").drop_columns(new), tmp_path / "old.parquet")
    old = read_tiles(tmp_path / "old.parquet")
    assert [(t.x, t.y, t.flagged) for t in old] == [(t.x, t.y, t.flagged) for t in tiles]
    assert {(t.margin, t.audit) for t in old} == {(None, False)}
    assert [t.rank for t in read_tiles(tmp_path / "t.parquet", handed_out=True)] == [1, 2]
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(StoreError, match=r"bad\.parquet"):
        read_tiles(tmp_path / "bad.parquet")


def test_tiles_end_at_the_slide() -> None:
    assert max(t.y + t.height for t in tiles_of()) == 300


def test_reasons_are_plain_words() -> None:
    source, tissue = scene()
    low = ArrayMap(source.probability // 3, source.entropy, 64, 2.0, source.size)
    half = source.probability.copy()
    half[0, 64:, :50] = 20
    mixed = ArrayMap(half, source.entropy, 64, 2.0, source.size)
    for m, words in ((source, "all Tumor, but not surely"), (low, "nothing predicted, yet Tumor is possible")):
        assert words in review_tiles(m, tissue, ["Tumor"], SETTINGS, threshold=0.5, mpp=0.5, slide_id="s")[0].reason
    tiles = review_tiles(mixed, tissue, ["Tumor"], Review(tile_um=128), threshold=0.5, mpp=0.5, slide_id="s")
    assert any("Tumor, border unclear" in t.reason for t in tiles)


def test_a_slide_without_tissue_has_no_tile() -> None:
    source, tissue = scene()
    empty = TissueMask(np.zeros_like(tissue.mask), 10.0)
    assert review_tiles(source, empty, ["Tumor"], SETTINGS, threshold=0.5, mpp=0.5, slide_id="s") == []


def test_what_is_written_is_read_again_and_the_same_tiles_give_the_same_bytes(tmp_path: Path) -> None:
    tiles = tiles_of()
    write_tiles(tmp_path / "a.parquet", tiles)
    write_tiles(tmp_path / "b.parquet", tiles)
    back = read_tiles(tmp_path / "a.parquet")
    assert [(t.x, t.y, t.rank, t.flagged, t.reason) for t in back] == [
        (t.x, t.y, t.rank, t.flagged, t.reason) for t in tiles
    ]
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.read_schema(tmp_path / "a.parquet").metadata[b"schema"] == b"1"


def test_no_tile_is_a_table_without_rows(tmp_path: Path) -> None:
    write_tiles(tmp_path / "none.parquet", [])
    assert read_tiles(tmp_path / "none.parquet") == []


def test_flagged_tiles_become_detections_that_the_brush_leaves_alone() -> None:
    objects = tile_objects(tiles_of(), run_id="r")
    assert len(objects) == 1 + SETTINGS.audit_tiles
    first = objects[0]
    assert first.kind is Kind.TILE
    assert first.path_class == REVIEW_CLASS
    assert first.name is not None
    assert first.name.startswith("1. ")
    assert first.measurements["Review: rank"] == 1
    assert first.metadata[META_RUN] == "r"
    assert [o.uuid for o in objects] == [o.uuid for o in tile_objects(tiles_of(), run_id="r")]


@given(
    height=st.integers(1, 5000),
    tops=st.lists(st.integers(0, 5000), min_size=1, max_size=8).map(sorted),
    length=st.integers(1, 1500),
)
@settings(max_examples=60, deadline=None)
def test_rows_of_a_map_are_those_asked_for_and_none_is_read_twice(height: int, tops: list[int], length: int) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, 3), dtype=np.uint8)
    read = np.zeros(height, int)

    def counted(bounds: Bounds) -> NDArray[np.uint8]:
        assert bounds.y % STEP == 0
        assert (bounds.x, bounds.right) == (5, 8)
        assert 0 <= bounds.y < bounds.bottom <= height
        read[bounds.y : bounds.bottom] += 1
        return image[bounds.y : bounds.bottom]

    rows = _Rows(counted, height, 5, 8)
    for top in tops:
        bottom = min(top + length, height)
        if top < bottom:
            np.testing.assert_array_equal(rows.between(top, bottom), image[top:bottom])
    assert read.max(initial=0) <= 1
