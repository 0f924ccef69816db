"""What an annotation study of two rounds says on time, quality and planted errors.

    python -m benchmarks.annotation_study DIR [--json]

Definitions of every number are in docs/study.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scipy import stats

if __package__ in {None, ""}:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.study_answers import harmed, planted, quality
from benchmarks.study_files import Export, Study, is_user, read_study
from wsi_pipeline.errors import WsiError
from wsi_pipeline.measures import Event, EventType, Session
from wsi_pipeline.measures.time_rules import TimeRule, check_for_saving, count_pairs, pairs, timeline

LONG_GAP_S = 300.0
Seconds = dict[str, dict[str, dict[str, float]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    try:
        result = analyse(read_study(options.folder))
    except WsiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=1, ensure_ascii=False) if options.json else summary(result))
    return 0


def analyse(study: Study) -> dict[str, Any]:
    """Every figure of a study, ready for JSON."""
    rules = [pairs(), *(timeline(cap) for cap in (60.0, 100.0, 300.0))]
    sessions = [
        session(arm, expert, export) for arm, group in study.exports.items() for expert, export in group.items()
    ]
    kinds = {arm: {e.type for s in sessions if s.project == arm for e in s.events} for arm in study.exports}
    seconds = {rule.name: times(rule, sessions, study) for rule in rules}
    for rule in rules:
        check_for_saving(rule, kinds)
    return {
        "rules": {rule.name: str(rule) for rule in rules},
        "seconds": seconds,
        "anomalies": anomalies(study),
        "saving": {name: saving(arms, study) for name, arms in seconds.items()},
        "quality": quality(study),
        "planted": planted(study),
        "harmed": harmed(study),
        "never_opened": {
            arm: {e: gone for e, x in group.items() if (gone := sorted(set(study.images()) - x.opened()))}
            for arm, group in study.exports.items()
        },
        "confounding": confounding(study),
    }


def session(arm: str, expert: str, export: Export) -> Session:
    """An expert's own log lines and actions in one round, as events."""
    found: list[tuple[float, int, EventType, str]] = [
        (line.t, 1, EventType.OPEN if line.opens else EventType.CLOSE, line.image)
        for line in export.log
        if is_user(line.user, export.user)
    ]
    # An action of the moment in which its image is closed was made before it closed.
    found += [(t, 0, EventType.EDIT, item.image) for t, item in export.own_actions()]
    found.sort(key=lambda entry: entry[:2])
    return Session(arm, expert, tuple(Event(i, 1000 * t, kind, image) for i, (t, _, kind, image) in enumerate(found)))


def times(rule: TimeRule, sessions: Sequence[Session], study: Study) -> Seconds:
    """`[arm][expert][image]` of images that the expert opened."""
    result: Seconds = {arm: {expert: {} for expert in group} for arm, group in study.exports.items()}
    found = rule.seconds(sessions)
    for arm, group in study.exports.items():
        for expert, export in group.items():
            of = {key.image: s for key, s in found.items() if (key.project, key.rater) == (arm, expert)}
            result[arm][expert] = {image: of.get(image, 0.0) for image in sorted(export.opened())}
    return result


def saving(seconds: Seconds, study: Study) -> dict[str, Any]:
    """Assisted over manual time of the pairs (expert, image) with time in both rounds."""
    experts = sorted({e for group in study.exports.values() for e in group})
    cells = {
        (e, i): (seconds["manual"].get(e, {}).get(i), seconds["assisted"].get(e, {}).get(i))
        for e in experts
        for i in study.images()
    }
    count = count_pairs(cells.values())
    used = {cell: (m, a) for cell, (m, a) in cells.items() if m and a}
    ratio, interval = geometric_ratio([(expert, m, a) for (expert, _), (m, a) in used.items()])
    manual = sum(m for m, _ in used.values())
    return {
        "ratio": ratio,
        "ci95": interval,
        "ratio_of_totals": sum(a for _, a in used.values()) / manual if manual else None,
        "pairs": count.usable,
        "dropped": count.dropped,
        "dropped_without_time": count.without_time,
        "dropped_zero": count.zero,
        "flagged": count.flagged,
        "label": "before/after, confounded with practice and memory",
        "interval": "these raters only" if len({e for e, _ in used}) < 5 else "raters, t with raters - 1 df",
    }


