"""Figures of statistics.json, as PNG and SVG (Figures 3 to 5, the distributions of Table 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from augesc_builder.pipeline.statistics.drawing import (
    bars,
    caption,
    color,
    distribution,
    label,
    legend,
    look,
    panels,
    save,
)
from augesc_builder.pipeline.statistics.report import topics_text

_SHOWN_TOPICS = 10
_ROLES = ("seeker", "supporter")
_A_ROW = 3
"""Panels in a row of Figure 3."""
_FEW = 10
"""Sessions below which the mean of a bin says little."""

Columns = Mapping[str, Mapping[str, Any]]


def draw(statistics: Mapping[str, Any], folder: Path) -> None:
    """Draw every figure that there are numbers for into ``folder``."""
    save(lambda: _figures(statistics), folder)


def _figures(statistics: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    sets = {**statistics["by_source"], **statistics["beside"]}
    columns = {name: part for name, part in sets.items() if part["sessions"]}
    settings = statistics["settings"]
    if columns:
        yield "session_statistics", session_statistics(columns)
    drawn: dict[str, Callable[[Columns], Figure]] = {
        "lexical_diversity": _lexical_diversity,
        "query_effect": lambda there: _query_effect(there, settings),
        "duplication": _duplication,
        "novelty": _novelty,
    }
    for name, make in drawn.items():
        # Where nothing was kept, there were conversations before filtering all the same.
        of = sets if name == "query_effect" else columns
        there = {n: part[name] for n, part in of.items() if name in part}
        there = {n: part for n, part in there.items() if part.get("sessions", 1)}
        if there:
            yield name, make(there)
    if statistics["topic_correlates"]:
        how = topics_text(statistics)
        yield "topic_correlates", _topic_correlates(statistics["topic_correlates"], how)


def session_statistics(columns: Columns) -> Figure:
    """Draw the distributions of Table 2: above, utterances a session; below, their lengths."""
    figure, axes = panels(2, 2, width=3.9, height=2.3, sharey="row")
    rows = (
        ("session_utterances", "{}'s utterances in a session", "% of sessions"),
        ("utterance_words", "words of a {}'s utterance", "% of utterances"),
    )
    for i, (key, unit, share) in enumerate(rows):
        for j, role in enumerate(_ROLES):
            ax = axes[2 * i + j]
            distribution(ax, {name: part[role][key] for name, part in columns.items()})
            ax.set(xlabel=unit.format(role), ylabel="" if j else share)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    for ax in axes:
        ax.set_ylim(bottom=0)  # when all is drawn: it ends the axis' growth
    for ax, role in zip(axes, _ROLES, strict=False):
        ax.set_title(role.capitalize())
    legend(figure, axes[0])
    return figure


def _lexical_diversity(columns: Columns) -> Figure:
    figure, (growth, distinct) = panels(1, 2, width=4.2, height=2.8 + 0.12 * len(columns))
    for i, (name, part) in enumerate(columns.items()):
        points = [[0, 0], *part["bigram_growth"]]
        growth.plot(*zip(*points, strict=True), label=label(name), **look(i))
        growth.plot(*points[-1], "o", color=color(i), markersize=4)  # a small set ends in a corner
    growth.set(title="Unique bigrams", xlabel="sessions")
    for axis in (growth.xaxis, growth.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    growth.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    growth.set_ylim(bottom=0)
    growth.set_xlim(left=0)
    orders = (1, 2, 3)
    values = {name: [part[f"distinct_{n}"] for n in orders] for name, part in columns.items()}
    bars(distinct, [f"distinct-{n}" for n in orders], values)
    distinct.set_title("Distinct n-grams by all n-grams")
    legend(figure, growth)
    return figure


def _query_effect(columns: Columns, settings: Mapping[str, Any]) -> Figure:
    """Draw Figure 3, a panel a set, all on the same axes so that they can be compared."""
    across = min(_A_ROW, len(columns))
    with_query = bool(settings.get("count_query"))
    whose = "with the query" if with_query else "behind it"
    rows, width = -(-len(columns) // across), 5.2 if across == 1 else 3.4
    figure, axes = panels(rows, across, width=width, height=2.6, sharex=True, sharey="all")
    for i, (ax, (name, part)) in enumerate(zip(axes, columns.items(), strict=False)):
        _by_query_length(ax, part["bins"], color(i))
        ax.axhline(part["mean_utterance_words"], color="#d00000", linestyle="--", linewidth=1)
        ax.set_title(label(name))
        ax.tick_params(labelbottom=True)
        r = "" if part["correlation"] is None else f", r = {part['correlation']:.2f}"
        ax.set_xlabel(f"words of the query (n = {part['sessions']:,}{r})")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        if i % across == 0:
            ax.set_ylabel(f"words an utterance {whose}")
    for ax in axes[len(columns) :]:
        ax.set_visible(False)
    shown = [b for part in columns.values() for b in part["bins"] if b["sessions"] >= _FEW]
    if shown:  # a few giants would press the rest together
        axes[0].set_xlim(0, max(b["to"] for b in shown) + 1)
        low, high = min(_low(b) for b in shown), max(b["mean"] + b["sd"] for b in shown)
        axes[0].set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    what = "Conversations before any filtering" if settings.get("before_filtering") else "Sessions"
    caption(
        figure,
        f"{what}: mean of their mean utterance lengths ({'with' if with_query else 'without'} the "
        "query), with its standard deviation, by the length of the query "
        f"(hollow: fewer than {_FEW}; some may lie outside); red: the mean of all.",
    )
    return figure


def _by_query_length(ax: Axes, bins: Sequence[Mapping[str, Any]], ink: str) -> None:
    for b in bins:
        few, middle = b["sessions"] < _FEW, (b["from"] + b["to"]) / 2
        if not few:
            ax.vlines(middle, _low(b), b["mean"] + b["sd"], color=ink, alpha=0.3, linewidth=4)
        fill = "white" if few else ink
        ax.plot(middle, b["mean"], "o", color=ink, markerfacecolor=fill, markersize=4)
    many = [b for b in bins if b["sessions"] >= _FEW]
    middles = [(b["from"] + b["to"]) / 2 for b in many]
    ax.plot(middles, [b["mean"] for b in many], color=ink, linewidth=1.6)


def _low(b: Mapping[str, Any]) -> float:
    return float(max(0.0, b["mean"] - b["sd"]))


def _duplication(columns: Columns) -> Figure:
    groups = {
        "duplicate_share": "duplicate sessions",
        "near_duplicate_share": "near-duplicate sessions",
        "repetition_share": "sessions with a\nrepeated utterance",
        "repeated_share": "repeated utterances",
    }
    shown = {k: v for k, v in groups.items() if any(p[k] is not None for p in columns.values())}
    height = 1.0 + len(shown) * (0.35 + 0.13 * len(columns))
    figure, (ax,) = panels(1, 1, width=6, height=height)
    bars(ax, list(shown.values()), {n: [p[k] for k in shown] for n, p in columns.items()})
    ax.set_title("Said twice")
    legend(figure, ax)
    return figure


def _novelty(columns: Columns) -> Figure:
    figure, (shares, spans) = panels(1, 2, width=4.2, height=2.8)
    n = max(part["n"] for part in columns.values())
    bars(shares, [f"{n}-grams"], {name: [p["memorized_share"]] for name, p in columns.items()})
    shares.set_title("Recited from the fine-tuning sessions")
    for i, (name, part) in enumerate(columns.items()):
        histogram = part["longest_by_session"]
        total = sum(count for _, count in histogram)
        lengths = [length for length, _ in histogram]
        above = [1 - a / total for a in accumulate(count for _, count in histogram)]
        spans.step([0, *lengths], [1, 1, *above[:-1]], where="pre", label=label(name), **look(i))
    spans.set(title="Sessions with a memorized span this long", xlabel="words", ylim=(0, 1.02))
    spans.yaxis.set_major_formatter(PercentFormatter(1))
    spans.set_xlim(left=0)
    legend(figure, spans)
    return figure


def _topic_correlates(topics: Mapping[str, Mapping[str, Any]], how: str) -> Figure:
    figure, axes = panels(len(topics), 2, width=3.6, height=2.3)
    highest = max(
        (z for part in topics.values() for role in _ROLES for _, z in part[role]), default=1
    )
    for i, (name, by_role) in enumerate(topics.items()):
        for j, role in enumerate(_ROLES):
            ax = axes[2 * i + j]
            words = list(by_role[role][:_SHOWN_TOPICS])[::-1]
            places = range(len(words))
            drawn = ax.barh(places, [z for _, z in words], color=color(i), height=0.7)
            ax.bar_label(drawn, [f"{z:.1f}" for _, z in words], fontsize=7, padding=2)
            ax.set_yticks(list(places), [label(word) for word, _ in words])
            ax.set_ylim(-0.6 - max(0, _SHOWN_TOPICS - len(words)), len(words) - 0.4)
            ax.tick_params(axis="y", length=0)
            ax.grid(visible=False, axis="y")
            ax.set_title(f"{label(name)}: {role}")
            ax.set_xlim(0, 1.1 * highest)
            ax.tick_params(labelbottom=i == len(topics) - 1)
            if not words:
                ax.text(0.5, 0.5, "no word", transform=ax.transAxes, ha="center")
    caption(figure, f"{how}.")
    return figure
