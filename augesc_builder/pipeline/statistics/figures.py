"""Figures of statistics.json, in one style, as PNG and SVG (Figures 3 to 5, Table 2's histograms).

Each is drawn on white of its own, so that it is legible on paper and on a dark page alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's, which people with any colour vision tell apart."""

_INK, _FAINT = "#222222", "#b0b0b0"
_LINES = ("-", "--", "-.", ":")

_STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    "svg.hashsalt": "augesc",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "legend.frameon": False,
    "text.parse_math": False,
}

_SHOWN_TOPICS = 10
_TAIL = 0.995
"""The share of a histogram that is shown: a few giants would press the rest to the wall."""

Columns = Mapping[str, Mapping[str, Any]]


def draw(statistics: Mapping[str, Any], folder: Path) -> None:
    """Draw every figure that there are numbers for into ``folder``."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A word may have letters that the font lacks; a box in their place is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        for name, figure in _figures(statistics):
            figure.savefig(folder / f"{name}.png", bbox_inches="tight", pad_inches=0.15)
            figure.savefig(
                folder / f"{name}.svg",
                bbox_inches="tight",
                pad_inches=0.15,
                metadata={"Date": None},
            )


def _figures(statistics: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    columns = {n: part for n, part in statistics["by_source"].items() if part["sessions"]}
    if not columns:
        return
    yield "session_statistics", _session_statistics(columns)
    drawn: dict[str, Callable[[Columns], Figure]] = {
        "lexical_diversity": _lexical_diversity,
        "query_effect": _query_effect,
        "duplication": _duplication,
        "novelty": _novelty,
    }
    for name, make in drawn.items():
        there = {n: part[name] for n, part in columns.items() if name in part}
        if there:
            yield name, make(there)
    topics = statistics.get("topic_correlates")
    if topics:
        yield "topic_correlates", _topic_correlates(topics)


def _session_statistics(columns: Columns) -> Figure:
    figure, axes = _panels(1, 3, width=3.1, height=2.5)
    panels: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Any]], ...] = (
        ("Utterances a session", "% of sessions", lambda part: part["session_utterances"]),
        ("Words a seeker's utterance", "% of utterances", lambda p: p["seeker"]["utterance_words"]),
        (
            "Words a supporter's utterance",
            "% of utterances",
            lambda p: p["supporter"]["utterance_words"],
        ),
    )
    for ax, (title, unit, histogram_of) in zip(axes, panels, strict=True):
        width = max((_width(histogram_of(part)) for part in columns.values()), default=1)
        for i, (name, part) in enumerate(columns.items()):
            _histogram(ax, histogram_of(part), width, label=name, **_look(i))
        ax.set(title=title, ylabel=unit)
        ax.set_ylim(bottom=0)
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _legend(figure, axes[0])
    return figure


def _width(histogram: Sequence[Sequence[int]]) -> int:
    """Return a bin width that makes some twenty bins of all but the longest tail."""
    return max(1, -(-_reach(histogram) // 20))


def _reach(histogram: Sequence[Sequence[int]]) -> int:
    total = sum(n for _, n in histogram)
    for (value, _), seen in zip(histogram, accumulate(n for _, n in histogram), strict=True):
        if seen >= _TAIL * total:
            return value
    return 1


def _histogram(ax: Axes, histogram: Sequence[Sequence[int]], width: int, **look: Any) -> None:
    total = sum(n for _, n in histogram)
    bins: dict[int, int] = {}
    for value, n in histogram:
        bins[value // width] = bins.get(value // width, 0) + n
    last = _reach(histogram) // width
    shares = [100 * bins.get(i, 0) / total if total else 0 for i in range(last + 1)]
    ax.stairs(shares, [i * width for i in range(last + 2)], linewidth=1.6, **look)


def _lexical_diversity(columns: Columns) -> Figure:
    figure, (growth, distinct) = _panels(1, 2, width=4.2, height=2.8)
    for i, (name, part) in enumerate(columns.items()):
        points = [[0, 0], *part["bigram_growth"]]
        growth.plot(*zip(*points, strict=True), linewidth=1.8, label=name, **_look(i))
    growth.set(title="Unique bigrams", xlabel="sessions")
    for axis in (growth.xaxis, growth.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    growth.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    growth.set_ylim(bottom=0)
    growth.set_xlim(left=0)
    groups = ["distinct-1", "distinct-2", "distinct-3"]
    keys = [group.replace("-", "_") for group in groups]
    values = {name: [part[key] for key in keys] for name, part in columns.items()}
    _bars(distinct, groups, values)
    distinct.set_title("Distinct n-grams by all n-grams")
    _legend(figure, growth)
    return figure


def _query_effect(columns: Columns) -> Figure:
    figure, axes = _panels(1, len(columns), width=3.1, height=2.6, sharey=True)
    for i, (ax, (name, part)) in enumerate(zip(axes, columns.items(), strict=True)):
        bins = [b for b in part["bins"] if b["sessions"] > 1] or part["bins"]
        middle = [(b["from"] + b["to"]) / 2 for b in bins]
        average = [b["mean"] for b in bins]
        spread = [b["sd"] or 0 for b in bins]
        color = COLORS[i % len(COLORS)]
        low = [a - s for a, s in zip(average, spread, strict=True)]
        high = [a + s for a, s in zip(average, spread, strict=True)]
        ax.fill_between(middle, low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(middle, average, color=color, marker="o", markersize=3.5, linewidth=1.6)
        if part["mean_utterance_words"] is not None:
            ax.axhline(part["mean_utterance_words"], color=_INK, linestyle="--", linewidth=1)
        r = part["correlation"]
        ax.set_title(name if r is None else f"{name}  (r = {r:.2f})")
        ax.set_xlabel("words of the query")
        ax.set_ylim(bottom=0)
    axes[0].set_ylabel("mean words an utterance")
    figure.text(
        0.01,
        -0.04,
        "Mean and standard deviation of sessions by query length; dashed: mean of all sessions.",
        fontsize=8,
    )
    return figure


def _duplication(columns: Columns) -> Figure:
    figure, (ax,) = _panels(1, 1, width=6, height=2.6)
    groups = {
        "duplicate_share": "duplicate sessions",
        "near_duplicate_share": "near-duplicate sessions",
        "repetition_share": "sessions with a\nrepeated utterance",
        "repeated_share": "repeated utterances",
    }
    shown = {k: v for k, v in groups.items() if any(p[k] is not None for p in columns.values())}
    _bars(ax, list(shown.values()), {n: [p[k] for k in shown] for n, p in columns.items()})
    ax.set_title("Said twice")
    _legend(figure, ax)
    return figure


def _novelty(columns: Columns) -> Figure:
    figure, (shares, spans) = _panels(1, 2, width=4.2, height=2.8)
    n = max(part["n"] for part in columns.values())
    _bars(shares, [f"{n}-grams"], {name: [p["memorized_share"]] for name, p in columns.items()})
    shares.set_title("Recited from the fine-tuning sessions")
    for i, (name, part) in enumerate(columns.items()):
        histogram = part["longest_by_session"]
        total = sum(count for _, count in histogram)
        lengths = [length for length, _ in histogram]
        above = [1 - a / total for a in accumulate(count for _, count in histogram)]
        spans.step([0, *lengths], [1, 1, *above[:-1]], where="pre", label=name, **_look(i))
    spans.set(title="Sessions with a memorized span this long", xlabel="words", ylim=(0, 1.02))
    spans.yaxis.set_major_formatter(PercentFormatter(1))
    spans.set_xlim(left=0)
    _legend(figure, spans)
    return figure


def _topic_correlates(topics: Mapping[str, Mapping[str, Sequence[Sequence[Any]]]]) -> Figure:
    roles = ("seeker", "supporter")
    figure, axes = _panels(len(topics), 2, width=3.6, height=2.3)
    highest = max(
        (z for part in topics.values() for role in roles for _, z in part[role]), default=1
    )
    for i, (name, by_role) in enumerate(topics.items()):
        for j, role in enumerate(roles):
            ax = axes[2 * i + j]
            words = list(by_role[role][:_SHOWN_TOPICS])[::-1]
            places = range(len(words))
            ax.barh(places, [z for _, z in words], color=COLORS[i % len(COLORS)], height=0.7)
            ax.set_yticks(list(places), [word for word, _ in words])
            ax.tick_params(axis="y", length=0)
            ax.grid(visible=False, axis="y")
            ax.set_title(f"{name}: {role}")
            ax.set_xlim(0, 1.05 * highest)
            if not words:
                ax.text(0.5, 0.5, "no word", transform=ax.transAxes, ha="center")
    for ax in axes[-2:]:
        ax.set_xlabel("z of the log odds ratio")
    return figure


def _bars(ax: Axes, groups: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> None:
    """Draw groups of upright bars, one bar a column, each with its share above it."""
    width = 0.8 / max(1, len(values))
    for i, (name, shares) in enumerate(values.items()):
        places = [g + (i - (len(values) - 1) / 2) * width for g in range(len(groups))]
        heights = [share or 0 for share in shares]
        bars = ax.bar(places, heights, width * 0.92, color=COLORS[i % len(COLORS)], label=name)
        labels = ["-" if share is None else f"{100 * share:.2g}%" for share in shares]
        ax.bar_label(bars, labels, fontsize=7, padding=1)
    ax.set_xticks(range(len(groups)), groups)
    ax.tick_params(axis="x", length=0)
    ax.grid(visible=False, axis="x")
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    top = max((share or 0 for shares in values.values() for share in shares), default=0)
    ax.set_ylim(0, 1.15 * top or 1)
    ax.set_xlim(-0.6, len(groups) - 0.4)


def _panels(
    rows: int, columns: int, *, width: float, height: float, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, list(axes.flat)


def _look(i: int) -> dict[str, Any]:
    return {"color": COLORS[i % len(COLORS)], "linestyle": _LINES[i % len(_LINES)]}


def _legend(figure: Figure, ax: Axes) -> None:
    """Name the columns below all panels, where there are several."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
