"""Puts the page together: facts in, one HTML file out."""

from __future__ import annotations

import base64
import hashlib
import logging
import math
import re
from dataclasses import replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from wsi_pipeline import __version__
from wsi_pipeline.config import Privacy
from wsi_pipeline.files import write_text
from wsi_pipeline.report import numbers
from wsi_pipeline.report.changed import changed_tiles
from wsi_pipeline.report.charts import shortened
from wsi_pipeline.report.claims import claim, conflicts, planted
from wsi_pipeline.report.confidence import blind_flag_table, confidence_charts, flag_table
from wsi_pipeline.report.corrections import charts, lowest
from wsi_pipeline.report.economy import DEFINITION as ECONOMY
from wsi_pipeline.report.economy import economy
from wsi_pipeline.report.export import renew_csv, write_tables
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.gallery import Shapes, css, flagged_tiles, plates
from wsi_pipeline.report.learned import comparisons
from wsi_pipeline.report.ledger import ledger_table
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.report.minutes import modelled, region_minutes
from wsi_pipeline.report.pace import backlog, trend
from wsi_pipeline.report.quality import concerns, recipe
from wsi_pipeline.report.raters import FEWEST_SLIDES, raters
from wsi_pipeline.report.reading import Reader
from wsi_pipeline.report.savings import saving_of
from wsi_pipeline.report.screen import pooled_classes, screen
from wsi_pipeline.report.splits import DEFINITION as SPLITS
from wsi_pipeline.report.splits import FALSE_POSITIVES, splits
from wsi_pipeline.report.thrift import LIMIT_BYTES, STEPS, Thrift
from wsi_pipeline.report.unlike import unlike_table
from wsi_pipeline.rundir import RunDir

logger = logging.getLogger(__name__)


def write_report(run: RunDir, privacy: Privacy | None = None) -> Path:
    """Write `report/index.html`: one file that needs nothing else, below 10 MB, the same bytes for the same run.

    Slides that do not fit go to `page-2.html` and so on, with the same navigation. Beside them lie the tables that
    the page links to (see `wsi_pipeline.report.export`). Reads only files of the run directory, and the slides
    themselves for crops where they can be reached. What is not there is told as not measured.

    Parameters
    ----------
    privacy
        As the configuration says now; without it, as the run was made with.

    Returns
    -------
    The path of the first page.

    Raises
    ------
    StoreError
        There is no usable run.json, or the page cannot be written.
    """
    reader = Reader(run.root)
    shapes = Shapes(run, reader)
    facts = load_run(run, privacy)
    tables = write_tables(run, facts)
    renew_csv(run, facts)
    links = {name: path.relative_to(run.report.parent).as_posix() for name, path in tables.items()}
    facts = replace(facts, files={**facts.files, **links})
    view = _View(facts, run, shapes, reader)
    for thrift in STEPS:
        page = view.first(thrift)
        if _fits(page):
            break
    else:
        logger.warning("the report has %.1f MB: its tables alone are larger than the limit", len(page.encode()) / 1e6)
    write_text(run.report, page)
    _write_further(run, view, thrift)
    return run.report


def _fits(page: str) -> bool:
    size = len(page.encode())
    if size > LIMIT_BYTES:
        logger.info("a page of the report would have %.1f MB; making its pictures smaller", size / 1e6)
    return size <= LIMIT_BYTES


def _write_further(run: RunDir, view: _View, thrift: Thrift) -> None:
    """Pages 2 and up; those of an earlier, longer report are removed."""
    kept = {run.report.name}
    for number in range(2, view.pages(thrift) + 1):
        # Every page shows as many slides as the first one says; only their pictures may get smaller.
        smaller = [replace(step, plates=thrift.plates) for step in STEPS[STEPS.index(thrift) :]]
        for step in smaller:
            page = view.further(number, step)
            if _fits(page):
                break
        path = run.report.with_name(page_name(number))
        write_text(path, page)
        kept.add(path.name)
    for path in run.report.parent.glob("page-*.html"):
        if path.name not in kept and _PAGE.fullmatch(path.name):
            path.unlink()


# A page that somebody keeps beside them under another name is theirs.
_PAGE = re.compile(r"page-[0-9]+\.html")


