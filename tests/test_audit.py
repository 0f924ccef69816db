"""The audit log: appended, chained, mended after a crash; whatever is done to it is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wsi_pipeline import audit
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
