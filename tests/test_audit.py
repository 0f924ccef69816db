"""The audit log: appended, chained, mended after a crash; whatever is done to it is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wsi_pipeline import audit, files
from wsi_pipeline.audit import AuditEntry
from wsi_pipeline.errors import StoreError


def written(root: Path, count: int = 4) -> list[bytes]:
    for i in range(count):
        audit.append(root, [AuditEntry("ann", "edited", "s1", f"o{i}", "a", "b", {"n": i})])
    return (root / audit.NAME).read_bytes().splitlines(keepends=True)


def test_a_chain_verifies_and_nothing_appended_changes_nothing(tmp_path: Path) -> None:
    lines = written(tmp_path)
    assert audit.append(tmp_path, []) == 0
    verdict = audit.verify(tmp_path)
    assert (verdict.lines, verdict.problem) == (4, None)
    assert [line["object"] for line in audit.read(tmp_path)] == ["o0", "o1", "o2", "o3"]
    assert (tmp_path / audit.NAME).read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda x: [x[0], x[1].replace(b'"ann"', b'"bob"'), *x[2:]], "line 2 was changed"),
        (lambda x: [x[0], *x[2:]], "line 2 does not follow"),
        (lambda x: [*x[:2], x[1], *x[2:]], "line 3 does not follow"),
        (lambda x: [x[0], x[2], x[1], x[3]], "line 2 does not follow"),
        (lambda x: [x[1], x[0], *x[2:]], "line 1 does not follow"),
        (lambda x: x[:3], "line 4 to 4 are missing"),
        (lambda x: [], "line 1 to 4 are missing"),
        (lambda x: [x[0], b"{}\n", *x[2:]], "line 2 has other fields"),
        (lambda x: [x[0], x[1].replace(b",", b", ", 1), *x[2:]], "line 2 was changed"),
    ],
)
def test_the_first_broken_line_is_named_and_nothing_is_appended(
    tmp_path: Path, harm: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    lines = written(tmp_path)
    (tmp_path / audit.NAME).write_bytes(b"".join(harm(lines)))
    assert said in (audit.verify(tmp_path).problem or "")
    with pytest.raises(StoreError, match="line"):
        audit.append(tmp_path, [AuditEntry("ann", "edited", "s1")])


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_last_line_is_kept_aside_and_the_chain_goes_on(tmp_path: Path, cut: int) -> None:
    lines = written(tmp_path)
    torn = lines[3][:cut]
    with (tmp_path / audit.NAME).open("ab") as file:
        file.write(torn)
    assert "torn" in (audit.verify(tmp_path).problem or "")
    written(tmp_path, 1)
    assert (tmp_path / "audit.jsonl.torn").read_bytes() == torn + b"\n"
    assert audit.verify(tmp_path).problem is None
    assert audit.verify(tmp_path).lines == 5


def test_a_crash_before_the_head_was_written_is_no_damage(tmp_path: Path) -> None:
    written(tmp_path, 2)
    head = (tmp_path / "audit.head.json").read_bytes()
    written(tmp_path, 1)
    (tmp_path / "audit.head.json").write_bytes(head)
    assert audit.verify(tmp_path).problem is None


def test_a_log_that_is_rewritten_verifies_and_tells_of_the_old_one(tmp_path: Path) -> None:
    written(tmp_path)
    old = audit.verify(tmp_path).head
    entry = AuditEntry("wsi-pipeline", "forgot_rater", "")
    assert audit.rewrite(tmp_path, lambda line: {**line, "actor": "x"} if line["object"] != "o1" else line, entry) == 3
    lines = audit.read(tmp_path)
    assert [line["actor"] for line in lines] == ["x", "ann", "x", "x", "wsi-pipeline"]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[-1]["before"] == old
    assert audit.verify(tmp_path).problem is None
    written(tmp_path, 1)
    assert audit.verify(tmp_path).lines == 6


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_rewriting_that_is_killed_leaves_the_old_log_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    written(tmp_path)
    calls = 0

    def counted(write: Callable[..., None]) -> Callable[..., None]:
        def one(*arguments: object) -> None:
            nonlocal calls
            calls += 1
            if calls == killed_at:
                raise KeyboardInterrupt
            write(*arguments)

        return one

    with monkeypatch.context() as patch:
        patch.setattr(audit, "write_json", counted(files.write_json))
        patch.setattr(audit, "write_bytes", counted(files.write_bytes))
        with pytest.raises(KeyboardInterrupt):
            audit.rewrite(tmp_path, lambda line: {**line, "actor": "x"}, AuditEntry("w", "forgot_rater", ""))
    assert audit.verify(tmp_path).problem is None
    written(tmp_path, 1)
    assert audit.verify(tmp_path).problem is None
    assert len(audit.read(tmp_path)) == (6 if killed_at == 3 else 5)


def test_a_damaged_log_is_not_rewritten(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / audit.NAME
    path.write_bytes(path.read_bytes().replace(b'"ann"', b'"bob"', 1))
    before = path.read_bytes()
    with pytest.raises(StoreError, match="line 1 was changed"):
        audit.rewrite(tmp_path, lambda line: line, AuditEntry("w", "forgot_rater", ""))
    assert path.read_bytes() == before
    with pytest.raises(StoreError, match=r"move it and audit\.head\.json away"):
        audit.require_sound(tmp_path)


def test_a_torn_line_is_no_reason_to_stop(tmp_path: Path) -> None:
    written(tmp_path)
    with (tmp_path / audit.NAME).open("ab") as file:
        file.write(b'{"action":"ed')
    verdict = audit.require_sound(tmp_path)
    assert verdict.torn
    assert verdict.problem is not None
