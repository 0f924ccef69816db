"""Charts as inline SVG: drawn by matplotlib, coloured by the page's own style sheet, in the page's own font."""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours that no chart uses for themselves: each is replaced by the custom property of the style sheet,
# so that a chart follows the light and the dark theme.
_INKS: Mapping[str, str] = {
    "ink": "#010203",
    "muted": "#010204",
    "line": "#010205",
    "kept": "#010206",
    "removed": "#010207",
    "added": "#010208",
    "accent": "#010209",
    "paper": "#01020a",
}
# Any: matplotlib types these as literals of every key that it knows.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "wsi-pipeline",
    "font.family": "DejaVu Sans",
    "font.size": 12.0,
    "text.parse_math": False,
    "text.color": _INKS["ink"],
    "axes.edgecolor": _INKS["line"],
    "axes.labelcolor": _INKS["muted"],
    "axes.titlecolor": _INKS["ink"],
    "axes.titlesize": 12.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "grid.color": _INKS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": _INKS["line"],
    "xtick.labelcolor": _INKS["muted"],
    "xtick.major.size": 0.0,
    "xtick.major.pad": 7.0,
    "ytick.major.size": 0.0,
    "ytick.labelcolor": _INKS["ink"],
    "figure.facecolor": "none",
    "hatch.linewidth": 1.0,
    "hatch.color": _INKS["removed"],
}
_POINTS_PER_INCH = 72
_WIDTH = 1000  # points; the page scales the drawing to its column


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a chart: `label`, and one value for each series; None leaves a gap."""

    label: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class SlideRow:
    """One slide in the chart of slides; areas in mm², time in minutes; None leaves a gap."""

    label: str
    removed: float | None
    added: float | None
    dice: float | None
    surface_dice: float | None
    minutes: float | None


def changes_chart(rows: Sequence[Row], colors: Sequence[str], *, title: str, description: str) -> Markup:
    """Horizontal bars with their count written at the end; `colors` are names of inks, one for each row."""
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _figure(len(rows), panels=(1,), left=0.17, titled=False)
        counts = [row.values[0] or 0 for row in rows]
        axes.barh(range(len(rows)), counts, height=0.62, color=[_INKS[c] for c in colors])
        for y, count in enumerate(counts):
            axes.annotate(f"{count:,.0f}".replace(",", "\u202f"), (count, y), (5, 0), **_BESIDE)
        _rows(axes, [row.label for row in rows])
        axes.set_xlim(0, max([*counts, 1]) * 1.06)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        return _svg(figure, title, description)


def slides_chart(rows: Sequence[SlideRow], *, title: str, description: str) -> Markup:
    """A line for each slide: area removed and added, agreement, and, where any is known, active time."""
    timed = any(row.minutes is not None for row in rows)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(len(rows), panels=(5, 4, 2.4) if timed else (5, 4), left=0.17)
        _rows(axes[0], [row.label for row in rows])
        _changed_areas(axes[0], rows)
        _agreement(axes[1], rows)
        if timed:
            axes[2].set_title("Active time, min")
            axes[2].barh(range(len(rows)), [r.minutes or 0 for r in rows], height=0.5, color=_INKS["accent"])
            axes[2].xaxis.set_major_locator(MaxNLocator(nbins=4))
        return _svg(figure, title, description)


def dumbbell_chart(rows: Sequence[Row], names: tuple[str, str], *, axis: str, title: str, description: str) -> Markup:
    """Two values for each row, joined by a line: the old as a ring, the new as a dot."""
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _figure(len(rows), panels=(1,), left=0.17)
        _rows(axes, [row.label for row in rows])
        axes.set_title(axis)
        for y, row in enumerate(rows):
            old, new = row.values
            if old is not None and new is not None:
                better = "added" if new >= old else "removed"
                axes.plot([old, new], [y, y], color=_INKS[better], linewidth=2, zorder=2, solid_capstyle="round")
        _dots(axes, [row.values[0] for row in rows], "muted", filled=False, label=names[0])
        _dots(axes, [row.values[1] for row in rows], "ink", filled=True, label=names[1])
        _legend(axes)
        return _svg(figure, title, description)


@dataclass(frozen=True, slots=True)
class Panel:
    """One small chart of several: points (x, y) as dots, joined where nothing is missing between them."""

    title: str
    points: tuple[tuple[float, float | None], ...]
    highest: float | None = None


def trend_chart(labels: Sequence[str], panels: Sequence[Panel], *, title: str, description: str) -> Markup:
    """Small charts side by side over the same steps of time, named by `labels`; every scale begins at zero."""
    with mpl.rc_context({**_STYLE, "axes.grid.axis": "y", "axes.spines.bottom": True}):
        figure, axes = _panels(len(panels), height=200)
        for ax, panel in zip(axes, panels, strict=True):
            ax.set_title(panel.title)
            ax.plot(
                [x for x, _ in panel.points],
                [math.nan if y is None else y for _, y in panel.points],
                color=_INKS["accent"],
                linewidth=1.6,
                marker="o",
                markersize=4.5,
                clip_on=False,
            )
            top = max([y for _, y in panel.points if y is not None], default=1.0)
            ax.set_ylim(0, panel.highest or (1.12 * top if top > 0 else 1.0))
            ax.set_xlim(-0.4, max(len(labels) - 0.6, 0.6))
            shown = range(0, len(labels), max(1, math.ceil(len(labels) / 6)))
            ax.set_xticks(list(shown), [labels[i] for i in shown])
            ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
        return _svg(figure, title, description)


def curves_chart(
    panels: Sequence[tuple[Panel, Panel | None]], axes_names: tuple[str, str], *, title: str, description: str
) -> Markup:
    """Curves over 0 to 1, each with a thin line to compare with (the diagonal where none is given)."""
    with mpl.rc_context({**_STYLE, "axes.grid.axis": "both", "axes.spines.bottom": True}):
        figure, axes = _panels(len(panels), height=300)
        for ax, (panel, beside) in zip(axes, panels, strict=True):
            ax.set_title(panel.title)
            line = ((0.0, 0.0), (1.0, 1.0)) if beside is None else beside.points
            ax.plot([x for x, _ in line], [y or 0.0 for _, y in line], color=_INKS["muted"], linewidth=1, dashes=(4, 3))
            known = [(x, y) for x, y in panel.points if y is not None]
            marker = "o" if len(known) <= 25 else None
            x, y = [x for x, _ in known], [y for _, y in known]
            ax.plot(x, y, color=_INKS["accent"], linewidth=1.6, marker=marker, markersize=4.5, clip_on=False)
            ax.set_xlim(0, 1)
            top = max([y for _, y in (*panel.points, *line) if y is not None], default=1.0)
            ax.set_ylim(0, panel.highest or 1.08 * top or 1.0)
            ax.set_xlabel(axes_names[0])
        axes[0].set_ylabel(axes_names[1])
        return _svg(figure, title, description)


def _panels(number: int, *, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH), dpi=_POINTS_PER_INCH)
    FigureCanvasSVG(figure)
    columns = max(number, 3)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for empty in axes[number:]:
        empty.set_visible(False)
    figure.subplots_adjust(left=0.06, right=0.985, top=1 - 34 / height, bottom=48 / height, wspace=0.2)
    return figure, list(axes[:number])


_BESIDE: Mapping[str, Any] = {
    "textcoords": "offset points",
    "va": "center_baseline",
    "ha": "left",
    "color": _INKS["ink"],
    "fontsize": 12.0,
}


def _figure(rows: int, *, panels: Sequence[float], left: float, titled: bool = True) -> tuple[Figure, list[Axes]]:
    head = 32 if titled else 6
    height = head + 36 + 25 * max(rows, 1)
    figure = Figure(figsize=(_WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH), dpi=_POINTS_PER_INCH)
    FigureCanvasSVG(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=panels)[0]
    figure.subplots_adjust(left=left, right=0.985, top=1 - head / height, bottom=32 / height, wspace=0.07)
    return figure, list(axes)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), [shortened(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)


def _changed_areas(axes: Axes, rows: Sequence[SlideRow]) -> None:
    y = range(len(rows))
    removed = [-(row.removed or 0) for row in rows]
    added = [row.added or 0 for row in rows]
    axes.set_title("Area removed and added, mm²")
    axes.barh(y, removed, height=0.62, color="none", edgecolor=_INKS["removed"], hatch="////", linewidth=0.9)
    axes.barh(y, added, height=0.62, color=_INKS["added"])
    axes.axvline(0, color=_INKS["muted"], linewidth=0.8)
    reach = max([*added, *(-v for v in removed), 1e-6])
    low, high = (-1.04 * max(-v for v in removed), 1.04 * max(added)) if rows else (-reach, reach)
    axes.set_xlim(min(low, -0.04 * reach), max(high, 0.04 * reach))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
    low, high = axes.get_xlim()
    ticks = [round(float(tick), 9) for tick in axes.get_xticks() if low <= tick <= high]
    places = max(len(f"{abs(tick):.9f}".rstrip("0").split(".")[1]) for tick in ticks)
    axes.set_xticks(ticks, [f"{abs(tick):.{places}f}" if tick else "0" for tick in ticks])


def _agreement(axes: Axes, rows: Sequence[SlideRow]) -> None:
    axes.set_title("Dice (dot) and surface Dice (ring)")
    for y, row in enumerate(rows):
        if row.dice is not None and row.surface_dice is not None:
            axes.plot([row.dice, row.surface_dice], [y, y], color=_INKS["line"], linewidth=1.2, zorder=1)
    _dots(axes, [row.surface_dice for row in rows], "accent", filled=False, label="surface Dice")
    _dots(axes, [row.dice for row in rows], "accent", filled=True, label="Dice")
    axes.set_xlim(-0.02, 1.02)


def _dots(axes: Axes, values: Sequence[float | None], ink: str, *, filled: bool, label: str) -> None:
    points = [(value, y) for y, value in enumerate(values) if value is not None]
    axes.scatter(
        [x for x, _ in points],
        [y for _, y in points],
        s=34,
        facecolor=_INKS[ink] if filled else _INKS["paper"],
        edgecolor=_INKS[ink],
        linewidth=1.4,
        zorder=3,
        label=label,
        clip_on=False,
    )


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=12, borderaxespad=0)


def shortened(label: str, length: int = 26) -> str:
    """A long name cut in the middle, where slide names differ least."""
    if len(label) <= length:
        return label
    head = (length - 1) // 2
    return f"{label[:head]}…{label[-(length - 1 - head) :]}"


def _svg(figure: Figure, title: str, description: str) -> Markup:
    """The drawing as an `<svg>` element with a name and a description, and without ids that repeat in the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    body = drawing[drawing.index(">") + 1 :]
    box = re.search(r'viewBox="([^"]+)"', drawing)
    body = _own_ids(re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL), zlib.crc32(title.encode()))
    for ink, color in _INKS.items():
        body = body.replace(color, f"var(--{ink})")
    # matplotlib's style sheet would reach the whole page, and its font is not the page's.
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]+; ?", "", body)
    body = re.sub(r"\s*\n\s*", "\n", body).replace("xlink:href", "href")
    head = f'<svg class="chart" role="img" viewBox="{box.group(1) if box else ""}" preserveAspectRatio="xMinYMin">'
    return Markup(f"{head}<title>{escape(title)}</title><desc>{escape(description)}</desc>{body}")  # noqa: S704


def _own_ids(body: str, chart: int) -> str:
    """Ids that something refers to, made the chart's own; the others are dropped."""
    referred = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: m.group() if m.group(1) in referred else "", body)
    return re.sub(r'((?:url\(#|href="#| id="))', rf"\g<1>c{chart:08x}-", body)
