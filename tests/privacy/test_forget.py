"""A rater or a slide is forgotten: the name is gone, the work stays, and what is left is said."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.handout.made import CLASSES, SETTINGS, brushed, files_below, objects_of, save, slide
from tests.privacy.conftest import RATER, START, collected, write_log
from wsi_pipeline import audit
from wsi_pipeline.cli.app import run as command
from wsi_pipeline.config import Review
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.files import read_json
from wsi_pipeline.handout import hand_out
from wsi_pipeline.privacy import expire_events, forget_rater, forget_slide
from wsi_pipeline.qupath.data_files import DataFiles
from wsi_pipeline.qupath.history import keep_now
from wsi_pipeline.qupath.native_project import NativeProject
from wsi_pipeline.qupath.removal import remove_images
from wsi_pipeline.report.export import write_csv
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.spent import PREDICT, Spent, append, read_spent

REVIEW = Review()


def seconds(run: RunDir) -> dict[tuple[str, str], float]:
    rows = pq.read_table(run.time).to_pylist()
    return {(row["rater"], row["slide_id"]): row["active_s"] for row in rows}


def says(run: RunDir, word: str) -> set[str]:
    """Files that hold a word, in their bytes or their columns."""
    found = {name for name, data in files_below(run.root).items() if word.encode() in data or word in name}
    for path in run.root.rglob("*.parquet"):
        if word in str(pq.read_table(path).to_pylist()):
            found.add(path.relative_to(run.root).as_posix())
    return found


def project_bytes(run: RunDir) -> dict[str, bytes]:
    """The pathologist's files."""
    return {name: data for name, data in files_below(run.root).items() if name.endswith((".qpproj", ".qpdata"))}


def test_a_dry_run_says_what_it_would_do_and_changes_no_byte(run: RunDir) -> None:
    write_log(run, "a")
    collected(run)
    before = files_below(run.root)
    result = forget_rater(run, RATER, REVIEW, dry_run=True)
    assert f"delete project/events/{RATER}-a.jsonl" in result.done
    assert files_below(run.root) == before
    assert forget_slide(run, "s1", dry_run=True).done
    assert files_below(run.root) == before


def test_a_forgotten_rater_is_named_nowhere_and_the_times_stay(run: RunDir) -> None:
    write_log(run, "a")
    collected(run)
    before = seconds(run)
    result = forget_rater(run, RATER, REVIEW)
    # The key card and the scripts never held the name.
    assert says(run, RATER) == set()
    assert result.left == []
    assert seconds(run) == {(result.name, "s1"): before[RATER, "s1"]} == {(result.name, "s1"): 120.0}


def test_collecting_after_a_rater_was_forgotten_gives_the_same_figures(run: RunDir) -> None:
    write_log(run, "a")
    collected(run)
    before = read_json(run.metrics)
    result = forget_rater(run, RATER, REVIEW)
    collected(run)
    after = read_json(run.metrics)
    # What told of the logs that are gone went with them; the times stay.
    of_logs = {"logs", "anomalies", "regions"}
    assert {k: v for k, v in after["time"].items() if k not in of_logs} == {
        k: v for k, v in before["time"].items() if k not in of_logs
    }
    assert sum(log["visits"] for log in before["time"]["logs"]) == 1
    assert sum(log["visits"] for log in after["time"]["logs"]) == 0
    assert after["totals"] == before["totals"]
    assert {slide["rater"] for slide in after["slides"].values()} == {result.name}


def test_a_forgotten_slide_whose_image_stayed_is_not_handed_out_again(run: RunDir, tmp_path: Path) -> None:
    forget_slide(run, "s1")
    before = project_bytes(run)
    result = hand_out(run, SETTINGS, CLASSES, [slide(tmp_path, "s1"), slide(tmp_path, "s2")])
    assert "if it was forgotten, remove its image in QuPath" in str(result)
    assert project_bytes(run) == before


def test_csv_tables_that_name_what_is_forgotten_go_and_others_stay(run: RunDir) -> None:
    collected(run)
    write_csv(run, load_run(run))
    tables = run.report.parent / "tables"
    rows = {path.name: path.read_text() for path in tables.glob("*.csv")}
    naming = {name for name, text in rows.items() if '"s1"' in text}
    assert naming
    assert naming < set(rows)
    planned = forget_slide(run, "s1", dry_run=True)
    assert {f"delete report/tables/{name}" for name in naming} <= set(planned.done)
    assert {path.name for path in tables.iterdir()} == set(rows)
    result = forget_slide(run, "s1")
    assert {path.name for path in tables.iterdir()} == set(rows) - naming
    assert not [line for line in result.left if ".csv" in line]


