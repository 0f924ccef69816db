"""Puts the page together: facts in, one HTML file out."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from wsi_pipeline import __version__
from wsi_pipeline.files import write_text
from wsi_pipeline.report import numbers
from wsi_pipeline.report.charts import shortened
from wsi_pipeline.report.corrections import charts, lowest
from wsi_pipeline.report.facts import Run
from wsi_pipeline.report.gallery import Shapes, css, flagged_tiles, plates
from wsi_pipeline.report.learned import comparisons
from wsi_pipeline.report.loading import load_run
from wsi_pipeline.report.quality import concerns, recipe
from wsi_pipeline.report.reading import Reader
from wsi_pipeline.report.screen import pooled_classes, screen
from wsi_pipeline.report.thrift import LIMIT_BYTES, STEPS, Thrift
from wsi_pipeline.rundir import RunDir

logger = logging.getLogger(__name__)


def write_report(run: RunDir) -> Path:
    """Write `report/index.html`: one file that needs nothing else, below 10 MB, the same bytes for the same run.

    Reads only files of the run directory, and the slides themselves for the crops of flagged tiles where they
    can be reached. What is not there is told as not measured.

    Returns
    -------
    The path of the page.

    Raises
    ------
    StoreError
        There is no usable run.json, or the page cannot be written.
    """
    reader = Reader(run.root)
    shapes = Shapes(run, reader)
    facts = load_run(run)
    for thrift in STEPS:
        page = _render(facts, run, shapes, reader, thrift)
        size = len(page.encode())
        if size <= LIMIT_BYTES:
            break
        logger.info("the report would have %.1f MB; making its pictures smaller", size / 1e6)
    else:
        logger.warning("the report has %.1f MB: its tables alone are larger than the limit", size / 1e6)
    write_text(run.report, page)
    return run.report


def _render(facts: Run, run: RunDir, shapes: Shapes, reader: Reader, thrift: Thrift) -> str:
    gallery, available = plates(facts, run, shapes, thrift)
    crops = flagged_tiles(facts, run, shapes, thrift)
    # Outlines are read while pictures are made: what was wrong with them is known only now.
    facts = replace(facts, problems=(*facts.problems, *reader.problems))
    script = _asset("page.js")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            run=facts,
            screen=screen(facts),
            gallery=gallery,
            available=available,
            crops=crops,
            charts=charts(facts),
            classes=pooled_classes(facts),
            comparisons=comparisons(facts),
            concerns=concerns(facts),
            recipe=recipe(facts),
            version=__version__,
            style=_asset("style.css"),
            script=script,
            script_hash=_content_hash(script),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("wsi_pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("integer", "significant", "score", "mm2", "micrometres", "minutes", "days"):
        environment.filters[name] = getattr(numbers, name)
    environment.filters["prose"] = _prose
    helpers: dict[str, Any] = {
        "counted": numbers.counted,
        "css": css,
        "dash": numbers.DASH,
        "listed": numbers.listed,
        "lowest": lowest,
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
