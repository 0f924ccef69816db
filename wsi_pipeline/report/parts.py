"""Pieces that several sections of the page are made of."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: `value` with its unit, `note` with n and definition, `source` where it comes from."""

    label: str
    value: str
    note: str
    source: str | None = None
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart and what must stand beside it; `links` are names of data files."""

    title: str
    svg: Markup
    n: str
    definition: str
    source: str
    links: tuple[str, ...]
