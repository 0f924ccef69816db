"""`privacy: strict`: nothing of a slide's name or place is in the output, and the key table is the owner's alone."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from tests.stages.made import record_of, run_of, small_slide, write_config
from wsi_pipeline.cli.app import run as command
from wsi_pipeline.cohort import load_cohort
from wsi_pipeline.config import load_config, parse_config
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.files import read_json
from wsi_pipeline.keys import KeyTable, without_paths
from wsi_pipeline.privacy.scan import known_of, scan

NAME = "MUSTERMANN_H24-01234"
BASE = {"output": "run", "cohort": {"slides": ["a.svs"]}, "model": {"path": "baseline:stain-density"}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    small_slide(tmp_path / "archive" / f"{NAME}.tif", width=600, height=500)
    (tmp_path / "archive" / "manifest.csv").write_text(
        f"slide_id,uri,patient,site,scanner\n{NAME},{NAME}.tif,Mustermann,St. Elsewhere,GT450-00123\n"
        "gone-Schmidt,Schmidt_1999.tif,Schmidt,,\n"
    )
    cohort = {"slides": [], "manifest": str(tmp_path / "archive" / "manifest.csv")}
    return write_config(tmp_path, [], privacy="strict", cohort=cohort, handout={"backend": "native"})


def test_names_are_random_the_same_at_each_call_and_kept_outside(config: Path) -> None:
    settings = load_config(config)
    first, second = load_cohort(settings), load_cohort(settings)
    assert first.slides == second.slides
    (ref,) = first.slides
    assert KeyTable.is_pseudonym(ref.slide_id)
    assert all(KeyTable.is_pseudonym(str(value)) for value in (ref.patient, ref.site, ref.scanner))
    assert Path(ref.uri).resolve().stem == NAME
    table = settings.keys / "keys.json"
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.keys.stat().st_mode) == 0o700
    assert not settings.keys.is_relative_to(settings.output)
    assert ref.slide_id in read_json(table)["names"]["slide"].values()


def test_a_slide_that_was_moved_keeps_its_random_name_and_its_link_follows(config: Path) -> None:
    (before,) = load_cohort(load_config(config)).slides
    archive, now = config.parent / "archive", config.parent / "attic"
    archive.rename(now)
    raw = {"manifest": str(now / "manifest.csv"), "moved": {str(archive): str(now)}}
    write_config(config.parent, [], privacy="strict", cohort=raw, handout={"backend": "native"})
    # Its id in the manifest plays no part: the table knows slides by where they lie.
    (after,) = load_cohort(load_config(config)).slides
    assert (after.slide_id, after.uri, after.patient) == (before.slide_id, before.uri, before.patient)
    assert Path(after.uri).resolve() == (now / f"{NAME}.tif").resolve()


def test_a_problem_speaks_of_the_random_name(config: Path) -> None:
    (problem,) = load_cohort(load_config(config)).problems
    assert KeyTable.is_pseudonym(problem.slide)
    assert "chmidt" not in str(problem)
    assert str(config.parent) not in str(problem)


@pytest.mark.slow
def test_the_whole_way_writes_no_name_and_a_place_only_where_qupath_needs_it(config: Path) -> None:
    assert command(["predict", str(config)]) == 2, "the slide that is gone failed"
    assert command(["handout", str(config)]) in {0, 2}
    assert command(["collect", str(config)]) == 0
    assert command(["report", str(config)]) == 0
    run, settings = run_of(config), load_config(config)
    found = scan(run.root, known_of(run, settings), ignore={"date"})
    assert {f"{f.file}: {f.text}" for f in found if f.kind in {"name", "user", "host", "serial"}} == set()
    # A project must say where the slide is; nothing else does.
    assert {f.file.split("/")[0] for f in found if f.kind == "path"} <= {"project", "handout"}
    record = record_of(config)
    assert all(slide["uri"].startswith("key:") for slide in record["slides"].values() if slide["state"] == "done")
    assert "output" not in record["config"]
    assert "cohort" not in record["config"]
    assert read_json(run.project)["images"][0]["imageName"].startswith("slide-")


def test_a_second_call_goes_on_with_the_same_names_and_does_nothing(config: Path) -> None:
    command(["predict", str(config)])
    before = record_of(config)
    command(["predict", str(config)])
    assert record_of(config) == before


def test_without_the_key_table_the_slide_cannot_be_handed_out(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(["predict", str(config)])
    shutil.rmtree(load_config(config).keys)
    assert command(["handout", str(config)]) == 2
    assert "restore the table" in "".join(capsys.readouterr())


def test_a_slide_can_be_forgotten_with_its_line_in_the_table(config: Path) -> None:
    command(["predict", str(config)])
    slide_id = next(k for k, v in record_of(config)["slides"].items() if v["state"] == "done")
    command(["privacy", "forget", str(config), "--slide", slide_id])
    table = KeyTable.load(load_config(config).keys)
    assert slide_id not in table.names["slide"].values()
    assert not list((table.folder / "slides").glob(f"{slide_id}*"))


def test_a_key_table_inside_of_the_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.keys: must lie outside"):
        parse_config({**BASE, "privacy": {"mode": "strict", "keys": "run/keys"}}, base=tmp_path)


def test_a_word_is_short_for_the_mode(tmp_path: Path) -> None:
    assert parse_config({**BASE, "privacy": "strict"}, base=tmp_path).privacy.strict
    assert not parse_config(BASE, base=tmp_path).privacy.strict
    with pytest.raises(ConfigError, match="privacy"):
        parse_config({**BASE, "privacy": "strictest"}, base=tmp_path)


def test_folders_of_paths_are_left_out_of_a_line() -> None:
    line = "cannot read /home/anna/old slides/Anna K.svs: no such file; 3/4 µm/px, see /srv/run/run.json"
    assert without_paths(line) == "cannot read …: no such file; 3/4 µm/px, see …/run.json"
    assert without_paths("in /data/x/slide-0123456789ab.svs or /data/Anna") == "in …/slide-0123456789ab.svs or …"
