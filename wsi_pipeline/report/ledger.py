"""What reviewing cost, line by line, in the order in which a budget is read."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import mapping, text, texts

_LINES = (
    ("pathologist", "Pathologist"),
    ("reviewer", "Second reader"),
    ("adjudicator", "Adjudicator"),
    ("compute", "Computing"),
    ("storage", "Storage"),
    ("set_up", "Set-up"),
    ("total", "Total"),
    ("per_slide", "Per slide reviewed"),
    ("per_mm2", "Per mm² of tissue reviewed"),
    ("total_per_slide", "Per slide, all in"),
    ("total_per_mm2", "Per mm² of tissue, all in"),
)
NEEDS = "It needs a measured time and an hourly rate in the configuration."


@dataclass(frozen=True, slots=True)
class LedgerTable:
    """Amounts as name and value; without any, `missing` says why."""

    rows: tuple[tuple[str, str], ...]
    not_included: tuple[str, ...]
    missing: str
    n: str
    source: str


def ledger_table(run: Run) -> LedgerTable:
    """Read `cost` of metrics.json; what was only assumed stands last and says so."""
    cost = run.cost
    currency = text(cost.get("currency")) or ""
    rows = [(name, fmt.money(value, currency)) for key, name in _LINES if (value := known(cost.get(key))) is not None]
    guess = known(mapping(cost.get("assumed")).get("manual_per_slide"))
    if rows and guess is not None:
        rows.append(("Per slide by hand, assumed", fmt.money(guess, currency)))
    names = dict(_LINES)
    left_out = tuple(names.get(name, name.replace("_", "-")).lower() for name in texts(cost.get("not_included") or []))
    slides, area = known(cost.get("slides_with_area")), known(cost.get("area_mm2"))
    n = ""
    if slides is not None and area is not None:
        n = f"{fmt.mm2(1e6 * area)}{fmt.NARROW}mm² of tissue on {fmt.counted(round(slides), 'reviewed slide')}"
    missing = "" if rows else fmt.sentence(text(cost.get("reason")) or NEEDS)
    return LedgerTable(tuple(rows), left_out, missing, n, text(cost.get("source")) or "")