def geometric_ratio(rows: Sequence[tuple[str, float, float]]) -> tuple[float | None, list[float] | None]:
    """Geometric mean of assisted/manual over pairs, and a 95 % interval from the raters' mean logarithms."""
    by_rater: defaultdict[str, list[float]] = defaultdict(list)
    for rater, manual, assisted in rows:
        by_rater[rater].append(math.log(assisted / manual))
    if not by_rater:
        return None, None
    logs = [value for values in by_rater.values() for value in values]
    centre = sum(logs) / len(logs)
    means = [sum(values) / len(values) for values in by_rater.values()]
    n = len(means)
    if n < 2:
        return math.exp(centre), None
    middle = sum(means) / n
    error = math.sqrt(sum((value - middle) ** 2 for value in means) / (n - 1) / n)
    half = float(stats.t.ppf(0.975, n - 1)) * error
    return math.exp(centre), [math.exp(centre - half), math.exp(centre + half)]


def anomalies(study: Study) -> list[dict[str, Any]]:
    """What is odd in the logs, per visit, and what is done about it."""
    found: list[dict[str, Any]] = []
    for arm, group in study.exports.items():
        for expert, export in group.items():

            def add(kind: str, image: str, t: float | None, treatment: str, arm: str = arm, e: str = expert) -> None:
                at = None if t is None else datetime.fromtimestamp(t, UTC).replace(tzinfo=None).isoformat()
                found.append({"arm": arm, "expert": e, "image": image, "at": at, "kind": kind, "treatment": treatment})

            for line in export.log:
                if not is_user(line.user, export.user):
                    add("foreign_user", line.image, line.t, "left out: the line is of no participant")
            for number in export.unread:
                add("unreadable_line", "", None, f"line {number} left out")
            _visits(session(arm, expert, export), add)
            for image in sorted(set(study.images()) - export.opened()):
                add("never_opened", image, None, "left out of this expert's answers")
    return found


def _visits(log: Session, add: Any) -> None:
    opened: dict[str, float] = {}
    closed: set[str] = set()
    before: Event | None = None
    for event in log.events:
        image, t = event.image, event.t / 1000
        if before is not None and t - before.t / 1000 > LONG_GAP_S and before.image == image:
            add(
                "long_gap",
                image,
                before.t / 1000,
                "timeline rules cap it, or count nothing if a start ends it; pairs counts it",
            )
        if event.type is EventType.OPEN:
            if image in opened:
                add(
                    "never_closed", image, opened[image], "pairs: counts nothing; timeline: to the next event elsewhere"
                )
            elif image in closed:
                add("reopened", image, t, "its visits are added up")
            if set(opened) - {image}:
                add("overlapping", image, t, "timeline: the image of the latest start or action counts; pairs: both")
            opened[image] = t
        elif event.type is EventType.CLOSE:
            if image not in opened:
                add("end_without_start", image, t, "pairs: counts nothing; timeline: takes the image away")
            elif opened.pop(image) == t:
                add("zero_length", image, t, "counts zero seconds")
            closed.add(image)
        elif image not in opened:
            add("action_outside_visit", image, t, "timeline: brings its image to the front; pairs: not seen")
        before = event
    for image, t in opened.items():
        add("never_closed", image, t, "pairs: counts nothing; timeline: to the last action or the next event elsewhere")


def confounding(study: Study) -> dict[str, Any]:
    """Which round each expert did first, and days between: a fixed order is no measured saving."""
    order: dict[str, Any] = {}
    for expert in sorted(set(study.exports["manual"]) & set(study.exports["assisted"])):
        logs = {arm: session(arm, expert, study.exports[arm][expert]).events for arm in study.exports}
        if all(logs.values()):
            gap = (logs["assisted"][0].t - logs["manual"][-1].t) / 86_400_000
            first = "manual" if logs["manual"][0].t <= logs["assisted"][0].t else "assisted"
            order[expert] = {"first": first, "days_between": gap}
    fixed = len({entry["first"] for entry in order.values()}) <= 1
    return {
        "fixed_order": fixed,
        "experts": order,
        "text": "before/after, confounded with practice and memory: the same images were annotated in one order by all"
        if fixed
        else "both orders occur; the order is not balanced by design",
    }


def summary(result: dict[str, Any]) -> str:
    """The main figures in a few lines."""
    lines = [result["confounding"]["text"]]
    for name, entry in result["saving"].items():
        lines.append(
            f"{name}: assisted/manual {entry['ratio']}, 95 % {entry['ci95']}, totals {entry['ratio_of_totals']}, "
            f"{entry['pairs']} pairs, {entry['dropped']} dropped"
        )
    for kind, entry in result["planted"].items():
        missed = {expert: counts["missed"] for expert, counts in entry["experts"].items()}
        lines.append(f"{kind}: {entry['listed']} planted, {entry['effective']} effective, missed {missed}")
    lines.append(f"untouched suggestions: {result['quality']['suggestions']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
