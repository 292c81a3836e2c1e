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
    names = [
        name
        for name in points[0].numbers
        if all(point.numbers[name] is not None for point in points)
    ]
    columns = 3
    figure, axes = panels(max(1, -(-len(names) // columns)), columns, width=2.6, height=2.0)
    has_tokens = all(point.tokens is not None for point in points)
    across = [point.tokens if has_tokens else point.k for point in points]
    for ax, name in zip(axes, names, strict=False):
        ax.plot(across, [point.numbers[name] for point in points], marker="o", **look(0))
        ax.set_title(label(title_of(name)))
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    what = "tokens for each kept session" if has_tokens else "samples of a query"
    caption(figure, f"Across: {what}, one mark for the best of 1, of 2, and so on.")
    return figure
