"""The whole analysis as one JSON value, and as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from benchmarks.study.answers import all_harmed, all_quality, not_opened
from benchmarks.study.layout import ARMS, Study
from benchmarks.study.planted import OUTCOMES, all_planted
from benchmarks.study.saving import LABEL, all_saving, confounding
from benchmarks.study.times import CAPS_S, all_seconds, anomalies_of

RULE_TEXTS = {
    "pairs": "each start with the next end of the same image, no cap; an image without such a pair has no time",
    **{
        f"timeline_cap{cap}": f"one timeline of own starts, ends and actions; gaps capped at {cap} s, "
        "a longer one that ends with a start counts nothing"
        for cap in CAPS_S
    },
}


def analyse(study: Study) -> dict[str, Any]:
    """Everything that is said about a study; keys as in docs/study.md."""
    seconds = all_seconds(study)
    return {
        "experts": study.experts,
        "images": study.images,
        "rules": RULE_TEXTS,
        "seconds": seconds,
        "anomalies": anomalies_of(study),
        "saving": all_saving(study, seconds),
        "quality": all_quality(study),
        "planted": all_planted(study),
        "harmed": all_harmed(study),
        "not_opened": not_opened(study),
        "confounding": confounding(study),
    }


def show(found: dict[str, Any], console: Console) -> None:
    """Print the analysis for people."""
    console.print(f"{len(found['experts'])} experts, {len(found['images'])} images")
    console.print(_times(found))
    console.print(f"[bold]{LABEL}[/bold]: not a saving that was measured")
    for fact in found["confounding"]["facts"]:
        console.print(f"  {fact}")
    console.print(_answers(found))
    for kind, row in found["planted"].items():
        console.print(_planted(kind, row))
    kinds = Counter((row["arm"], row["kind"]) for row in found["anomalies"])
    table = Table("in the logs", *ARMS, title="Anomalies (each one with --json)")
    for kind in sorted({kind for _, kind in kinds}):
        table.add_row(kind, *(str(kinds[arm, kind]) for arm in ARMS))
    console.print(table)


def _times(found: dict[str, Any]) -> Table:
    table = Table(
        Column("rule", no_wrap=True, min_width=15),
        "manual h",
        "assisted h",
        "ratio",
        "95 %",
        "ratio of totals",
        "pairs",
        "dropped",
    )
    table.title = "Assisted time over manual time"
    for rule, row in found["saving"].items():
        if not row["pairs"]:
            table.add_row(rule, "–", "–", "–", "–", "–", "0", str(row["dropped"]))
            continue
        hours = [f"{row['total_seconds'][arm] / 3600:.2f}" for arm in ARMS]
        interval = "–" if row["ci95"] is None else "{:.2f} to {:.2f}".format(*row["ci95"])
        dropped = f"{row['dropped']}{', more than 5 %' if row['flagged'] else ''}"
        table.add_row(
            rule, *hours, f"{row['ratio']:.2f}", interval, f"{row['ratio_of_totals']:.2f}", str(row["pairs"]), dropped
        )
    note = next(iter(found["saving"].values()))["interval_note"]
    table.caption = f"ratio: geometric mean over experts and images; interval: {note}"
    return table


def _answers(found: dict[str, Any]) -> Table:
    table = Table(
        "expert",
        Column("arm", min_width=11),
        "precision",
        "recall",
        "F1",
        "F1 with class",
        "right ones harmed",
        "never opened",
    )
    table.title = "Answers against the truth, one to one at IoU 0.5"
    keys = ("precision", "recall", "f1", "f1_class")
    for expert in found["experts"]:
        for arm in (arm for arm in ARMS if expert in found["quality"][arm]):
            row, harmed = found["quality"][arm][expert], ""
            if arm == "assisted":
                spoiled = found["harmed"][expert]
                harmed = f"{spoiled['harmed']} of {spoiled['right']}"
            never = len(found["not_opened"][arm][expert])
            table.add_row(expert, arm, *(_percent(row[key]) for key in keys), harmed, str(never) if never else "")
    table.add_section()
    table.add_row("", "untouched suggestions", *(_percent(found["quality"]["suggestions"][key]) for key in keys))
    return table


def _planted(kind: str, row: dict[str, Any]) -> Table:
    table = Table("expert", *(name.replace("_", " ") for name in OUTCOMES), "right in the first round")
    table.title = f"Planted errors, {kind}: {row['listed']} listed, {row['effective']} effective"
    for expert, counts in row["per_expert"].items():
        first = row["first_round"]["per_expert"].get(expert)
        before = f"{first['right']} of {first['n']}" if first else "–"
        table.add_row(expert, *(str(counts[name]) for name in OUTCOMES), before)
    table.add_section()
    before = f"{row['first_round']['right']} of {row['first_round']['n']}"
    table.add_row("all", *(str(row["total"][name]) for name in OUTCOMES), before)
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
