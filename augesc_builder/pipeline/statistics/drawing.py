"""What all figures share: one style, their panels, legends and captions, and curves and bars.

Each figure is drawn on white of its own, so that it is legible on paper and on a dark page alike.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from augesc_builder.run.escape import for_svg

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's, which people with any colour vision tell apart."""

INK, FAINT = "#222222", "#b0b0b0"
_LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_MARKS = ("o", "s", "^", "D", "v", "P")

STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    "svg.hashsalt": "augesc",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "legend.frameon": False,
    "text.parse_math": False,
}

_TAIL = 0.99
"""The share of a histogram that is shown: a few giants would press the rest to the wall."""

_BINS = 20

_MARGIN = 0.15
"""Inches around what is drawn."""


def label(text: str) -> str:
    """Return a text of somebody else's as figures may hold it: the one door for names and words."""
    line = for_svg(text) or "?"
    return f" {line}" if line.startswith("_") else line  # matplotlib hides what begins with it


def save(figures: Callable[[], Iterable[tuple[str, Figure]]], folder: Path) -> None:
    """Draw named figures in our style into ``folder``, each as PNG and SVG."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A word may have letters that the font lacks; a box in their place is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        for name, figure in figures():
            # Laid out once, for both files: of each, that takes most of the time.
            if layout := figure.get_layout_engine():
                layout.execute(figure)
            box = figure.get_tightbbox().padded(_MARGIN)
            figure.set_layout_engine(None)
            figure.savefig(folder / f"{name}.png", bbox_inches=box)
            figure.savefig(folder / f"{name}.svg", bbox_inches=box, metadata={"Date": None})


def panels(
    rows: int,
    columns: int,
    *,
    width: float,
    height: float,
    sharex: bool = False,
    sharey: Literal["none", "row", "all"] = "none",
) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels of so many inches; give its axes row by row."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, list(axes.flat)


def color(i: int) -> str:
    """Return the colour of set ``i``."""
    return COLORS[i % len(COLORS)]


def look(i: int) -> dict[str, Any]:
    """Return how the line of set ``i`` is drawn."""
    return {"color": color(i), "linestyle": _LINES[i % len(_LINES)], "linewidth": 1.6}


def legend(figure: Figure, ax: Axes) -> None:
    """Name the sets below all panels, where there are several."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        widest = max(map(len, labels))
        fit = max(1, int(13 * figure.get_figwidth() / (widest + 6)))
        rows = -(-len(labels) // min(fit, 5, len(labels)))
        figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // rows))


def caption(figure: Figure, text: str) -> None:
    """Say below all panels how a figure is read, in lines no wider than it."""
    lines = textwrap.wrap(text, int(15 * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), fontsize=8, x=0.01, ha="left")


def distribution(
    ax: Axes, histograms: Mapping[str, Sequence[Sequence[int]]], *, most: int = _BINS
) -> None:
    """Draw the histogram of each set, in per cent, as a curve with a mark for each bin.

    Bins are the same for all sets, one value wide where that makes no more than ``most`` of them. A
    single set is drawn as bars.
    """
    reach = max((_reach(histogram) for histogram in histograms.values()), default=1)
    width = max(1, -(-(reach + 1) // most))
    n_bins = reach // width + 1
    for i, (name, histogram) in enumerate(histograms.items()):
        total = sum(n for _, n in histogram)
        bins = [0] * n_bins
        for value, n in histogram:
            if value // width < n_bins:
                bins[value // width] += n
        shares = [100 * n / total if total else 0.0 for n in bins]
        middles = [(i + 0.5) * width - 0.5 for i in range(n_bins)]
        if len(histograms) == 1:
            ax.bar(middles, shares, 0.9 * width, color=color(0), label=label(name))
        else:
            mark = _MARKS[i % len(_MARKS)]
            ax.plot(middles, shares, label=label(name), marker=mark, markersize=3, **look(i))
    ax.set_xlim(-0.5, n_bins * width - 0.5)


def _reach(histogram: Sequence[Sequence[int]]) -> int:
    total = sum(n for _, n in histogram)
    for (value, _), seen in zip(histogram, accumulate(n for _, n in histogram), strict=True):
        if seen >= _TAIL * total:
            return value
    return 1


def bars(ax: Axes, groups: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> None:
    """Draw groups of bars to the right, one bar a set, each with its share beside it."""
    height = 0.8 / max(1, len(values))
    for i, (name, shares) in enumerate(values.items()):
        places = [g + (i - (len(values) - 1) / 2) * height for g in range(len(groups))]
        lengths = [share or 0 for share in shares]
        drawn = ax.barh(places, lengths, height * 0.9, color=color(i), label=label(name))
        labels = ["-" if share is None else _per_cent(share) for share in shares]
        ax.bar_label(drawn, labels, fontsize=7, padding=2)
    ax.set_yticks(range(len(groups)), groups)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))  # "0.025%" beside "0.050%" has room
    top = max((share or 0 for shares in values.values() for share in shares), default=0)
    ax.set_xlim(0, 1.15 * top or 1)
    ax.set_ylim(len(groups) - 0.5, -0.5)


def _per_cent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 10 or not percent else f"{percent:.2g}%"  # noqa: PLR2004
