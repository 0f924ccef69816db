"""Charts: the same for the same values, safe inside the page, readable without seeing them."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, fromstring

import pytest

from wsi_pipeline.report.charts import Row, SlideRow, changes_chart, dumbbell_chart, shortened, slides_chart

ROWS = [SlideRow("a", 0.1, 0.02, 0.9, 0.8, 3.0), SlideRow("b", None, None, None, None, None)]
HOSTILE = '<script>alert(1)</script> $\\frac{1}{0}$ & "quotes"'


def parsed(svg: str) -> Element:
    """The chart as XML, which is stricter than HTML."""
    return fromstring(svg)  # noqa: S314 - our own text


def test_the_same_values_give_the_same_bytes() -> None:
    first = slides_chart(ROWS, title="T", description="D")
    assert first == slides_chart(ROWS, title="T", description="D")


def test_a_chart_has_a_name_and_a_description() -> None:
    root = parsed(changes_chart([Row("kept", (3.0,))], ["kept"], title="What & why", description="3 < 4"))
    assert root.get("role") == "img"
    assert [child.text for child in root[:2]] == ["What & why", "3 < 4"]


def test_text_is_text_and_values_stand_at_their_bars() -> None:
    svg = changes_chart(
        [Row("kept", (12_345.0,)), Row("deleted", (2.0,))], ["kept", "removed"], title="T", description=""
    )
    words = {"".join(element.itertext()).strip() for element in parsed(svg).iter() if element.tag.endswith("text")}
    assert {"kept", "deleted", "12\u202f345", "2"} <= words


def test_every_colour_comes_from_the_style_sheet() -> None:
    svg = slides_chart(ROWS, title="T", description="D")
    assert not re.findall(r"(?:fill|stroke): #[0-9a-f]+", svg)
    assert "var(--removed)" in svg
    assert "<style" not in svg


def test_ids_of_two_charts_never_meet() -> None:
    charts = [slides_chart(ROWS, title=title, description="D") for title in ("first", "second")]
    ids = [set(re.findall(r' id="([^"]+)"', chart)) for chart in charts]
    assert ids[0]
    assert not ids[0] & ids[1]
    for chart, own in zip(charts, ids, strict=True):
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', chart)) <= own


def test_a_hostile_label_is_only_text() -> None:
    svg = dumbbell_chart([Row(HOSTILE, (0.5, 0.6))], ("old", "new"), axis="Dice", title=HOSTILE, description=HOSTILE)
    assert "<script" not in svg
    parsed(svg)
    assert shortened(HOSTILE) in "".join(parsed(svg).itertext())


def test_time_is_left_out_when_nobody_measured_it() -> None:
    timeless = [SlideRow("a", 0.1, 0.02, 0.9, 0.8, None)]
    assert "Active time" in slides_chart(ROWS, title="T", description="")
    assert "Active time" not in slides_chart(timeless, title="T", description="")


@pytest.mark.parametrize("rows", [[], [SlideRow("only", 0.0, 0.0, 1.0, None, None)]])
def test_charts_of_nothing_and_of_no_change_can_be_drawn(rows: list[SlideRow]) -> None:
    parsed(slides_chart(rows, title="T", description="D"))


def test_long_names_are_cut_in_the_middle() -> None:
    assert shortened("short") == "short"
    cut = shortened("TCGA-A7-A0CE-01Z-00-DX1.0123456789", 20)
    assert len(cut) == 20
    assert cut.startswith("TCGA-A7")
    assert cut.endswith("6789")
