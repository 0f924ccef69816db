"""Where the command line speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

# Wide where no terminal says otherwise: a table in a pipe or a log must not be folded.
WIDE = 240
# No emoji: rich would make a picture of `mymodel:factory:`.
stdout = Console(soft_wrap=True, emoji=False, width=None if sys.stdout.isatty() else WIDE)
stderr = Console(stderr=True, soft_wrap=True, emoji=False, width=None if sys.stderr.isatty() else WIDE)


def set_up_logging(*, verbose: bool) -> None:
    """Warnings and progress to standard error: coloured on a terminal, plain lines with times elsewhere."""
    level = logging.DEBUG if verbose else logging.INFO
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=stderr, show_path=False, show_time=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("wsi_pipeline")
    for old in root.handlers:
        old.close()
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False


class _WithoutPaths(logging.Formatter):
    """Lines that do not say where on this machine things lie."""

    def format(self, record: logging.LogRecord) -> str:
        from wsi_pipeline.keys import without_paths

        return without_paths(super().format(record))


def log_to(folder: Path, *, private: bool = False) -> None:
    """Also append to `folder`/wsi-pipeline.log: what happened when. Asked for twice, each line is kept once.

    With `private` the folders of absolute paths are left out.
    """
    path = (folder / "wsi-pipeline.log").absolute()
    root = logging.getLogger("wsi_pipeline")
    if any(isinstance(known, logging.FileHandler) and known.baseFilename == str(path) for known in root.handlers):
        return
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    kind = _WithoutPaths if private else logging.Formatter
    handler.setFormatter(kind("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root.addHandler(handler)


def print_json(value: Any) -> None:
    """One JSON document on standard output, for programs."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    sys.stdout.write(orjson.dumps(value, option=options).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> None:
    """A table for people; None is shown as a dash, `right` names columns of numbers."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    numbers = set(right)
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*("–" if cell is None else escape(str(cell)) for cell in row))
    if stdout.is_terminal:
        stdout.print(table)
        return
    # In a file or a pipe nothing is gained by blanks up to the longest line.
    with stdout.capture() as captured:
        stdout.print(table)
    stdout.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def say(text: str) -> None:
    """A line for people, on standard output."""
    stdout.print(text, markup=False, highlight=False)


def complain(text: str) -> None:
    """An error, on standard error."""
    stderr.print(f"[bold red]error[/] {escape(text)}", highlight=False)