def test_the_hours_that_a_forgotten_slide_took_stay_without_its_id(run: RunDir) -> None:
    append(run.compute_log, [Spent(PREDICT, "cpu", 1, 60, 50, "s1"), Spent(PREDICT, "cpu", 1, 30, None, "s2")])
    said = "leave the slide's id out of log/compute.jsonl"
    assert said in forget_slide(run, "s1", dry_run=True).done
    assert read_spent(run.compute_log)[0].slide_id == "s1"
    assert said in forget_slide(run, "s1").done
    assert [(item.slide_id, item.wall_s) for item in read_spent(run.compute_log)] == [(None, 60), ("s2", 30)]
    assert b"s1" not in run.compute_log.read_bytes()


def test_a_pathologists_work_is_not_touched_when_the_rater_is_forgotten(run: RunDir) -> None:
    before = {k: v for k, v in files_below(run.root).items() if k.endswith((".qpdata", "server.json"))}
    forget_rater(run, RATER, REVIEW)
    assert {k: v for k, v in files_below(run.root).items() if k in before} == before


def test_logs_of_another_person_stay(run: RunDir) -> None:
    other = write_log(run, "b", rater="rater-10")
    mine = write_log(run, "a")
    forget_rater(run, RATER, REVIEW)
    assert other.exists()
    assert not mine.exists()


def test_somebody_who_was_handed_nothing_is_refused_with_the_names_that_there_are(run: RunDir) -> None:
    with pytest.raises(ConfigError, match="raters of this run: rater-1"):
        forget_rater(run, "rater-2", REVIEW)
    with pytest.raises(ConfigError, match="no such slide"):
        forget_slide(run, "s3")


def test_a_forgotten_slide_is_gone_from_the_tables_and_its_image_is_named_as_left(run: RunDir) -> None:
    collected(run)
    result = forget_slide(run, "s1")
    assert not run.slide("s1").root.exists()
    assert run.slide("s2").root.exists()
    assert set(read_json(run.run_json)["slides"]) == {"s2"}
    assert set(read_json(run.metrics)["slides"]) == {"s2"}
    assert set(pq.read_table(run.corrections)["slide_id"].to_pylist()) == {"s2"}
    assert not list(run.handout.glob("*/snapshot/s1.*"))
    assert list(run.handout.glob("*/snapshot/s2.*"))
    assert any("image 1; remove it with `--images`" in line for line in result.left)
    collected(run)
    assert read_json(run.metrics)["totals"]["slides"] == 1


def test_old_logs_expire_once_collected_and_their_times_add_up_with_new_ones(run: RunDir) -> None:
    old = write_log(run, "a")
    now = datetime.fromtimestamp(START / 1000, tz=UTC) + timedelta(days=40)
    assert expire_events(run, REVIEW, 30, now=now) == 0, "nothing was collected yet"
    collected(run)
    assert expire_events(run, REVIEW, 60, now=now) == 0
    assert expire_events(run, REVIEW, 30, now=now) == 1
    assert not old.exists()
    collected(run)
    assert seconds(run) == {(RATER, "s1"): 120.0}
    write_log(run, "b", start=START + 35 * 86_400_000)
    collected(run)
    assert seconds(run) == {(RATER, "s1"): 240.0}
    assert expire_events(run, REVIEW, 30, now=now) == 0, "the new log is five days old"
    assert expire_events(run, REVIEW, 30, now=now + timedelta(days=60)) == 1
    collected(run)
    assert seconds(run) == {(RATER, "s1"): 240.0}


def test_a_log_that_is_younger_than_the_collection_stays(run: RunDir) -> None:
    collected(run)
    log = write_log(run, "a")
    later = run.metrics.stat().st_mtime + 10
    import os

    os.utime(log, (later, later))
    assert expire_events(run, REVIEW, 1, now=datetime.fromtimestamp(START / 1000, tz=UTC) + timedelta(days=9)) == 0
    assert log.exists()


def test_the_days_of_logs_that_are_gone_are_still_known(run: RunDir, tmp_path: Path) -> None:
    from wsi_pipeline.collect.kept import kept_days

    write_log(run, "a")
    collected(run)
    expire_events(run, REVIEW, 1, now=datetime.fromtimestamp(START / 1000, tz=UTC) + timedelta(days=9))
    assert kept_days(run) == {"s1": datetime.fromtimestamp(START / 1000, tz=UTC).date()}


def test_the_log_of_what_was_done_forgets_too_and_says_so(run: RunDir) -> None:
    save(run, [brushed(o) for o in objects_of(run)[:1]] + objects_of(run)[1:])
    collected(run)
    old = audit.verify(run.root)
    assert {line["actor"] for line in audit.read(run.root)} == {"wsi-pipeline", RATER}
    result = forget_rater(run, RATER, REVIEW)
    lines = audit.read(run.root)
    assert audit.verify(run.root).problem is None
    assert len(lines) == old.lines + 1
    assert (lines[-1]["action"], lines[-1]["before"]) == ("forgot_rater", old.head)
    assert lines[-1]["facts"]["name"] == result.name
    assert {line["actor"] for line in lines} == {"wsi-pipeline", result.name}
    # The work goes on under the new name, and nothing is told a second time.
    collected(run)
    assert audit.read(run.root) == lines
    forget_slide(run, "s1")
    assert {line["image"] for line in audit.read(run.root)} == {"forgotten", "s2", ""}
    assert "audit.jsonl" not in says(run, "s1")
    assert audit.verify(run.root).problem is None


