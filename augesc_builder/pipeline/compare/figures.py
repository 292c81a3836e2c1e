"""Figures of a comparison: shares with intervals and differences, lengths, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from augesc_builder.pipeline.compare.report import FOR_EACH, FORMS
from augesc_builder.pipeline.statistics.drawing import (
    INK,
    color,
    label,
    legend,
    panels,
    save,
)
from augesc_builder.pipeline.statistics.figures import session_statistics

_KEPT = ("duplicate_share", "repetition_share", "repeated_share", "memorized_share")
_DISTINCT = ("distinct_1", "distinct_2", "distinct_3")


def draw(found: Mapping[str, Any], folder: Path) -> None:
    """Draw every figure that there are numbers for into ``folder``, as PNG and SVG."""
    save(lambda: _figures(found), folder)


def _figures(found: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    labels = {key: ratio["label"] for key, ratio in found["compared"].items()}
    labels |= {key: key.replace("_", "-") for key in _DISTINCT}
    texts = [key for key in labels if key.startswith("violations.")]
    yield "filtering", _shares(found, {key: labels[key] for key in [*texts, "retention"]})
    flags = [key for key in labels if key.startswith("flags.")]
    sessions = [*_KEPT, "flagged_share", *flags, *_DISTINCT]
    known = {key: labels[key] for key in sessions if _is_known(found, key)}
    if known:
        yield "sessions", _shares(found, known)
    columns = {n: run["table_2"] for n, run in found["runs"].items() if run["table_2"]["sessions"]}
    if columns:
        yield "session_statistics", session_statistics(columns)
        yield "cost", _cost(found)


def _is_known(found: Mapping[str, Any], key: str) -> bool:
    return any(run["numbers"][key]["value"] is not None for run in found["runs"].values())


def _shares(found: Mapping[str, Any], rows: Mapping[str, str]) -> Figure:
    """Draw shares of every run beside each other, and beside them the differences."""
    runs, reference = found["runs"], found["reference"]
    height = 1.4 + len(rows) * (0.14 + 0.12 * len(runs))
    figure, (values, differences) = panels(1, 2, width=4.4, height=height, sharey="row")
    for i, (name, run) in enumerate(runs.items()):
        offset = 0.7 * ((i + 0.5) / len(runs) - 0.5)
        places = [row + offset for row in range(len(rows))]
        _intervals(values, places, [run["numbers"][key] for key in rows], i, label(name))
        if name != reference:
            less = [run["differences"][key] for key in rows]
            _intervals(differences, places, less, i, label(name))
    differences.axvline(0, color=INK, linewidth=0.8)
    values.set_yticks(range(len(rows)), [label(text) for text in rows.values()])
    values.set_ylim(len(rows) - 0.5, -0.5)
    values.set_xlim(left=0)
    values.set_xlabel("%")
    differences.set_xlabel("percentage points")
    for ax in (values, differences):
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6))
    values.set_title("Share, with its 95% interval")
    differences.set_title(f"Less that of {label(reference).strip()}")
    legend(figure, values)
    return figure


def _intervals(
    ax: Axes, places: Sequence[float], estimates: Sequence[Mapping[str, Any]], i: int, name: str
) -> None:
    """Draw numbers as points in per cent, their intervals as lines."""
    ink = color(i)
    named: str | None = name
    for place, estimate in zip(places, estimates, strict=True):
        if estimate["value"] is None:
            continue
        if estimate["low"] is not None:
            ends = 100 * estimate["low"], 100 * estimate["high"]
            ax.plot(ends, (place, place), color=ink, linewidth=1.6)
        ax.plot(100 * estimate["value"], place, "o", color=ink, markersize=4, label=named)
        named = None
    if named is not None:  # nothing of it is known: it is named all the same
        ax.plot([], [], "o", color=ink, markersize=4, label=named)


def _cost(found: Mapping[str, Any]) -> Figure:
    """Draw what each kept session takes, a panel for each thing that any run tells."""
    runs = {name: run for name, run in found["runs"].items() if run["kept"]}
    things = {unit: [of(run) for run in runs.values()] for unit, of in FOR_EACH.items()}
    known = {unit: values for unit, values in things.items() if set(values) != {None}}
    height = 1.0 + 0.35 * len(runs)
    figure, axes = panels(1, len(known), width=2.6, height=height, sharey="row")
    for ax, (unit, values) in zip(axes, known.items(), strict=True):
        drawn = ax.barh(range(len(runs)), [v or 0 for v in values], 0.7)
        for i, bar in enumerate(drawn):
            bar.set_color(color(list(found["runs"]).index(list(runs)[i])))
        said = ["not known" if v is None else format(v, FORMS[unit]) for v in values]
        ax.bar_label(drawn, said, fontsize=7, padding=2)
        ax.set_xlabel(unit)
        ax.set_xlim(0, 1.3 * max(v or 0 for v in values) or 1)
        ax.set_yticks(range(len(runs)), [label(name) for name in runs])
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes[0].set_ylim(len(runs) - 0.5, -0.5)
    axes[0].set_title("For each kept session")
    return figure
