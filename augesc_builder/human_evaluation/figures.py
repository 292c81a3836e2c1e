"""Figures of human evaluation: ratings and agreement, preferences and win rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from augesc_builder.human_evaluation.pairwise import answered
from augesc_builder.pipeline.statistics.drawing import (
    FAINT,
    INK,
    color,
    label,
    legend,
    panels,
    save,
)

_AGREEMENT = {
    "within_one": "share within one point",
    "alpha_ordinal": "Krippendorff's alpha, ordinal",
}


def draw_quality(found: Mapping[str, Any], folder: Path) -> None:
    """Draw the ratings of a study into ``folder``, as PNG and SVG."""
    save(lambda: [("ratings", _ratings(found))], folder)


def draw_pairwise(found: Mapping[str, Any], folder: Path) -> None:
    """Draw the preferences of a study, every two systems by themselves, as PNG and SVG."""
    save(lambda: _preferences(found), folder)


def _ratings(found: Mapping[str, Any]) -> Figure:
    """Draw the means of every set beside each other, and how far people agreed on them."""
    columns, sets = found["columns"], list(found["sets"])
    height = 1.2 + len(columns) * (0.2 + 0.11 * len(sets))
    figure, (means, agreed) = panels(1, 2, width=4.4, height=height, sharey="row")
    rows = range(len(columns))
    for i, name in enumerate(sets):
        of = [found["means"][name][column["name"]] for column in columns]
        _intervals(means, _beside(rows, i, len(sets)), of, color(i), label(name), "o")
    for i, (key, title) in enumerate(_AGREEMENT.items()):
        of = [found["agreement"][column["name"]][key] for column in columns]
        _intervals(agreed, _beside(rows, i, len(_AGREEMENT)), of, INK, title, "sD"[i])
    titles = [
        f"{c['title']} (less is better)" if c["less_is_better"] else c["title"] for c in columns
    ]
    _rows(means, titles)
    _rows(agreed, titles)
    agreed.set_xlim(right=1.02)
    means.set_xlim(left=min(0.0, means.get_xlim()[0]))
    means.set_xlabel("points")
    means.set_title("Mean rating, with its 95% interval")
    agreed.set_title("Agreement of people")
    agreed.axvline(0, color=FAINT, linewidth=0.8)
    agreed.legend(loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=2, fontsize=8)
    for ax in (means, agreed):
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6))
    legend(figure, means)
    return figure


def _preferences(found: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    pairs = list(answered(found))
    for i, (first, second, outcomes) in enumerate(pairs, 1):
        name = "preferences" if len(pairs) == 1 else f"preferences-{i}"
        titles = [found["questions"][question] for question in outcomes]
        yield name, _preference(first, second, titles, list(outcomes.values()))


def _preference(
    first: str, second: str, titles: Sequence[str], outcomes: Sequence[Mapping[str, Any]]
) -> Figure:
    """Draw wins, ties and losses in per cent, and beside them the win rates."""
    figure, (shares, rates) = panels(1, 2, width=4.4, height=1.3 + 0.34 * len(titles), sharey="row")
    parts = {
        "wins": (f"{label(first).strip()} preferred", color(0), "white"),
        "ties": ("tie", "#dddddd", INK),
        "losses": (f"{label(second).strip()} preferred", color(1), INK),
    }
    left = [0.0] * len(titles)
    for key, (said, fill, ink) in parts.items():
        totals = [max(1, of["wins"] + of["ties"] + of["losses"]) for of in outcomes]
        widths = [100 * of[key] / n for of, n in zip(outcomes, totals, strict=True)]
        bars = shares.barh(range(len(titles)), widths, 0.7, left, color=fill, label=label(said))
        counts = [str(of[key]) if of[key] else "" for of in outcomes]
        shares.bar_label(bars, counts, label_type="center", color=ink, fontsize=8)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    _rows(shares, titles)
    _rows(rates, titles)
    shares.set_xlim(0, 100)
    shares.set_xlabel("% of answers; in the bars: how many")
    places = [float(i) for i in range(len(titles))]
    _intervals(rates, places, [of["rate"] for of in outcomes], INK, "", "o")
    rates.axvline(0.5, color=FAINT, linewidth=1)
    rates.set_xlim(0, 1)
    rates.set_xlabel("share of decided pairs, with its 95% interval")
    shares.set_title("Preferences")
    rates.set_title(f"Win rate of {label(first).strip()}")
    legend(figure, shares)
    return figure


def _beside(rows: Sequence[int], i: int, n: int) -> list[float]:
    """Return where set ``i`` of ``n`` is drawn in each row."""
    return [row + 0.7 * ((i + 0.5) / n - 0.5) for row in rows]


def _intervals(
    ax: Axes,
    places: Sequence[float],
    estimates: Sequence[Mapping[str, Any]],
    ink: str,
    name: str,
    mark: str,
) -> None:
    """Draw numbers as points, their intervals as lines."""
    known = [(y, of) for y, of in zip(places, estimates, strict=True) if of["value"] is not None]
    for y, of in known:
        if of["low"] is not None:
            ax.plot((of["low"], of["high"]), (y, y), color=ink, linewidth=1.6)
    ax.plot(
        [of["value"] for _, of in known],
        [y for y, _ in known],
        linestyle="",
        marker=mark,
        color=ink,
        markersize=4,
        label=name,
    )


def _rows(ax: Axes, titles: Sequence[str]) -> None:
    ax.set_yticks(range(len(titles)), [label(title) for title in titles])
    ax.set_ylim(len(titles) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
