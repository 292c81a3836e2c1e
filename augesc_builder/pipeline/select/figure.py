"""The figure of what choosing costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from augesc_builder.pipeline.select.report import Point
from augesc_builder.pipeline.select.tables import title_of
from augesc_builder.pipeline.statistics.drawing import caption, label, look, panels, save


def draw(points: Sequence[Point], into: Path) -> None:
    """Draw each number against the tokens (or samples) for a kept session."""
    save(lambda: [("selection", _figure(points))], into)


def _figure(points: Sequence[Point]) -> Figure:
    values = {
        name: known
        for name in points[0].numbers
        if (known := _known([point.numbers[name] for point in points])) is not None
    }
    columns = 3
    figure, axes = panels(max(1, -(-len(values) // columns)), columns, width=2.6, height=2.0)
    tokens = _known([point.tokens for point in points])
    across = [float(point.k) for point in points] if tokens is None else tokens
    for ax, (name, heights) in zip(axes, values.items(), strict=False):
        ax.plot(across, heights, marker="o", **look(0))
        ax.set_title(label(title_of(name)))
    for ax in axes[len(values) :]:
        ax.set_visible(False)
    what = "samples of a query" if tokens is None else "tokens for each kept session"
    caption(figure, f"Across: {what}, one mark for the best of 1, of 2, and so on.")
    return figure


def _known(numbers: Sequence[float | None]) -> list[float] | None:
    """Return numbers where all of them are known."""
    found = [number for number in numbers if number is not None]
    return found if len(found) == len(numbers) else None