def test_a_damaged_log_does_not_stop_forgetting_and_is_told_of(run: RunDir) -> None:
    log = run.root / audit.NAME
    log.write_bytes(log.read_bytes().replace(b'"s1"', b'"s7"', 1))
    before = log.read_bytes()
    result = forget_rater(run, RATER, REVIEW)
    assert log.read_bytes() == before
    assert any("no line says that this was done" in text for text in result.left)


def files_of(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def with_copies(run: RunDir) -> Path:
    """Both images have been saved by somebody, with a snapshot each; returns the project's folder."""
    root = run.project.parent
    for entry_id in (1, 2):
        keep_now(DataFiles(root), entry_id, f"s{entry_id}.tif")
        snapshot = root / "snapshots" / str(entry_id) / "1.geojson"
        snapshot.parent.mkdir(parents=True)
        snapshot.write_text("{}")
    return root


def test_with_images_the_slide_leaves_the_project_and_the_other_image_keeps_every_byte(run: RunDir) -> None:
    collected(run)
    root = with_copies(run)
    before = files_of(root)
    result = forget_slide(run, "s1", images=True)
    after = files_of(root)
    gone = {name for name in before if name not in after}
    assert gone == {name for name in before if name.startswith(("data/1/", "snapshots/1/", "history/1-"))}
    assert any(name.startswith("history/1-") for name in gone)
    assert {n for n in after if after[n] != before.get(n)} <= {
        "project.qpproj", "project.qpproj.backup", "history/first.json", "history/written.json",
    }  # fmt: skip
    project = NativeProject.open(run.project)
    assert [image.entry_id for image in project.images()] == [2]
    assert len(project.image(2).read_objects()) > 0
    assert b"s1.tif" not in after["project.qpproj"] + after["project.qpproj.backup"]
    assert not any("image 1" in line for line in result.left)
    assert any(line.startswith("remove image 1 from project/project.qpproj") for line in result.done)
    collected(run)
    assert read_json(run.metrics)["totals"]["slides"] == 1


def test_the_id_of_a_removed_image_is_never_given_again(run: RunDir) -> None:
    forget_slide(run, "s2", images=True)
    assert json.loads(run.project.read_bytes())["lastID"] == 2
    assert [i.entry_id for i in NativeProject.open(run.project).images()] == [1]
    forget_slide(run, "s1", images=True)
    assert json.loads(run.project.read_bytes())["lastID"] == 2
    assert NativeProject.open(run.project).images() == ()


def test_an_image_of_a_project_that_is_open_is_listed_as_left_and_nothing_of_it_is_touched(run: RunDir) -> None:
    collected(run)
    root = with_copies(run)
    log = write_log(run, "a", start=int(time.time() * 1000))
    log.write_text(log.read_text().replace('"close"', '"edit"'))
    before = files_of(root)
    result = forget_slide(run, "s1", images=True)
    assert files_of(root) == before
    assert any("QuPath seems to have it open" in line for line in result.left)
    assert not run.slide("s1").root.exists()


def test_a_dry_run_with_images_changes_nothing_and_says_what_would_go(run: RunDir) -> None:
    root = with_copies(run)
    before = files_of(run.root)
    result = forget_slide(run, "s1", images=True, dry_run=True)
    assert files_of(run.root) == before
    gone = remove_images(root, {1}, dry_run=True)
    assert {path.name for path in gone} >= {"project.qpproj", "1"}
    assert any(f"{len(gone)} files and folders" in line for line in result.done)


def test_figures_of_single_readings_of_the_slide_go_from_metrics(run: RunDir) -> None:
    write_log(run, "a")
    collected(run)
    before = read_json(run.metrics)
    assert {image["slide_id"] for image in before["images"]} == {"s1", "s2"}
    forget_slide(run, "s1")
    after = read_json(run.metrics)
    assert {image["slide_id"] for image in after["images"]} == {"s2"}
    assert {row["slide_id"] for row in after["time"]["logs"]} == {"s2"}


def test_images_go_with_a_slide_and_not_with_a_rater(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("cohort: {slides: '*.tif'}\noutput: run\n")
    assert command(["privacy", "forget", str(config), "--rater", "x", "--images"]) == 1
    assert "goes with --slide" in capsys.readouterr().err
