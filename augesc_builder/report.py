"""Tables of a run beside the paper's, as Markdown that is legible on a console too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from augesc_builder import paper
from augesc_builder.requirements import REQUIREMENTS

NOTHING = "-"
"""Stands where a number is undefined."""

STATISTICS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sessions", ("sessions",)),
    ("words a session", ("mean_session_words",)),
    ("unique words", ("unique_words",)),
    ("seeker: utterances", ("seeker", "utterances")),
    ("seeker: utterances a session", ("seeker", "mean_utterances")),
    ("seeker: words an utterance", ("seeker", "mean_utterance_words")),
    ("seeker: unique words", ("seeker", "unique_words")),
    ("supporter: utterances", ("supporter", "utterances")),
    ("supporter: utterances a session", ("supporter", "mean_utterances")),
    ("supporter: words an utterance", ("supporter", "mean_utterance_words")),
    ("supporter: unique words", ("supporter", "unique_words")),
)
"""The rows of Table 2: their names, and where ``statistics.json`` has them."""


def filter_table(report: Mapping[str, Any]) -> str:
    """Write Table 1: a requirement a row, our sources first, then the paper's columns."""
    columns = {f"ours: {name}": _shares(part) for name, part in report["by_source"].items()}
    if len(columns) != 1:
        columns["ours: all"] = _shares(report)
    columns |= {f"paper: {name}": list(shares) for name, shares in paper.TABLE_1.items()}
    names = [*REQUIREMENTS, "RETAINED"]
    return markdown_table(
        ["% of texts that violate", *columns],
        [
            [name, *(_percent(column[i]) for column in columns.values())]
            for i, name in enumerate(names)
        ],
    )


def statistics_table(sets: Mapping[str, Mapping[str, Any]], *, with_paper: bool) -> str:
    """Write Table 2: a statistic a row, the given sets as columns, then the paper's."""
    columns = {name: [_number(_at(s, path)) for _, path in STATISTICS] for name, s in sets.items()}
    if with_paper:
        columns |= {f"paper: {name}": list(cells) for name, cells in paper.TABLE_2.items()}
    return markdown_table(
        ["", *columns],
        [
            [label, *(column[i] for column in columns.values())]
            for i, (label, _) in enumerate(STATISTICS)
        ],
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table, its columns aligned: the first left, the others right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(header))]

    def write(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w if i == 0 else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join([write(lines[0]), f"| {' | '.join(rule)} |", *map(write, lines[1:])])


def _shares(report: Mapping[str, Any]) -> list[float | None]:
    shares = [report["violations"][name]["share"] for name in REQUIREMENTS]
    return [None if s is None else 100 * s for s in [*shares, report["retention"]]]


def _at(values: Mapping[str, Any], path: Sequence[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