def page_name(number: int) -> str:
    """The file name of a page, from 1."""
    return "index.html" if number == 1 else f"page-{number}.html"


class _View:
    """What is the same for all pages of one report."""

    def __init__(self, facts: Run, run: RunDir, shapes: Shapes, reader: Reader) -> None:
        self._facts = facts
        self._run = run
        self._shapes = shapes
        self._reader = reader
        self._environment = _environment()
        self._slides = sum(slide.state == "done" for slide in facts.slides)

    @cached_property
    def _figures(self) -> dict[str, Any]:
        """Charts and figures, which are the same however small the pictures get."""
        facts = self._facts
        return {
            "saving": saving_of(facts),
            "trend": trend(facts),
            "backlog": backlog(facts),
            "raters": raters(facts),
            "fewest_slides": FEWEST_SLIDES,
            "charts": charts(facts),
            "confidence": confidence_charts(facts),
            "flags": flag_table(facts),
            "blind_flags": blind_flag_table(facts),
            "unlike": unlike_table(facts),
            "ledger": ledger_table(facts),
            "economy": economy(facts),
            "economy_definition": ECONOMY,
            "splits": splits(facts),
            "splits_definition": f"{SPLITS} {FALSE_POSITIVES}",
            "regions": region_minutes(facts),
            "modelled": modelled(facts),
            "claim": claim(facts),
            "planted": planted(facts),
            "conflicts": conflicts(facts),
            "classes": pooled_classes(facts),
            "comparisons": comparisons(facts),
        }

    def pages(self, thrift: Thrift) -> int:
        return max(1, math.ceil(self._slides / thrift.plates))

    def first(self, thrift: Thrift) -> str:
        gallery, _ = plates(self._facts, self._run, self._shapes, thrift)
        crops = flagged_tiles(self._facts, self._run, self._shapes, thrift)
        changed = changed_tiles(self._facts, self._run, self._shapes, thrift)
        # Outlines are read while pictures are made: what was wrong with them is known only now.
        facts = replace(self._facts, problems=(*self._facts.problems, *self._reader.problems))
        return self._render(
            "page.html.j2",
            facts,
            1,
            thrift,
            screen=screen(facts),
            gallery=gallery,
            crops=crops,
            changed=changed,
            **self._figures,
            concerns=concerns(facts),
            recipe=recipe(facts),
        )

    def further(self, number: int, thrift: Thrift) -> str:
        start = (number - 1) * thrift.plates
        gallery, _ = plates(self._facts, self._run, self._shapes, thrift, start)
        return self._render("further.html.j2", self._facts, number, thrift, gallery=gallery)

    def _render(self, template: str, facts: Run, number: int, thrift: Thrift, **values: Any) -> str:
        script = _asset("page.js")
        pages = self.pages(thrift)
        return self._environment.get_template(template).render(
            run=facts,
            page=number,
            pages=[(n, page_name(n)) for n in range(1, pages + 1)],
            start=(number - 1) * thrift.plates,
            available=self._slides,
            version=__version__,
            style=_asset("style.css"),
            script=script,
            script_hash=_content_hash(script),
            **values,
        )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("wsi_pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("integer", "significant", "score", "mm2", "micrometres", "minutes", "days", "share", "duration"):
        environment.filters[name] = getattr(numbers, name)
    environment.filters["prose"] = _prose
    helpers: dict[str, Any] = {
        "counted": numbers.counted,
        "css": css,
        "dash": numbers.DASH,
        "listed": numbers.listed,
        "money": numbers.money,
        "lowest": lowest,
        "page_name": page_name,
        "shortened": shortened,
    }
    environment.globals.update(helpers)
    return environment


def _prose(words: str) -> Markup:
    """A sentence of another part of the program: escaped, with what stands in backticks set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(words))))  # noqa: S704


def _asset(name: str) -> Markup:
    """A style sheet or script of the package, as it stands: both are the package's own text."""
    return Markup(resources.files("wsi_pipeline.report").joinpath("templates", name).read_text("utf-8"))  # noqa: S704


def _content_hash(script: str) -> str:
    """The hash by which the page's policy allows this script and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
