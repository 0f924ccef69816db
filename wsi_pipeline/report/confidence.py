"""Whether the model's confidence means something: reliability diagrams and risk against coverage, where measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.charts import Panel, curves_chart
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.parts import Chart
from wsi_pipeline.report.reading import mapping, text

# More classes than this do not fit side by side.
MOST_CLASSES = 3


def confidence_charts(run: Run) -> tuple[Chart, ...]:
    """Charts of `reliability` and `risk_coverage`, from metrics.json or a file in `learning/`."""
    return tuple(chart for chart in (_reliability(run), _risk(run)) if chart is not None)


def _places(run: Run) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "metrics.json", mapping(run.metrics.get("confidence"))
    yield "metrics.json", run.metrics
    yield from run.learning.items()


def _reliability(run: Run) -> Chart | None:
    for link, place in _places(run):
        found = place.get("reliability")
        classes = [mapping(item) for item in found] if isinstance(found, list) else []
        classes = [item for item in classes if isinstance(item.get("bins"), list)]
        if not classes:
            continue
        panels = [(_bins(item), None) for item in classes[:MOST_CLASSES]]
        errors = [
            f"{text(item.get('name')) or 'all classes'}: expected calibration error {fmt.score(known(item.get('ece')))}"
            for item in classes
        ]
        title = "Does confidence mean something?"
        words = "; ".join(errors)
        return Chart(
            title=title,
            svg=curves_chart(
                panels, ("stated probability", "share that was right"), title=title, description=f"{words}."
            ),
            n=_cases(classes[0]),
            definition=(
                f"{words}. On the dashed line the stated probability is the share that was right. Held-out slides only."
            ),
            source=text(place.get("source")) or "not stated",
            links=(link,),
        )
    return None


def _bins(item: Mapping[str, Any]) -> Panel:
    points = []
    for raw in map(mapping, item.get("bins") or ()):
        stated, found = known(raw.get("stated")), known(raw.get("found"))
        if stated is not None:
            points.append((stated, found))
    return Panel(text(item.get("name")) or "All classes", tuple(points), highest=1.0)


def _risk(run: Run) -> Chart | None:
    for link, place in _places(run):
        raw = mapping(place.get("risk_coverage"))
        coverage, risk = raw.get("coverage"), raw.get("generalized_risk") or raw.get("selective_risk")
        if not isinstance(coverage, list) or not isinstance(risk, list) or not coverage:
            continue
        pairs = [(known(x), known(y)) for x, y in zip(coverage, risk, strict=False)]
        points = tuple((x, y) for x, y in pairs if x is not None and y is not None)
        mean = known(raw.get("mean_loss")) or 0.0
        title = "What is left wrong if only sure places are accepted?"
        name = f"AUGRC {fmt.significant(known(raw.get('augrc')), 3)}"
        panel = Panel(name, points)
        random = Panel("random", ((0.0, 0.0), (1.0, mean)))
        words = (
            f"{name}; in random order {fmt.significant(known(raw.get('augrc_random')), 3)}, "
            f"in the best possible {fmt.significant(known(raw.get('augrc_best')), 3)}"
        )
        return Chart(
            title=title,
            svg=curves_chart(
                [(panel, random)], ("share accepted, surest first", "mean loss"), title=title, description=f"{words}."
            ),
            n=_cases(raw),
            definition=f"{words}. The dashed line accepts in random order. Lower is better.",
            source=text(place.get("source")) or "not stated",
            links=(link,),
        )
    return None


def _cases(raw: Mapping[str, Any]) -> str:
    cases, groups = known(raw.get("cases")), known(raw.get("groups"))
    words = "" if cases is None else fmt.counted(round(cases), "case")
    return f"{words} of {fmt.counted(round(groups), 'group')}" if words and groups is not None else words
