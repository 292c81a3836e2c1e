"""Tables of a run beside the paper's, as Markdown that is legible on a console too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from augesc_builder import paper

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


TABLE_1_HEADINGS = {
    "format": "format",
    "session_length": "session length",
    "total_utterances": "total",
    "continuous_utterances": "continuous",
    "balanced_utterances": "balanced",
    "role_words": "role words",
    "seeker_utterance_length": "seeker length",
    "supporter_utterance_length": "supporter length",
}
"""The requirements as Table 1 calls them, short enough for a console."""


def filter_table(report: Mapping[str, Any], model: str = "ours") -> str:
    """Write Table 1: a source a row, ours first, then the paper's, a requirement a column."""
    sources = report["by_source"]
    rows = {f"{model} ({source_label(name)})": part for name, part in sources.items()}
    if len(rows) != 1:
        rows[f"{model} (all)"] = report
    rows |= {f"paper: {name}": part for name, part in report["paper"].items()}
    return markdown_table(
        ["% of texts", *TABLE_1_HEADINGS.values(), "RETAINED"],
        [[name, *map(_percent, _shares(part))] for name, part in rows.items()],
    )


def source_label(source: str) -> str:
    """Name a source of queries as the paper does."""
    return {"empathetic_dialogues": "ED", "reddit": "Reddit"}.get(source, source)


def statistics_table(statistics: Mapping[str, Any], *, with_paper: bool) -> str:
    """Write Table 2: a statistic a row, the sets (and all of them) as columns, then the paper's."""
    sets = {source_label(name): part for name, part in statistics["by_source"].items()}
    if len(sets) != 1:
        sets["all"] = statistics
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
    shares = (report["violations"][name]["share"] for name in TABLE_1_HEADINGS)
    return [*shares, report["retention"]]


def _at(values: Mapping[str, Any], path: Sequence[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f}"


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
