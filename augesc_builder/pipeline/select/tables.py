"""``selection.json`` as a table: what choosing brings, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from augesc_builder.run.markdown import NOTHING, markdown_table


def selection_markdown(report: Mapping[str, Any]) -> str:
    """Write a report as a table and what it says."""
    points = report["cost"]
    names = list(points[0]["numbers"]) if points else []
    weights = report["by"]
    if isinstance(weights, str):  # one number stands for itself
        weights = {weights: 1.0}

    def row(title: str, values: Sequence[float | None]) -> list[str]:
        return [title, *(NOTHING if value is None else f"{value:,.4g}" for value in values)]

    rows = [
        row("sessions kept", [point["sessions"] for point in points]),
        row("tokens for each", [point["tokens"] for point in points]),
        row("sessions compared", [point["compared"] for point in points]),
        *(
            row(
                title_of(name) + _chosen_by(name, weights or {}),
                [point["numbers"][name] for point in points],
            )
            for name in names
        ),
    ]
    header = ["", *(f"best of {point['k']}" for point in points)]
    note = (
        f"{selection_sentence(report)}. Numbers are means over the same queries in every column. "
        f"What the choice goes by is moved by the choice itself; see docs/choosing.md."
    )
    return f"{markdown_table(header, rows)}\n\n{note}"


def selection_sentence(report: Mapping[str, Any]) -> str:
    """Return how many were kept, and why the others were not, without the full stop."""
    reasons = report["not_selected"]
    beyond, n_cut = reasons.get("beyond_keep", 0), report["cut"]["sessions"]
    return (
        f"{report['chosen']:,} sessions are kept of {report['candidates']:,} that met the "
        f"requirements; {reasons.get('score', 0):,} were not the best of their query"
        + (f", {beyond:,} more than were asked for" if beyond else "")
        + (f"; {n_cut:,} end where their topic changed" if n_cut else "")
    )


def _chosen_by(name: str, weights: Mapping[str, float]) -> str:
    """Return what stands behind the name of a number that the choice goes by."""
    if name not in weights:
        return ""
    return " (chosen by)" if len(weights) == 1 else f" (chosen by, times {weights[name]:g})"


def title_of(name: str) -> str:
    """Return what tables and figures call a number."""
    return name.replace(".", ": ").replace("_", " ")
