"""Slides that moved, and copies that come back: only what was asked for changes."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path

import pytest

from tests.handout.made import annotations_of, brushed, files_below, handed_out, objects_of, save
from wsi_pipeline.errors import ProjectError
from wsi_pipeline.qupath.history import history_of, restore
from wsi_pipeline.qupath.lease import NAME, hold
from wsi_pipeline.qupath.relocate import mapper, relocate


@pytest.mark.parametrize(
    ("old", "new", "uri", "wanted"),
    [
        ("/a", "/b c", "file:///a/x%20y.tif", "file:///b%20c/x%20y.tif"),
        ("/a", "/b", "file:/a/x.tif", "file:///b/x.tif"),
        ("/a", "/b", "file:///ab/x.tif", "file:///ab/x.tif"),
        ("/A", "/b", "file:///a/x.tif", "file:///a/x.tif"),
        ("/a", "/a/b", "file:///a/b/x.tif", "file:///a/b/x.tif"),
        ("Z:\\Slides", "/mnt", "file:///z:/slides/%C3%A4.svs", "file:///mnt/%C3%A4.svs"),
        ("\\\\Srv\\share", "D:\\s", "file:////srv/share/x.svs", "file:///D:/s/x.svs"),
        ("\\\\srv\\share", "D:/s", "file://SRV/Share/x.svs", "file:///D:/s/x.svs"),
        ("/a", "\\\\srv\\share", "file:///a/x.svs", "file://srv/share/x.svs"),
        ("/a b", "/c", "file:///a%20b/x.svs?series=1", "file:///c/x.svs?series=1"),
    ],
)
def test_addresses_map_at_whole_folders(old: str, new: str, uri: str, wanted: str) -> None:
    assert mapper(old, new)(uri) == wanted


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(ProjectError, match="no absolute path"):
        mapper("a", "/b")


def test_every_address_moves_and_every_object_stays(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    save(run, [brushed(o) for o in annotations_of(run)])
    before, objects = files_below(root), objects_of(run)
    old, new = str(tmp_path / "slides"), "/other place"
    moves = relocate(root, old, new, dry_run=True)
    assert files_below(root) == before
    assert [m.new for m in moves] == ["file:///other%20place/s1.tif"]
    assert relocate(root, old, new) == moves
    assert objects_of(run) == objects
    after = files_below(root)
    old_uri, new_uri = moves[0].old.encode(), moves[0].new.encode()
    data = "data/1/data.qpdata"
    assert old_uri not in after["project.qpproj"]
    assert old_uri not in after[data]
    assert after["project.qpproj"] == before["project.qpproj"].replace(old_uri, new_uri)
    tail = before[data].index(b"java.util.Locale")
    assert after[data][after[data].index(b"java.util.Locale") :] == before[data][tail:]
    # The second time nothing lies there; the message says where the slides are, so that the map can be mended.
    with pytest.raises(ProjectError, match=f"no slide lies below .*; the first one is {re.escape(moves[0].new)}$"):
        relocate(root, old, new)


def test_a_copy_comes_back_and_what_was_there_is_kept(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    save(run, [brushed(o) for o in annotations_of(run)])
    good = objects_of(run)
    save(run, good[:1])
    kept = history_of(root)
    wanted = kept[-1]
    assert restore(root, wanted.id, dry_run=True)[0].copy == wanted
    assert len(objects_of(run)) == 1
    done = restore(root, wanted.id)
    assert objects_of(run) == good
    assert done[0].kept is not None
    restore(root, done[0].kept)
    assert len(objects_of(run)) == 1
    with pytest.raises(ProjectError, match="neither the id"):
        restore(root, "yesterday")


def test_an_open_qupath_or_a_held_lease_stops_restoring(tmp_path: Path) -> None:
    run, _ = handed_out(tmp_path)
    root = run.project.parent
    save(run, objects_of(run)[:1])
    save(run, [])
    copy = history_of(root)[-1].id
    log = root / "events" / "ann-1.jsonl"
    log.write_text('{"type":"heartbeat"}\n')
    with pytest.raises(ProjectError, match="QuPath seems to have it open"):
        restore(root, copy)
    os.utime(log, (time.time() - 900,) * 2)
    with hold(root), pytest.raises(ProjectError, match="works on it"):
        restore(root, copy)
    dead = {"host": socket.gethostname(), "pid": 2**22 + 1, "expires": int(time.time()) + 900}
    (root / NAME).write_text(json.dumps(dead))
    assert restore(root, copy)
    assert not (root / NAME).exists()
