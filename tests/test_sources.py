"""The search for figures that pass for measured finds them wherever they stand: else it would prove nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources import passing_for_measured

PAGE = "<!doctype html><html><body><p>Not measured. {}</p><script>measured</script></body></html>"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("Source: simulated.", 0),
        ("Source: prediction. Source: run directory.", 0),
        ("It needs a measured time.", 0),
        ("12 minutes, source: measured", 1),
        ("Source: events. 3 min", 1),
        ("fitted on 9 measured images", 1),
    ],
)
def test_the_page_is_read_as_a_person_reads_it(tmp_path: Path, words: str, found: int) -> None:
    (tmp_path / "index.html").write_text(PAGE.format(words))
    assert bool(passing_for_measured(tmp_path)) == bool(found)


def test_tables_documents_and_logs_are_looked_into(tmp_path: Path) -> None:
    pq.write_table(pa.table({"source": ["simulated", "measured", None]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text('"slide","time_source"\n"s1","events"\n"s2","simulated"\n')
    (tmp_path / "c.json").write_text(json.dumps({"time": [{"source": "measured", "name": "x"}], "unit": "measured"}))
    (tmp_path / "d.jsonl").write_text('{"source": "simulated"}\n{"source": "measured"}\n')
    assert passing_for_measured(tmp_path) == [
        "a.parquet source: measured",
        "b.csv time_source: events",
        "c.json.time[0].source: measured (x)",
        "d.jsonl line 2.source: measured ()",
    ]
    clean = tmp_path / "clean"
    clean.mkdir()
    pq.write_table(pa.table({"source": ["simulated", None]}), clean / "a.parquet")
    assert passing_for_measured(clean) == []
