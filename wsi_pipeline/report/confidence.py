"""Whether the model's confidence means something: reliability diagrams and risk against coverage, where measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class FlagTable:
    """How well the flags point at what the reviewers changed, as name and value, with what must be said beside it."""

    rows: tuple[tuple[str, str], ...]
    n: str
    caveat: str
    source: str


def flag_table(run: Run) -> FlagTable | None:
    """Read `confidence.flags` and `confidence.audit` of metrics.json; None where they were not measured."""
    return _flag_table(run, mapping(run.metrics.get("confidence")))


def blind_flag_table(run: Run) -> FlagTable | None:
    """The same against a blind second read: `second_read` of metrics.json."""
    return _flag_table(run, mapping(run.metrics.get("second_read")))


def _flag_table(run: Run, place: Mapping[str, Any]) -> FlagTable | None:
    flags, audit = mapping(place.get("flags")), mapping(place.get("audit"))
    rows = [
        (name, _share(flags, key))
        for key, name in (
            ("precision", "Flagged tiles that were changed"),
            ("recall", "Changed tiles that were flagged"),
            ("area_recall", "Changed area that lies in flagged tiles"),
        )
        if known(flags.get(key)) is not None
    ]
    if known(flags.get("early")) is not None:
        of_queue = fmt.share(known(flags.get("early_share_of_queue")) or 0.1)
        rows.append((f"Changed area in the first {of_queue} of the queue", _share(flags, "early")))
        beside = (known(flags.get("early_random")), known(flags.get("early_best")))
        rows.append(("In random order, in the best possible", f"{fmt.share(beside[0])}, {fmt.share(beside[1])}"))
    if known(audit.get("recall")) is not None:
        rows.append(("Changed tiles that were flagged, by the random check", _share(audit, "recall")))
    if not rows:
        return None
    tiles, slides = known(flags.get("tiles")), known(flags.get("slides"))
    n = "" if tiles is None or slides is None else f"{fmt.counted(round(tiles), 'tile')} of {round(slides)} slides"
    caveat = text(place.get("caveat")) or "Observed corrections are not errors, and flags steer them."
    return FlagTable(tuple(rows), n, caveat, text(place.get("source")) or run.source)


def _share(raw: Mapping[str, Any], key: str) -> str:
    """A share with its interval where there is one."""
    value, interval = fmt.share(known(raw.get(key))), raw.get(f"{key}_ci95")
    if not isinstance(interval, list) or len(interval) != 2:
        return value
    low, high = (fmt.share(known(end)) for end in interval)
    return f"{value} (95{fmt.NARROW}% interval {low} to {high})"
