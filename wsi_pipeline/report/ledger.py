"""What reviewing cost, line by line, in the order in which a budget is read."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.reading import mapping, text, texts

_ITEMS = (
    ("pathologist", "Pathologist"),
    ("reviewer", "Second reader"),
    ("adjudicator", "Adjudicator"),
    ("compute", "Computing"),
    ("storage", "Storage"),
    ("set_up", "Set-up"),
)
_SUMS = (
    ("total", "Total"),
    ("per_slide", "Per slide reviewed"),
    ("per_mm2", "Per mm² of tissue reviewed"),
    ("total_per_slide", "Per slide, all in"),
    ("total_per_mm2", "Per mm² of tissue, all in"),
)
NOT_COUNTED = "not counted"
NEEDS = "It needs a measured time and an hourly rate in the configuration."


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that costs something: its amount (a dash where it was not counted), how it is known, and of what."""

    name: str
    amount: str
    basis: str
    why: str

    @property
    def counted(self) -> bool:
        """Whether it is in the total."""
        return self.basis != NOT_COUNTED


@dataclass(frozen=True, slots=True)
class LedgerTable:
    """Items with how they are known, and sums as name and value; without any sum, `missing` says why.

    What an older version collected tells no items: their amounts are among `rows` then.
    """

    items: tuple[Item, ...]
    rows: tuple[tuple[str, str], ...]
    not_included: tuple[str, ...]
    missing: str
    n: str
    source: str


def ledger_table(run: Run) -> LedgerTable:
    """Read `cost` of metrics.json; what was only assumed stands last and says so."""
    cost = run.cost
    currency = text(cost.get("currency")) or ""
    items = _items(cost.get("ledger"), currency)
    shown = _SUMS if items else (*_ITEMS, *_SUMS)
    rows = [(name, fmt.money(value, currency)) for key, name in shown if (value := known(cost.get(key))) is not None]
    guess = known(mapping(cost.get("assumed")).get("manual_per_slide"))
    if rows and guess is not None:
        rows.append(("Per slide by hand, assumed", fmt.money(guess, currency)))
    left_out = () if items else tuple(_named(name).lower() for name in texts(cost.get("not_included") or []))
    slides, area = known(cost.get("slides_with_area")), known(cost.get("area_mm2"))
    n = ""
    if slides is not None and area is not None:
        # A slide that several people read was paid for, and its tissue counted, once for each of them.
        what = "reviewed, assisted reading" if run.is_study else "reviewed slide"
        n = f"{fmt.mm2(1e6 * area)}{fmt.NARROW}mm² of tissue on {fmt.counted(round(slides), what)}"
    missing = "" if rows else fmt.sentence(text(cost.get("reason")) or NEEDS)
    return LedgerTable(items, tuple(rows), left_out, missing, n, text(cost.get("source")) or "")


def _named(name: str) -> str:
    return dict(_ITEMS).get(name, name.replace("_", "-"))


def _amount(amount: float, currency: str) -> str:
    """What was counted and costs next to nothing is not shown as nothing."""
    return f"under {fmt.money(0.01, currency)}" if 0 < amount < 0.005 else fmt.money(amount, currency)


def _items(value: object, currency: str) -> tuple[Item, ...]:
    found = []
    for raw in value if isinstance(value, list) else []:
        line = mapping(raw)
        amount, basis = known(line.get("amount")), text(line.get("basis")) or NOT_COUNTED
        told = fmt.DASH if amount is None else _amount(amount, currency)
        basis = NOT_COUNTED if amount is None else basis
        found.append(Item(_named(text(line.get("name")) or ""), told, basis, text(line.get("why")) or ""))
    return tuple(found)
