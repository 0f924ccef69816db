"""The scan finds what was planted, in every kind of file, and nothing where there is nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tests.handout.made import handed_out, slide
from wsi_pipeline.cli.app import run as command
from wsi_pipeline.privacy.patterns import KINDS, Known, found_in
from wsi_pipeline.privacy.scan import scan

PLANTED = "MUSTERMANN-4711"
KNOWN = Known((("name", PLANTED),))


def text_file(folder: Path) -> None:
    (folder / "x.json").write_text(json.dumps({"a": {"b": PLANTED}}))


def parquet_column(folder: Path) -> None:
    pq.write_table(pa.table({"slide_id": ["a", PLANTED]}), folder / "x.parquet")


def parquet_metadata(folder: Path) -> None:
    table = pa.table({"n": [1]}).replace_schema_metadata({"made from": PLANTED})
    pq.write_table(table, folder / "x.parquet")


def nested_parquet(folder: Path) -> None:
    pq.write_table(pa.table({"n": [[{"name": PLANTED}]]}), folder / "x.parquet")


def zarr_attribute(folder: Path) -> None:
    store = zarr.open_group(folder / "x.zarr", mode="w")
    store.attrs["slide"] = PLANTED


def png_text(folder: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", f"scan of {PLANTED}")
    Image.new("L", (4, 4)).save(folder / "x.png", pnginfo=info)


def png_compressed_text(folder: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Description", f"{PLANTED} " * 40, zip=True)
    Image.new("L", (4, 4)).save(folder / "x.png", pnginfo=info)


def jpeg_exif(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = PLANTED  # Artist
    Image.new("RGB", (4, 4)).save(folder / "x.jpg", exif=exif)


def jpeg_comment(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "x.jpg", comment=PLANTED.encode())


def tiff_description(folder: Path) -> None:
    tifffile.imwrite(folder / "x.tif", np.zeros((4, 4), np.uint8), description=f"|Patient = {PLANTED}")


def file_name(folder: Path) -> None:
    (folder / f"{PLANTED}.geojson").write_text("{}")


def weights_header(folder: Path) -> None:
    header = json.dumps({"__metadata__": {"trained_on": PLANTED}}).encode()
    (folder / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))


def binary(folder: Path) -> None:
    (folder / "data.qpdata").write_bytes(bytes(range(32)) * 9 + b"\x00\x0f" + PLANTED.encode() + b"\xff\x00" * 40)


def link(folder: Path) -> None:
    (folder / "x").symlink_to(f"/archive/{PLANTED}/a.svs")


def page(folder: Path) -> None:
    (folder / "x.html").write_text(f"<p>{PLANTED}</p>")


PLACES: tuple[Callable[[Path], None], ...] = (
    text_file, parquet_column, parquet_metadata, nested_parquet, zarr_attribute, png_text, png_compressed_text,
    jpeg_exif, jpeg_comment, tiff_description, file_name, weights_header, binary, page,
)  # fmt: skip


@pytest.mark.parametrize("plant", PLACES)
def test_a_name_is_found_wherever_it_hides(plant: Callable[[Path], None], tmp_path: Path) -> None:
    plant(tmp_path)
    found = scan(tmp_path, KNOWN)
    assert PLANTED in {finding.text for finding in found if finding.kind == "name"}
    assert not scan(tmp_path, Known(), ignore=set(KINDS))


def test_where_a_link_leads_is_told(tmp_path: Path) -> None:
    link(tmp_path)
    assert [(f.kind, f.where) for f in scan(tmp_path, KNOWN)] == [("path", "what it links to")]


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ('"uri": "/home/anna/slides/a.svs"', "path", "/home/anna/slides/a.svs"),
        ('"uri": "/home/anna/slides/a.svs"', "user", "anna"),
        ("file:///Z:/slides/a.svs", "path", "file:///Z:/slides/a.svs"),
        (r"opened C:\\Users\\Anna\\a.svs", "path", r"C:\\Users\\Anna\\a.svs"),
        (r"\\pathology-nas\scans\a.svs", "path", r"\\pathology-nas\scans"),
        ("scanned 2024-03-05T10:00", "date", "2024-03-05"),
        ("scanned 05.03.2024", "date", "05.03.2024"),
        ("DA 20240305 ", "date", "20240305"),
        ('{"t": 1790000000000}', "date", "1790000000000"),
        ("on 5 March 2024", "date", "5 March 2024"),
        ("ScanScope ID = SS1302", "serial", "SS1302"),
        ("Device Serial Number: GT450-00123", "serial", "GT450-00123"),
        ('"barcode": "H24-01234"', "serial", "H24-01234"),
        ("write to anna.k@clinic.example.org", "mail", "anna.k@clinic.example.org"),
        ("http://10.12.0.8:5000", "address", "10.12.0.8"),
    ],
)
def test_a_pattern_finds_what_it_is_for(text: str, kind: str, found: str) -> None:
    assert found in [said for what, said, _ in found_in(text) if what == kind]


@pytest.mark.parametrize(
    "text",
    [
        "[[1234.5, 20240305.25], [17.0, 1790000000000.5]]",
        '"model": "tumour-unet@3fa9c01d27be"',
        "uncertainty 41 %, µm/px, area/length, and/or",
        '"rule": "timeline-1, gaps capped at 300 s"',
        "python 3.11.9, shapely 2.1.1, http://127.0.0.1:8787",
        '"run_id": "5d0c7f31a9e24b86", "dice": 0.8712345678901',
        "https://json-schema.org/draft/2020-12/schema",
        "</p><br/></section>",
    ],
)
def test_what_gives_nobody_away_is_left_alone(text: str) -> None:
    assert list(found_in(text)) == []


@given(before=st.sampled_from(' "/(_-.\n'), after=st.sampled_from(' "/)_-.\n'), upper=st.booleans())
def test_a_known_word_is_found_whole_in_any_case_and_only_whole(before: str, after: str, upper: bool) -> None:
    word = "lindqvist"
    text = f"{before}{word.upper() if upper else word}{after}"
    assert [kind for kind, *_ in Known((("name", word),)).found_in(text)] == ["name"]
    assert not list(Known((("name", word),)).found_in(f"x{word}{after}"))


def test_short_names_and_accounts_that_are_nobody_are_not_looked_for() -> None:
    words = {word for _, word in Known.of(["a", "abc", "case-17"]).words}
    assert "case-17" in words
    assert not words & {"a", "abc", "root", "user"}


def test_a_project_says_where_the_slide_is_and_its_scripts_are_left_alone(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path, slide(tmp_path))
    found = scan(run.root, Known())
    files = {finding.file for finding in found if finding.kind == "path"}
    assert {"project/project.qpproj", "handout/batch-1/plan.json", "project/data/1/data.qpdata"} <= files
    assert not any(file.endswith(".groovy") for file in files)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no table")
    (tmp_path / "x.png").write_bytes(b"no picture")
    assert [(f.file, f.kind) for f in scan(tmp_path, Known())] == [
        ("x.parquet", "unreadable"),
        ("x.png", "unreadable"),
    ]


def test_the_command_says_one_line_each_and_ends_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("2024-03-05, 2024-03-06 and a@b.org")
    assert command(["privacy", "scan", str(tmp_path)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "a.txt: mail: a@b.org",
        "a.txt: date: 2024-03-05 (and 1 more)",
    ]
    assert command(["privacy", "scan", str(tmp_path), "--ignore", "mail", "--ignore", "date"]) == 0
    assert "nothing was found" in capsys.readouterr().out
    assert command(["privacy", "scan", str(tmp_path), "--ignore", "dates"]) == 1
